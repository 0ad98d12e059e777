"""Random changes of training images: what they keep, how often, where they apply."""

import collections
import dataclasses

import numpy as np
import pytest

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import AUGMENTATIONS, set_field
from pixelrnn_jax.data import ImageSource, augment, train_iterator
from pixelrnn_jax.errors import InputError


def photo(shape=(4, 5, 3), least=40, most=200):
  return np.random.default_rng(1).integers(least, most, shape, np.uint8)


def test_the_names():
  assert tuple(augment.RULES) == AUGMENTATIONS[1:]


def test_mirror_turns_every_second_image():
  image, rng = photo(), np.random.default_rng(0)
  turned = 0
  for _ in range(1_000):
    changed = augment.mirror(image, rng)
    if (changed != image).any():
      np.testing.assert_array_equal(changed, image[:, ::-1])
      turned += 1
  assert 440 < turned < 560


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_other_channels_moved(channels):
  """Every changed channel is one of the image's, in one direction, plus a number."""
  image, rng = photo((4, 5, channels)), np.random.default_rng(0)
  orders, shifts, unchanged = collections.Counter(), [], 0
  for _ in range(1_000):
    changed = augment.colours(image, rng)
    assert changed.dtype == np.uint8 and changed.shape == image.shape
    found = []
    for turned in (image, image[:, ::-1]):
      if (changed == turned).all():
        unchanged += 1
      differences = changed[..., :, None].astype(int) - turned[..., None, :]
      same = (differences == differences[0, 0]).all((0, 1))  # [to, from]
      if same.any(1).all():
        found.append((tuple(same.argmax(1)), differences[0, 0][same]))
    (order, shift), = found
    assert sorted(order) == list(range(channels))
    orders[order] += 1
    shifts.append(shift)
  assert 440 < unchanged < 560
  assert len(orders) == (6 if channels == 3 else 1)
  rest = np.array([count for order, count in orders.items() if order != (0, 1, 2)])
  if channels == 3:  # a sixth of a half of them each
    assert (rest > 50).all() and (rest < 120).all()
  shifts = np.array(shifts)
  moved = shifts[(shifts != 0).any(1)]
  least, most = image.min((0, 1)).astype(int), image.max((0, 1)).astype(int)
  assert moved.min() <= -least.min() + 3 and moved.max() >= 255 - most.max() - 3


def test_a_full_range_is_not_moved():
  image = photo()
  image[0, 0], image[-1, -1] = 0, 255
  for seed in range(50):
    changed = augment.colours(image, np.random.default_rng(seed))
    np.testing.assert_array_equal(
        np.sort(changed, axis=None), np.sort(image, axis=None))


def make(augmentation, **data):
  config = load_config("row_lstm_photos")
  set_field(config, "train.batch_size", 4)
  set_field(config, "data.augmentation", augmentation)
  images = np.stack([photo((32, 32, 3), 10 * i, 10 * i + 90) for i in range(12)])
  return config, ImageSource(images, "photos")


def batches(config, source, steps):
  iterator = train_iterator(config, source)
  return np.concatenate([next(iterator) for _ in range(steps)])


def test_training_batches_are_the_same_images_changed():
  plain = batches(*make("none"), 9)
  changed = batches(*make("mirror"), 9)
  turned = (plain != changed).any((1, 2, 3))
  assert 0 < turned.sum() < len(plain)
  np.testing.assert_array_equal(plain[turned][:, :, ::-1], changed[turned])
  config, source = make("colours")
  first = batches(config, source, 9)
  np.testing.assert_array_equal(first, batches(config, source, 9))
  # Epochs differ in the images' changes, not only in their order.
  assert len(np.unique(first.reshape(36, -1), axis=0)) > 24
  other = dataclasses.replace(
      config, train=dataclasses.replace(config.train, seed=1))
  assert (batches(other, source, 9) != first).any()


@pytest.mark.parametrize("name, value, match", [
    ("row_lstm_mnist", "colours", "it moves values from 0 to 255"),
    ("row_lstm_photos", "flip", "data.augmentation='flip': must be one of"),
])
def test_refused(name, value, match):
  config = load_config(name)
  set_field(config, "data.augmentation", value)
  with pytest.raises(InputError, match=match):
    config.validate()
