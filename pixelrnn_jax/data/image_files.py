"""Image files: PNG and JPEG files from anywhere to pixels, pixels to PNG files.

The decoder sees only the bytes that make the pixels. Metadata (text, profiles,
previews, places, other views) is cut out before, so that no damage in it can end the
program or condemn a good image. Of the metadata only the Exif orientation is used.
"""

import dataclasses
import io
import os
import struct
from collections.abc import Mapping

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError, plain_text

SUFFIXES = (".png", ".jpg", ".jpeg")
# A file of a few bytes can ask for any number of pixels. So many take up to 1.2 GB.
MOST_PIXELS = 2**26
_MOST_BYTES = 2**29  # of a file: twice the uncompressed RGBA of so many pixels
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# The turn that makes an image upright, by its Exif orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_INTEGERS = {3: "H", 4: "I"}
# An image is in colour if more than a hundredth of its pixels have channels that are
# further apart than this. JPEG and paper colour grey images by less.
_COLOURED = 24


@dataclasses.dataclass
class Decoded:
  """An image.

  Attributes:
    pixels: uint8 [h, w, C], 0 to 255.
    in_colour: whether the file is in colour. It does not depend on C.
  """

  pixels: np.ndarray
  in_colour: bool


def decode(path: str, channels: int) -> Decoded:
  """Return the pixels of a PNG or JPEG file, by its content, whatever its name is.

  A palette becomes its colours. With C = 3, a grey file becomes three equal channels.
  With C = 1, a colour file becomes its luma 0.299 R + 0.587 G + 0.114 B. The Exif
  orientation is followed. Colour profiles are not.

  Args:
    path: the path of the file.
    channels: C, 1 or 3.

  Raises:
    InputError: the file is missing, no regular file, empty, damaged, of another
      format, of 16 bits a channel, CMYK, animated or transparent in places. Or it has
      more than 2^29 bytes or 2^26 pixels; the header tells the number of pixels
      before anything is decoded. No other error is raised.
  """
  content = _read(path)
  if content.startswith(_PNG_SIGNATURE):
    _check_png_header(path, content)
    bare, exif = _without_png_metadata(path, content)
  elif content.startswith(_JPEG_SIGNATURE):
    bare, exif = _without_jpeg_metadata(content)
  else:
    raise InputError(f"{path!r} is not a PNG or JPEG file. Convert it first.")
  try:
    with Image.open(io.BytesIO(bare), formats=["PNG", "JPEG"]) as image:
      width, height = image.size
      if width * height > MOST_PIXELS:
        raise Image.DecompressionBombError
      if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise InputError(
            f"{path!r} has the colours of {image.mode}; images are grey or RGB."
            " Convert it first."
        )
      image.load()
      opacity = 255
      if image.has_transparency_data:
        image = image.convert("RGBA")
        opacity = np.asarray(image.getchannel("A")).min()
      turn = _TURNS.get(_orientation(exif))
      if turn is not None:
        image = image.transpose(turn)
      pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
      in_colour = image.mode not in ("1", "L", "LA") and _in_colour(image)
  except InputError:
    raise
  except Image.DecompressionBombError as error:  # or Pillow's own limit
    raise InputError(
        f"{path!r} has more than the {MOST_PIXELS:,} pixels that are decoded at most."
        " Resize it first."
    ) from error
  except Exception as error:  # of Pillow's decoders, of any kind
    reason = " ".join(plain_text(error).split())[:200]
    raise InputError(
        f"{path!r} is damaged and cannot be read: {reason}."
        " Save it again as PNG or JPEG."
    ) from error
  if opacity < 255:
    raise InputError(
        f"{path!r} is transparent in places, which no value stands for. Save it"
        " without an alpha channel."
    )
  return Decoded(pixels.reshape(*pixels.shape[:2], channels), in_colour)


def crop_and_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
  """Return the largest centred part of the shape H : W, resized by Pillow's box filter.

  Each value is the mean of the pixels whose centres lie in its area. It is rounded to
  integers along the rows, and again down the columns.

  Args:
    pixels: uint8 [h, w, C] of any size.
    height: H.
    width: W.

  Returns:
    uint8 [H, W, C]. Pixels of that size are returned as they are.
  """
  h, w, channels = pixels.shape
  if (h, w) == (height, width):
    return pixels
  scale = min(h / height, w / width)
  part_h, part_w = height * scale, width * scale
  top, left = (h - part_h) / 2, (w - part_w) / 2
  image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
  box = (left, top, min(left + part_w, w), min(top + part_h, h))
  resized = image.resize((width, height), Image.Resampling.BOX, box=box)
  return np.asarray(resized).reshape(height, width, channels)


def write_png(
    pixels: np.ndarray, path: str, metadata: Mapping[str, str] | None = None
) -> None:
  """Write a PNG file, as a whole or not at all.

  Args:
    pixels: uint8 [h, w, 1 or 3].
    path: the path of the file.
    metadata: texts by keyword.
  """
  content, info = io.BytesIO(), PngImagePlugin.PngInfo()
  for key, text in (metadata or {}).items():
    info.add_text(key, text)
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
      content, "PNG", pnginfo=info)
  files.write_bytes(path, content.getvalue())


