"""Image files of users: decoding, refusals, and what --images accepts."""

import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pixelrnn_jax import ops
from pixelrnn_jax.data import GivenImages
from pixelrnn_jax.data.image_files import crop_and_resize, decode
from pixelrnn_jax.errors import InputError

GREY = np.arange(0, 240, 10, np.uint8).reshape(4, 6)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
LUMA = np.round(COLOUR @ [0.299, 0.587, 0.114])


def read_files(paths, image_shape, levels):
  return GivenImages(paths, image_shape, levels).read(len(paths))


def save(path, array, mode=None, **options):
  image = Image.fromarray(array)
  (image.convert(mode) if mode else image).save(path, **options)
  return str(path)


def write_raw(path, depth, colour_type, rows):
  """Write a PNG file with a bit depth that Pillow does not write; return its path.

  `rows` holds the bytes of each row.
  """

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
  read = read_files([path, path], (4, 6, 1), 256)
  assert read.dtype == np.uint8
  np.testing.assert_allclose(read, np.stack([grey] * 2)[..., None], atol=1)
  np.testing.assert_array_equal(read_files([path], (4, 6, 3), 256)[0], colour)


def test_reading_a_palette(tmp_path):
  image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6), "P")
  image.putpalette(COLOUR.tobytes())
  image.save(tmp_path / "a.png")
  read = read_files([str(tmp_path / "a.png")], (4, 6, 3), 256)
  np.testing.assert_array_equal(read[0], COLOUR)


def test_reading_grey_values_of_two_bits(tmp_path):
  path = write_raw(tmp_path / "a.png", 2, 0, [[0b00011011, 0b11000000]] * 4)
  read = read_files([path], (4, 6, 1), 256)[0, ..., 0]
  np.testing.assert_array_equal(read, [[0, 85, 170, 255, 255, 0]] * 4)


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_read_values_are_quantised(tmp_path, levels):
  values = np.arange(256, dtype=np.uint8).reshape(16, 16)
  path = save(tmp_path / "a.png", values)
  read = read_files([path], (16, 16, 1), levels)[0, ..., 0]
  np.testing.assert_array_equal(read, np.floor(values * (levels / 256)))
  if levels == 2:
    np.testing.assert_array_equal(read, values >= 128)


