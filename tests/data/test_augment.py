"""Augmentation: what it keeps, how often it changes images, where it applies."""

import collections
import dataclasses

import numpy as np
import pytest

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.fields import set_field
from pixelrnn_jax.configs.schema import AUGMENTATIONS
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
  """Each channel of a changed image is a channel of the image plus a constant.

  All channels may be mirrored together. The order of the channels may change.
  """
  # The image's values span 40 levels. Some changed images are cut off at 0 or 255, and
  # enough are not.
  image, rng = photo((4, 5, channels), 100, 140), np.random.default_rng(0)
  orders, shifts, unchanged, cut = collections.Counter(), [], 0, 0
  for _ in range(1_000):
    changed = augment.colours(image, rng)
    assert changed.dtype == np.uint8 and changed.shape == image.shape
    if any((changed == turned).all() for turned in (image, image[:, ::-1])):
      unchanged += 1
      continue
    if changed.min() == 0 or changed.max() == 255:
      cut += 1
      continue
    found = []
    for turned in (image, image[:, ::-1]):
      differences = changed[..., :, None].astype(int) - turned[..., None, :]
      same = (differences == differences[0, 0]).all((0, 1))  # [to, from]
      if same.any(1).all():
        found.append((tuple(same.argmax(1)), differences[0, 0][same]))
    (order, shift), = found
    assert sorted(order) == list(range(channels))
    orders[order] += 1
    shifts.append(shift)
  assert 440 < unchanged < 560
  assert cut > 100
  assert len(orders) == (6 if channels == 3 else 1)
  if channels == 3:  # all orders are equally frequent
    assert min(orders.values()) > 0.4 * max(orders.values())
  shifts = np.array(shifts)
  least, most = image.min((0, 1)).astype(int), image.max((0, 1)).astype(int)
  assert -least.max() < shifts.min() < -60 and 60 < shifts.max() < 255 - most.min()


def test_how_far_a_channel_is_moved():
  """A channel moves by -min - 64 to 255 - max + 64, and is cut off at 0 and 255."""
  image = np.array([[[100], [110]]], np.uint8)
  seen = set()
  for seed in range(5_000):
    a, b = sorted(augment.colours(image, np.random.default_rng(seed)).ravel().tolist())
    assert b == min(255, a + 10) or a == 0 or b == 255
    seen.add((a, b))
  assert {(0, 0), (255, 255), (0, 5), (250, 255), (0, 10), (245, 255)} <= seen


@pytest.mark.parametrize("least, most, expected", [(100, 110, 110 / 374), (50, 115, 0)])
def test_a_channel_of_a_small_range_may_become_flat(least, most, expected):
  """A channel of a small range becomes flat as often as documented.

  Of the changed images with a range of 10 it is 29 %.
  """
  image = np.array([[[least], [most]]], np.uint8)
  rng = np.random.default_rng(0)
  draws = np.array([augment.colours(image, rng).ravel() for _ in range(8_000)])
  flat = (draws[:, 0] == draws[:, 1]).mean()
  # Half of all images are changed.
  assert abs(flat - expected / 2) <= (0.02 if expected else 0)


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
  # Epochs differ in how the images are changed, and not only in their order.
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
