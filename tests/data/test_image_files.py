"""The image files that users bring."""

import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pixelrnn_jax.data.image_files import find_files, read_images
from pixelrnn_jax.errors import InputError

GREY = np.arange(0, 240, 10, np.uint8).reshape(4, 6)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
LUMA = np.round(COLOUR @ [0.299, 0.587, 0.114])


def save(path, array, mode=None, **options):
  image = Image.fromarray(array)
  (image.convert(mode) if mode else image).save(path, **options)
  return str(path)


def write_raw(path, depth, colour_type, rows):
  """A PNG file of a bit depth that Pillow does not write; rows of bytes."""

  def chunk(name, content):
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

  header = struct.pack(">IIBBBBB", 6, len(rows), depth, colour_type, 0, 0, 0)
  data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
  path.write_bytes(
      b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)
      + chunk(b"IEND", b""))
  return str(path)


def repeated(grey):
  return np.stack([grey] * 3, axis=-1)


@pytest.mark.parametrize("array, mode, grey, colour", [
    (GREY, None, GREY, repeated(GREY)),
    (COLOUR, None, LUMA, COLOUR),
    (COLOUR, "RGBA", LUMA, COLOUR),  # opaque
    (GREY, "LA", GREY, repeated(GREY)),
    (GREY >= 128, None, 255 * (GREY >= 128), repeated(255 * (GREY >= 128))),
], ids=["L", "RGB", "RGBA", "LA", "1"])
def test_reading_png_files(tmp_path, array, mode, grey, colour):
  path = save(tmp_path / "a.png", array, mode)
  read = read_images([path, path], (4, 6, 1), 256)
  assert read.dtype == np.uint8
  np.testing.assert_allclose(read, np.stack([grey] * 2)[..., None], atol=1)
  np.testing.assert_array_equal(read_images([path], (4, 6, 3), 256)[0], colour)


def test_reading_a_palette(tmp_path):
  image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6), "P")
  image.putpalette(COLOUR.tobytes())
  image.save(tmp_path / "a.png")
  read = read_images([str(tmp_path / "a.png")], (4, 6, 3), 256)
  np.testing.assert_array_equal(read[0], COLOUR)


def test_reading_grey_values_of_two_bits(tmp_path):
  path = write_raw(tmp_path / "a.png", 2, 0, [[0b00011011, 0b11000000]] * 4)
  read = read_images([path], (4, 6, 1), 256)[0, ..., 0]
  np.testing.assert_array_equal(read, [[0, 85, 170, 255, 255, 0]] * 4)


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_read_values_are_quantised(tmp_path, levels):
  values = np.arange(256, dtype=np.uint8).reshape(16, 16)
  path = save(tmp_path / "a.png", values)
  read = read_images([path], (16, 16, 1), levels)[0, ..., 0]
  np.testing.assert_array_equal(read, np.floor(values * (levels / 256)))
  if levels == 2:
    np.testing.assert_array_equal(read, values >= 128)


def bad_files(folder):
  """Paths of files that no model can read, with what is to be said."""
  see_through = np.dstack([COLOUR, np.full((4, 6), 255, np.uint8)])
  see_through[1, 2, 3] = 254
  good = pathlib.Path(save(folder / "good.png", COLOUR)).read_bytes()
  palette = Image.fromarray(GREY // 10, "P")
  palette.putpalette(COLOUR.reshape(-1).tobytes())
  palette.save(folder / "palette.png", transparency=3)
  save(folder / "animated.png", GREY, save_all=True,
       append_images=[Image.fromarray(GREY[::-1])])
  Image.fromarray(COLOUR).save(folder / "a.jpg")
  (folder / "cut.png").write_bytes(good[:-30])
  (folder / "header.png").write_bytes(good[:20])
  (folder / "changed.png").write_bytes(
      good[:len(good) // 2] + b"xxxx" + good[len(good) // 2 + 4:])
  (folder / "empty.png").write_bytes(b"")
  write_raw(folder / "rgb16.png", 16, 2, [range(36)] * 4)
  return {
      str(folder / "missing.png"): "cannot be read: No such file",
      str(folder): "cannot be read: Is a directory",
      save(folder / "size.png", COLOUR[:3]): "3 pixels high and 6 wide.*4 high and 6",
      save(folder / "turned.png", COLOUR.swapaxes(0, 1)): "6 pixels high and 4 wide",
      save(folder / "grey16.png", GREY.astype(np.uint16)): "16 bits a channel",
      str(folder / "rgb16.png"): "16 bits a channel",
      save(folder / "alpha.png", see_through): "transparent in places",
      str(folder / "palette.png"): "transparent in places",
      str(folder / "animated.png"): "animated: 2 frames",
      str(folder / "a.jpg"): "not a PNG file",
      str(folder / "empty.png"): "is empty",
      str(folder / "cut.png"): "damaged and cannot be read",
      str(folder / "header.png"): "damaged and cannot be read",
      str(folder / "changed.png"): "damaged and cannot be read",
  }


@pytest.mark.parametrize("channels", [1, 3])
def test_files_that_are_refused(tmp_path, channels):
  good = save(tmp_path / "fine.png", COLOUR)
  for path, message in bad_files(tmp_path).items():
    with pytest.raises(InputError, match=message) as error:
      read_images([good, path], (4, 6, channels), 256)
    assert repr(path) in str(error.value)


def test_finding_files(tmp_path):
  names = ["b.png", "a.png", "c[1].png", "d.txt"]
  for name in names:
    (tmp_path / name).write_text("")
  a, b, c = (str(tmp_path / name) for name in ("a.png", "b.png", "c[1].png"))
  assert find_files([str(tmp_path / "*.png")]) == [a, b, c]
  assert find_files([c, str(tmp_path / "[ab].png")]) == [c, a, b]
  assert find_files(["no such file.png"]) == ["no such file.png"]
  with pytest.raises(InputError, match="No file fits the pattern 'x.*png'"):
    find_files([a, "x*.png"])
  with pytest.raises(InputError, match="at least one PNG file"):
    find_files([])