def bad_files(folder):
  """Write files that cannot be read; return {path: the expected message}."""
  see_through = np.dstack([COLOUR, np.full((4, 6), 255, np.uint8)])
  see_through[1, 2, 3] = 254
  good = pathlib.Path(save(folder / "good.png", COLOUR)).read_bytes()
  palette = Image.fromarray(GREY // 10, "P")
  palette.putpalette(COLOUR.reshape(-1).tobytes())
  palette.save(folder / "palette.png", transparency=3)
  save(folder / "animated.png", GREY, save_all=True,
       append_images=[Image.fromarray(GREY[::-1])])
  Image.fromarray(COLOUR).save(folder / "a.gif")
  os.mkfifo(folder / "pipe.png")
  (folder / "cut.png").write_bytes(good[:-30])
  (folder / "header.png").write_bytes(good[:20])
  (folder / "changed.png").write_bytes(
      good[:len(good) // 2] + b"xxxx" + good[len(good) // 2 + 4:])
  (folder / "no_image.jpg").write_bytes(b"\xff\xd8\xff" + b"text" * 9)
  (folder / "no_size.png").write_bytes(good[:16] + bytes(8) + good[24:])
  (folder / "empty.png").write_bytes(b"")
  write_raw(folder / "rgb16.png", 16, 2, [range(36)] * 4)
  return {
      str(folder / "missing.png"): "cannot be read: No such file",
      save(folder / "grey16.png", GREY.astype(np.uint16)): "16 bits a channel",
      str(folder / "rgb16.png"): "16 bits a channel",
      save(folder / "alpha.png", see_through): "transparent in places",
      str(folder / "palette.png"): "transparent in places",
      str(folder / "animated.png"): "animated: 2 frames",
      str(folder / "a.gif"): "not a PNG or JPEG file",
      str(folder / "pipe.png"): "cannot be read: It is a pipe",
      "/dev/zero": "cannot be read: It is a pipe, a socket or a device",
      str(folder / "empty.png"): "is empty",
      str(folder / "cut.png"): "damaged and cannot be read",
      str(folder / "header.png"): "damaged and cannot be read",
      str(folder / "changed.png"): "damaged and cannot be read",
      str(folder / "no_image.jpg"): "damaged and cannot be read",
      str(folder / "no_size.png"): "damaged and cannot be read",
  }


@pytest.mark.parametrize("channels", [1, 3])
def test_files_that_are_refused(tmp_path, channels):
  good = save(tmp_path / "fine.png", COLOUR)
  for path, message in bad_files(tmp_path).items():
    with pytest.raises(InputError, match=message) as error:
      read_files([good, path], (4, 6, channels), 256)
    assert repr(path) in str(error.value)
    assert "object at 0x" not in str(error.value)


def test_finding_files(tmp_path, monkeypatch):
  for name, value in (("b", 1), ("a", 2), ("c[1]", 3)):
    save(tmp_path / f"{name}.png", np.full((4, 6), value, np.uint8))
  (tmp_path / "d.txt").write_text("")
  monkeypatch.setenv("HOME", str(tmp_path))
  a, b, c = (str(tmp_path / name) for name in ("a.png", "b.png", "c[1].png"))

  def values(*names):
    given = GivenImages(names, (4, 6, 1), 256)
    return given.read(len(given))[:, 0, 0, 0].tolist()

  assert values(str(tmp_path / "*.png")) == [2, 1, 3]
  assert values(c, str(tmp_path / "[ab].png")) == [3, 2, 1]
  assert values("~/a.png", "~/[b].png") == [2, 1]
  assert values(str(tmp_path)) == [2, 1, 3]
  with pytest.raises(InputError, match="'no such file.png' cannot be read"):
    values(a, b, "no such file.png")
  with pytest.raises(InputError, match="No file fits the pattern 'x.*png'"):
    values(a, "x*.png")
  with pytest.raises(InputError, match="at least one PNG or JPEG file"):
    values()


def test_whatever_training_takes(tmp_path):
  """--images accepts all that training accepts, and makes the same pixels of it.

  These are JPEG files, images of other sizes, folders and .npz files.
  """
  pixels = np.linspace(0, 255, 540).reshape(9, 20, 3).astype(np.uint8)
  photos = tmp_path / "photos"
  photos.mkdir()
  save(photos / "b.png", pixels)
  save(photos / "a.JPG", pixels, quality=100)
  given = GivenImages([str(photos), str(photos / "b.png")], (4, 6, 3), 256)
  assert len(given) == 3 and not given.named
  expected = crop_and_resize(pixels, 4, 6)
  jpeg = crop_and_resize(decode(str(photos / "a.JPG"), 3).pixels, 4, 6)
  np.testing.assert_array_equal(given.read(3), [jpeg, expected, expected])
  np.testing.assert_allclose(jpeg, expected.astype(float), atol=6)
  arrays = {
      part: np.random.default_rng(i).integers(0, 16, (3, 4, 6, 3), np.uint8)
      for i, part in enumerate(("train", "test"))}
  np.savez(tmp_path / "own.npz", **arrays)
  given = GivenImages([f"folder:{tmp_path}/own.npz"], (4, 6, 3), 16)
  np.testing.assert_array_equal(
      given.read(4), np.concatenate([arrays["test"], arrays["train"][:1]]))
  with pytest.raises(InputError, match="values up to 15, but model.levels=8"):
    GivenImages([str(tmp_path / "own.npz")], (4, 6, 3), 8).read(6)
  with pytest.raises(InputError, match=r"shape \(3, 4, 6, 3\), but model.image_shape"):
    GivenImages([str(tmp_path / "own.npz")], (4, 5, 3), 16)


def test_images_to_grow(tmp_path):
  """Images of the smallest scale's size stay as they are.

  Larger images are subsampled as in training.
  """
  large = np.random.default_rng(0).integers(0, 256, (8, 12), np.uint8)
  save(tmp_path / "large.png", large)
  save(tmp_path / "small.png", large[:2, :3])
  np.savez(tmp_path / "large.npz", images=large[None])
  np.savez(tmp_path / "small.npz", images=large[None, :2, :3])
  names = [str(tmp_path / x) for x in (
      "large.png", "small.png", "large.npz", "small.npz")]
  read = GivenImages(names, (8, 12, 1), 256, (2, 2)).read(4)[..., 0]
  middle = ops.pyramid(large[None, ..., None], (2, 2))[0][0, ..., 0]
  np.testing.assert_array_equal(read, [middle, large[:2, :3]] * 2)


def chunk(name, content, wrong=0):
  crc = zlib.crc32(name + content) ^ wrong
  return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def segment(marker, content):
  return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def gps_of_text():
  """Return Exif data with orientation 6 and a latitude that is a text.

  Pillow fails on such a latitude.
  """
  entries = struct.pack(
      "<HHHIIHHIII", 2, 0x0112, 3, 1, 6, 0x8825, 4, 1, 38, 0)  # GPS data at byte 38
  gps = struct.pack("<HHHI4sI", 1, 2, 2, 4, b"abc\0", 0)
  return b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + gps


BIG_TEXT = b"Comment\0\0" + zlib.compress(bytes(2**21))
# Damaged or unusual metadata. The pixels do not depend on any of it.
PNG_METADATA = {
    "a text of megabytes": chunk(b"zTXt", BIG_TEXT),
    "a text that is no zlib": chunk(b"zTXt", b"Comment\0\0abc"),
    "a wrong sum": chunk(b"tEXt", b"Comment\0abc", wrong=1),
    "a profile that is none": chunk(b"iCCP", b"x"),
    "half a gamma": chunk(b"gAMA", b"x"),
    "half a size": chunk(b"pHYs", b"x"),
    "Exif of nothing": chunk(b"eXIf", b""),
    "Exif of rubbish": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "an animation of one frame": chunk(b"acTL", struct.pack(">II", 1, 0)),
    "an animation without frames": chunk(b"acTL", b"x"),
}
JPEG_METADATA = {
    "half a JFIF": segment(0xE0, b"JFIF"),
    "Exif of rubbish": segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "Exif without an end": segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
    "half a profile": segment(0xE2, b"ICC_PROFILE\0"),
    "an empty index of pictures": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0"),
    "half of Photoshop's": segment(0xED, b"Photoshop 3.0\x008BIM"),
    "half of Adobe's": segment(0xEE, b"Adobe"),
    "a comment": segment(0xFE, b"abc"),
    "an empty comment": segment(0xFE, b""),
}


@pytest.mark.parametrize("name", PNG_METADATA)
def test_broken_metadata_of_a_png(tmp_path, name):
  content = pathlib.Path(save(tmp_path / "a.png", COLOUR)).read_bytes()
  extra = PNG_METADATA[name]
  for at in (33, len(content) - 12):  # after IHDR, and before IEND
    (tmp_path / "a.png").write_bytes(content[:at] + extra + content[at:])
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), 3).pixels, COLOUR)


