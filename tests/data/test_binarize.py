import hashlib

import numpy as np
import pytest

from pixelrnn_jax.data import binarize
from pixelrnn_jax.errors import InputError

# Row x of the 256 rows holds 4,000 pixels of grey value x.
RAMP = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4000, axis=1)


def assert_follows_ramp(bits):
  """Assert that the bits of row x of RAMP are 1 with probability x / 255.

  The mean of each row may differ by 5 standard deviations.
  """
  p = np.arange(256) / 255
  deviation = np.sqrt(p * (1 - p) / RAMP.shape[1])
  assert bits.dtype == np.uint8 and set(np.unique(bits)) == {0, 1}
  assert not bits[0].any() and bits[255].all()
  assert (np.abs(bits.mean(axis=1) - p) <= 5 * deviation).all()


def test_static_probability_is_the_intensity():
  assert_follows_ramp(binarize.static(RAMP))


def test_dynamic_probability_is_the_intensity():
  assert_follows_ramp(binarize.dynamic(RAMP, np.random.default_rng(3)))


def test_static_against_a_plain_loop():
  image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
  data = image.tobytes()
  u = hashlib.shake_256(b"pixelrnn_jax static binarisation 1" + data).digest(210)
  expected = [
      int(int.from_bytes(u[2 * i:2 * i + 2], "little") * 255 < x * 65536)
      for i, x in enumerate(data)
  ]
  np.testing.assert_array_equal(binarize.static(image).reshape(-1), expected)


def test_static_is_frozen():
  # The packaged file was made by this rule, so the rule must never change.
  bits = binarize.static(np.arange(256, dtype=np.uint8))
  assert np.packbits(bits).tobytes().hex() == (
      "2002241143944a0400a2c51f84e783c8701868ba7f5adb77ebfbafffffffffff")


def test_static_depends_on_the_bytes_alone():
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (28, 28), dtype=np.uint8)
  bits = binarize.static(image)
  np.testing.assert_array_equal(binarize.static(image), bits)
  np.testing.assert_array_equal(binarize.static(image[..., None])[..., 0], bits)
  not_contiguous = np.asfortranarray(image)
  np.testing.assert_array_equal(binarize.static(not_contiguous), bits)
  changed = image.copy()
  changed[0, 0] ^= 1
  assert (binarize.static(changed) != bits).sum() > 50


def test_dynamic_follows_the_generator():
  image = np.full((40, 40), 128, np.uint8)
  first = binarize.dynamic(image, np.random.default_rng(5))
  rng = np.random.default_rng(5)
  np.testing.assert_array_equal(binarize.dynamic(image, rng), first)
  assert (binarize.dynamic(image, rng) != first).mean() > 0.4


def test_threshold():
  image = np.array([0, 1, 127, 128, 255], np.uint8)
  np.testing.assert_array_equal(binarize.threshold(image), [0, 0, 0, 1, 1])


@pytest.mark.parametrize("rule", [
    binarize.static,
    binarize.threshold,
    lambda image: binarize.dynamic(image, np.random.default_rng(0)),
])
def test_only_bytes(rule):
  with pytest.raises(InputError, match="float32.*uint8"):
    rule(np.zeros((2, 2), np.float32))
