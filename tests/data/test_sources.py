import copy

import grain
import numpy as np
import pytest

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.data import load_source
from pixelrnn_jax.errors import InputError


@pytest.fixture
def mnist():
  config = load_config("diagonal_bilstm_mnist")
  config.data.validation_images = 10_000
  return config


@pytest.fixture
def coloured():
  config = load_config("row_lstm_cifar10:smoke")
  config.data.max_images = 40
  return config


def test_parts_are_disjoint_and_whole(mnist):
  train = load_source(mnist, "train")
  validation = load_source(mnist, "validation")
  assert (len(train), len(validation)) == (50_000, 10_000)
  mnist.data.validation_images = 1
  nearly_all = load_source(mnist, "train")
  joined = np.concatenate([train.images, validation.images])
  np.testing.assert_array_equal(joined[:-1], nearly_all.images)
  last = load_source(mnist, "validation")
  np.testing.assert_array_equal(joined[-1:], last.images)


def test_descriptions(mnist):
  def description(split):
    return load_source(mnist, split).description

  assert description("train") == "MNIST (packaged), static binarisation, train[:50000]"
  assert description("validation") == (
      "MNIST (packaged), static binarisation, train[50000:]")
  assert description("test") == "MNIST (packaged), static binarisation, test"
  mnist.data.max_images = 64
  assert description("train").endswith("train[:64]")
  assert description("validation").endswith("train[50000:50064]")
  assert description("test").endswith("test[:64]")


def test_max_images_keeps_the_first(mnist):
  whole = load_source(mnist, "validation")
  mnist.data.max_images = 7
  part = load_source(mnist, "validation")
  assert len(part) == 7
  np.testing.assert_array_equal(part.images, whole.images[:7])


def test_source_satisfies_grain(mnist):
  mnist.data.max_images = 5
  source = load_source(mnist, "test")
  assert isinstance(source, grain.sources.RandomAccessDataSource)
  image = source[np.int64(4)]
  assert image.shape == (28, 28, 1) and image.dtype == np.uint8
  np.testing.assert_array_equal(source[-1], image)
  assert len(list(source)) == 5  # the iteration ends with IndexError


def test_bad_split_and_sizes(mnist):
  with pytest.raises(InputError, match="'valid'.*train, validation, test"):
    load_source(mnist, "valid")
  mnist.data.validation_images = 60_000
  with pytest.raises(InputError, match="60000.*only 60000 images"):
    load_source(mnist, "train")
  with pytest.raises(InputError, match="validation_images"):
    load_source(mnist, "validation")
  assert len(load_source(mnist, "test")) == 10_000


def test_coloured_digits(coloured):
  source = load_source(coloured, "train")
  assert source.description == "coloured MNIST (synthetic), train[:40]"
  assert source.images.shape == (40, 8, 8, 3)
  assert source.images.min() >= 8 and source.images.max() <= 246
  # The top left corner shows background and noise, which spans 16 values at most. The
  # noise differs between images.
  corners = source.images[:, :1].reshape(40, -1, 3).astype(int)
  assert (np.ptp(corners[:, :2], axis=1) <= 15).all()
  assert len(np.unique(source.images.reshape(40, -1), axis=0)) == 40
  again = load_source(coloured, "train")
  np.testing.assert_array_equal(source.images, again.images)


def test_coloured_images_belong_to_their_index(coloured):
  """An image does not depend on the range of images that is read."""
  validation = load_source(coloured, "validation")
  coloured.data.validation_images -= 3
  shifted = load_source(coloured, "validation")
  np.testing.assert_array_equal(validation.images[3:], shifted.images[:-3])
  test = load_source(coloured, "test")
  assert (test.images != load_source(coloured, "train").images).mean() > 0.9


def test_coloured_shows_the_digit(coloured):
  """At 28x28 an image is the digit in two colours, plus noise from -8 to 7."""
  coloured.model.image_shape = (28, 28, 3)
  mnist = load_config("diagonal_bilstm_mnist")
  digits = load_source(mnist, "test").images[:40, ..., 0].astype(bool)
  images = load_source(coloured, "test").images.astype(int)
  for digit, image in zip(digits, images, strict=True):
    ink, ground = image[digit], image[~digit]
    assert (np.ptp(ink, axis=0) <= 15).all() and (np.ptp(ground, axis=0) <= 15).all()
    noise = ground - ground.min(axis=0)
    assert abs(noise.mean() - 7.5) < 0.6


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 50, 3)])
def test_coloured_has_any_size(coloured, shape):
  coloured.model.image_shape = shape
  assert load_source(coloured, "test").images.shape == (40, *shape)


@pytest.mark.parametrize("levels", [3, 8, 255])
def test_levels_are_quantised(coloured, levels):
  full = load_source(coloured, "test")
  config = copy.deepcopy(coloured)
  config.model.levels = levels
  source = load_source(config, "test")
  expected = np.floor(full.images.astype(float) * levels / 256)
  np.testing.assert_array_equal(source.images, expected)
  assert source.images.dtype == np.uint8
  assert f"{levels} levels (floor(x {levels} / 256))" in source.description