@pytest.mark.parametrize("name", JPEG_METADATA)
def test_broken_metadata_of_a_jpeg(tmp_path, name):
  path = save(tmp_path / "a.jpg", np.tile(COLOUR, (3, 3, 1)))
  content, expected = pathlib.Path(path).read_bytes(), decode(path, 3).pixels
  extra = JPEG_METADATA[name]
  for at in (2, 20):  # before and after the JFIF header
    pathlib.Path(path).write_bytes(content[:at] + extra + content[at:])
    np.testing.assert_array_equal(decode(path, 3).pixels, expected)


def test_the_orientation_counts_whatever_else_the_metadata_hold(tmp_path):
  path = save(tmp_path / "a.jpg", COLOUR.repeat(8, axis=0).repeat(8, axis=1))
  upright = decode(path, 3).pixels
  content = pathlib.Path(path).read_bytes()
  extra = segment(0xE1, gps_of_text())
  pathlib.Path(path).write_bytes(content[:2] + extra + content[2:])
  np.testing.assert_array_equal(decode(path, 3).pixels, np.rot90(upright, -1))


@pytest.mark.parametrize("orientation", range(10))
def test_orientations(tmp_path, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = save(tmp_path / "a.png", COLOUR, exif=exif)
  turned = {
      2: COLOUR[:, ::-1], 3: COLOUR[::-1, ::-1], 4: COLOUR[::-1],
      5: COLOUR.swapaxes(0, 1), 6: np.rot90(COLOUR, -1),
      7: COLOUR[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(COLOUR)}
  np.testing.assert_array_equal(
      decode(path, 3).pixels, turned.get(orientation, COLOUR))


def test_nothing_but_input_errors(tmp_path):
  """A PNG or JPEG file with random changes is decoded or raises an InputError."""
  rng = np.random.default_rng(0)
  exif = Image.Exif()
  exif[0x0112] = 6
  for kind, options in (("png", {}), ("jpg", {"icc_profile": bytes(200)})):
    pixels = np.tile(COLOUR, (3, 3, 1))
    path = save(tmp_path / f"a.{kind}", pixels, exif=exif, **options)
    good = pathlib.Path(path).read_bytes()
    refused = 0
    for _ in range(300):
      content = bytearray(good[:rng.integers(1, len(good) + 1)] if rng.random() < 0.3
                          else good)
      for at in rng.integers(0, len(content), rng.integers(1, 6)):
        content[at] = rng.integers(256)
      pathlib.Path(path).write_bytes(content)
      try:
        assert decode(path, int(rng.choice([1, 3]))).pixels.dtype == np.uint8
      except InputError as error:
        assert repr(path) in str(error)
        refused += 1
    assert 30 < refused < 300, (kind, refused)


def test_colours(tmp_path):
  noise = np.random.default_rng(0).integers(-8, 9, (40, 60, 3))
  grey = np.tile(GREY.repeat(10, axis=0).repeat(10, axis=1)[..., None], 3)
  one = grey.copy()
  one[0, 0] = (255, 0, 0)
  for pixels, in_colour in (
      (grey, False), (np.clip(grey + noise, 0, 255).astype(np.uint8), False),
      (one, False), (grey[..., 0], False),
      (COLOUR.repeat(10, axis=0).repeat(10, axis=1), True)):
    path = save(tmp_path / "a.png", pixels)
    for channels in (1, 3):
      assert decode(path, channels).in_colour == in_colour
