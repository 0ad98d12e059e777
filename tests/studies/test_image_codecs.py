"""Other image codecs: they restore the images without loss."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from pixelrnn_jax.errors import InputError
from pixelrnn_jax.studies import image_codecs


def images_of(levels, channels, number=7):
  rng = np.random.default_rng(levels)
  return rng.integers(0, levels, (number, 5, 8, channels), np.uint8)


@pytest.mark.parametrize(
    "levels, channels", [(2, 1), (2, 3), (16, 1), (256, 1), (256, 3)])
def test_every_codec_is_without_loss(levels, channels):
  pixels = image_codecs.sheet(images_of(levels, channels))
  codecs = image_codecs.available(levels)
  assert {"PNG", "WebP"} <= set(codecs)
  assert ("JBIG2" in codecs) == (levels == 2 and shutil.which("jbig2") is not None)
  for name, encode in codecs.items():
    content = encode(pixels, levels)
    if name == "JBIG2":
      assert content[:4] == b"\x97JB2"
      continue  # Pillow cannot read it
    decoded = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    if levels == 2 and channels == 1:  # black and white images
      decoded = decoded > 127
    np.testing.assert_array_equal(decoded, np.broadcast_to(pixels, decoded.shape))


def test_a_bit_is_a_bit():
  """Codecs store an image of two levels in about 1 bit a value, not in 8."""
  noise = np.random.default_rng(0).integers(0, 2, (128, 128, 1), np.uint8)
  for name, encode in image_codecs.available(2).items():
    assert 2048 < len(encode(noise, 2)) < 1.15 * 2048, name


def test_images_side_by_side():
  images = images_of(256, 3)
  full = image_codecs.sheet(images)
  assert full.shape == (4 * 5, 2 * 8, 3)  # nearly square
  for n, image in enumerate(images):
    row, column = divmod(n, 2)
    np.testing.assert_array_equal(
        full[5 * row : 5 * row + 5, 8 * column : 8 * column + 8], image)
  assert not full[15:, 8:].any()
  with pytest.raises(InputError, match="Compare fewer"):
    image_codecs.sheet(np.broadcast_to(np.uint8(0), (300_000, 32, 32, 1)))