def _read(path: str) -> bytes:
  """Return the content of a file; raise InputError if it has none, or too much."""
  try:
    with files.open_file(path) as file:
      size = os.fstat(file.fileno()).st_size
      content = file.read(_MOST_BYTES + 1) if size <= _MOST_BYTES else b""
  except OSError as error:
    raise InputError(
        f"{path!r} cannot be read: {error.strerror}. Give PNG or JPEG files."
    ) from error
  if max(size, len(content)) > _MOST_BYTES:
    raise InputError(
        f"{path!r} has {size:,} bytes; no image that is decoded has more than"
        f" {_MOST_BYTES:,}. Save it again as PNG or JPEG."
    )
  if not content:
    raise InputError(f"{path!r} is empty. Save it again as PNG or JPEG.")
  return content


def _check_png_header(path: str, content: bytes) -> None:
  """Raise InputError for a PNG file that is cut short or of 16 bits a channel.

  Pillow would read 16-bit RGB as 8 bits in silence.
  """
  if len(content) < 26 or content[12:16] != b"IHDR":
    raise InputError(
        f"{path!r} is damaged and cannot be read: it has no PNG header. Save it"
        " again as PNG or JPEG."
    )
  if content[24] == 16:
    raise InputError(
        f"{path!r} has 16 bits a channel; this model needs 8. Save it as an"
        " 8-bit PNG."
    )


def _without_png_metadata(path: str, content: bytes) -> tuple[bytes, bytes]:
  """Return a PNG file cut to its critical chunks and tRNS, and its Exif data.

  A file that is cut short is left for the decoder to find.

  Raises:
    InputError: it is animated.
  """
  kept, exif, at = [content[:8]], b"", 8
  while at + 8 <= len(content):
    length, name = struct.unpack_from(">I4s", content, at)
    end = at + 12 + length
    if name == b"acTL":
      frames = int.from_bytes(content[at + 8:at + 12], "big")
      if frames > 1 and length == 8:
        raise InputError(f"{path!r} is animated: {frames} frames. Save one as PNG.")
    elif name == b"eXIf":
      exif = content[at + 8:end - 4]
    elif name == b"tRNS" or not name[0] & 0x20:  # a capital letter: critical
      kept.append(content[at:end])
    if name == b"IEND":
      break
    at = end
  return b"".join(kept), exif


def _without_jpeg_metadata(content: bytes) -> tuple[bytes, bytes]:
  """Return a JPEG file without comments and applications' segments, and its Exif data.

  Whole JFIF and Adobe segments stay, because they say how colours are stored. Damage is
  left for the decoder to find.
  """
  kept, exif, at = [content[:2]], b"", 2
  while at + 4 <= len(content) and content[at] == 0xFF:
    marker, length = content[at + 1], int.from_bytes(content[at + 2:at + 4], "big")
    if marker == 0xFF:  # a fill byte
      at += 1
      continue
    end = at + 2 + length
    if marker == 0xDA or marker <= 0x01 or 0xD0 <= marker <= 0xD9 or length < 2:
      break  # pixels follow, or nothing that makes sense
    segment = content[at:end]
    values = segment[4:]
    is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
    if marker == 0xE1 and values.startswith(b"Exif\0\0"):
      exif = exif or values
    says_colours = (
        marker == 0xE0 and values.startswith(b"JFIF\0") and length >= 16
        or marker == 0xEE and values.startswith(b"Adobe") and length >= 14)
    if not is_metadata or says_colours:
      kept.append(segment)
    at = end
  kept.append(content[at:])
  return b"".join(kept), exif


def _orientation(exif: bytes) -> int:
  """Return the orientation that Exif data name, or 0.

  The data are a TIFF file: the byte order, the place of the first directory, the number
  of its entries, and for each entry the tag, the type, a count and the value.
  """
  tiff = exif.removeprefix(b"Exif\0\0")
  order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
  if order is None or len(tiff) < 8:
    return 0
  directory, = struct.unpack_from(f"{order}I", tiff, 4)
  if directory + 2 > len(tiff):
    return 0
  count, = struct.unpack_from(f"{order}H", tiff, directory)
  first = directory + 2
  for at in range(first, min(first + 12 * count, len(tiff) - 11), 12):
    tag, kind = struct.unpack_from(f"{order}HH", tiff, at)
    if tag == ExifTags.Base.Orientation and kind in _TIFF_INTEGERS:
      return struct.unpack_from(order + _TIFF_INTEGERS[kind], tiff, at + 8)[0]
  return 0


def _in_colour(image: Image.Image) -> bool:
  """Return whether an image has colours, judged by at most about 2^20 pixels."""
  step = 1 + max(image.size) // 1024
  pixels = np.asarray(image.convert("RGB"))[::step, ::step]
  spread = pixels.max(axis=-1) - pixels.min(axis=-1)
  return bool((spread > _COLOURED).mean() > 0.01)
