"""Image files: the user's PNG and JPEG files, found, decoded and resized; PNG files
written.

Shapes: N images, H height, W width, C channels (1 or 3).
"""

import glob
import os
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from pixelrnn_jax.errors import InputError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A file of a few bytes can ask for any number of pixels: these take up to 1.2 GB.
MOST_PIXELS = 2**26
# What Pillow raises for files that are truncated or hold something else.
_UNREADABLE = (
    OSError, SyntaxError, ValueError, struct.error, zlib.error)


def read_images(
    paths: Sequence[str], image_shape: tuple[int, int, int], levels: int
) -> np.ndarray:
  """Reads the user's PNG files as images for a model.

  A grey file becomes three equal channels for an RGB model, a colour file its
  luma 0.299 R + 0.587 G + 0.114 B for a grey one. A grey value x of 0 .. 255
  becomes floor(x levels / 256): x for 256 levels, x >= 128 for two.

  Args:
    paths: of 8-bit PNG files: bilevel, grey, RGB or palette.
    image_shape: the model's (H, W, C); files of another size are refused.
    levels: the model's.

  Returns:
    uint8 [N, H, W, C], values 0 .. levels - 1.

  Raises:
    InputError: a file that is missing, damaged, no PNG, of another size, of 16
      bits a channel, animated, or not opaque everywhere.
  """
  images = np.stack([_read_png(path, image_shape) for path in paths])
  return (images.astype(np.uint16) * levels // 256).astype(np.uint8)


def find_files(patterns: Sequence[str]) -> list[str]:
  """The files that names and patterns (`*`, `?`, `[...]`) stand for.

  Raises:
    InputError: a pattern that fits no file, or there are none.
  """
  found = []
  for pattern in patterns:
    if os.path.exists(pattern) or not glob.has_magic(pattern):
      found.append(pattern)
    elif matches := sorted(glob.glob(pattern)):
      found += matches
    else:
      raise InputError(f"No file fits the pattern {pattern!r}. Give PNG files.")
  if not found:
    raise InputError("No image files: give at least one PNG file.")
  return found


def write_png(pixels: np.ndarray, path: str) -> None:
  """Writes uint8 [h, w, 1 or 3] as PNG; the file is complete or not there."""
  temporary = f"{path}.tmp"
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  image.save(temporary, "PNG")
  os.replace(temporary, path)


def decode(path: str, channels: int, formats: Sequence[str]) -> np.ndarray:
  """The pixels of an image file from anywhere.

  A palette becomes its colours; a grey file becomes three equal channels where
  three are asked for, a colour file its luma 0.299 R + 0.587 G + 0.114 B where
  one is. The Exif orientation is followed; colour profiles are not.

  Args:
    path: of the file.
    channels: 1 or 3.
    formats: that it may have, by content: `PNG`, `JPEG`.

  Returns:
    uint8 [h, w, channels], 0 .. 255.

  Raises:
    InputError: the file is missing, empty, damaged, of another format, of 16 bits
      a channel, CMYK, animated, transparent in places, or of more than 2^26
      pixels, which its header tells before anything is decoded.
  """
  kinds = " or ".join(formats)
  try:
    with open(path, "rb") as file:
      header = file.read(26)
  except OSError as error:
    raise InputError(
        f"{path!r} cannot be read: {error.strerror}. Give {kinds} files."
    ) from error
  if not header:
    raise InputError(f"{path!r} is empty. Save it again as {kinds}.")
  is_png = header[:8] == _PNG_SIGNATURE
  if "PNG" in formats and is_png:
    _check_png_header(path, header)
  elif not ("JPEG" in formats and header[:3] == b"\xff\xd8\xff"):
    raise InputError(f"{path!r} is not a {kinds} file. Convert it first.")
  try:
    with Image.open(path, formats=formats) as image:
      width, height = image.size
      if width * height > MOST_PIXELS:
        raise Image.DecompressionBombError
      # A JPEG file may have a preview or another view behind the image itself.
      frames = getattr(image, "n_frames", 1) if is_png else 1
      if frames > 1:
        raise InputError(f"{path!r} is animated: {frames} frames. Save one as PNG.")
      if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise InputError(
            f"{path!r} has the colours of {image.mode}; images are grey or RGB."
            " Convert it first."
        )
      image.load()
      opacity = 255
      if image.has_transparency_data:
        image = image.convert("RGBA")
        opacity = image.getchannel("A").getextrema()[0]
      image = ImageOps.exif_transpose(image)
      pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
  except InputError:
    raise
  except Image.DecompressionBombError as error:  # or Pillow's own limit
    raise InputError(
        f"{path!r} has more than the {MOST_PIXELS:,} pixels that are decoded at most."
        " Resize it first."
    ) from error
  except _UNREADABLE as error:
    raise InputError(
        f"{path!r} is damaged and cannot be read: {error}. Save it again as {kinds}."
    ) from error
  if opacity < 255:
    raise InputError(
        f"{path!r} is transparent in places, which no value stands for. Save it"
        " without an alpha channel."
    )
  return pixels.reshape(*pixels.shape[:2], channels)


def crop_and_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
  """The largest centred part of the shape H : W, resized by Pillow's box filter.

  Each value is the mean of the pixels whose centres its area covers, rounded to
  integers along the rows and again down the columns.

  Args:
    pixels: uint8 [h, w, C] of any size.
    height: H.
    width: W.

  Returns:
    uint8 [H, W, C]; the pixels themselves if they are of that size.
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


def _read_png(path: str, image_shape: tuple[int, int, int]) -> np.ndarray:
  """uint8 [H, W, C], 0 .. 255, of one file; see `read_images`."""
  pixels = decode(path, image_shape[2], ["PNG"])
  if pixels.shape[:2] != tuple(image_shape[:2]):
    found, wanted = pixels.shape, image_shape
    raise InputError(
        f"{path!r} is {found[0]} pixels high and {found[1]} wide; this model's"
        f" images are {wanted[0]} high and {wanted[1]} wide. Crop or resize it."
    )
  return pixels


def _check_png_header(path: str, header: bytes) -> None:
  """Raises InputError for a PNG file that is cut short or of 16 bits a channel.

  Pillow would give 16-bit RGB as 8 bits in silence.
  """
  if len(header) < 26 or header[12:16] != b"IHDR":
    raise InputError(
        f"{path!r} is damaged and cannot be read: it has no PNG header. Save it"
        " again as PNG."
    )
  if header[24] == 16:
    raise InputError(
        f"{path!r} has 16 bits a channel; this model needs 8. Save it as an"
        " 8-bit PNG."
    )
