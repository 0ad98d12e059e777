"""Other lossless codecs for the same images: PNG, WebP, JPEG XL and JBIG2.

Each codec runs at its slowest and best. JPEG XL needs `pip install pillow-jxl-plugin`.
JBIG2 is for two levels only. It needs the program `jbig2` of jbig2enc.

Shapes: N images, H height, W width, C channels (1 or 3).
"""

import importlib
import importlib.util
import io
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable

import numpy as np
from PIL import Image, features

from pixelrnn_jax.errors import InputError

_LARGEST_SIDE = 2**14 - 1  # of a WebP image


def available(levels: int) -> dict[str, Callable[[np.ndarray, int], bytes]]:
  """Return the codecs that are installed here, by name.

  Args:
    levels: the number of levels of the images.

  Returns:
    Functions from uint8 [h, w, C], values 0 to levels - 1, and `levels` to a file.
  """
  codecs = {"PNG": _png}
  if features.check("webp"):
    codecs["WebP"] = _webp
  if importlib.util.find_spec("pillow_jxl"):
    importlib.import_module("pillow_jxl")  # it registers the format with Pillow
    codecs["JPEG XL"] = _jpeg_xl
  if levels == 2 and shutil.which("jbig2"):
    codecs["JBIG2"] = _jbig2
  return codecs


def sheet(images: np.ndarray) -> np.ndarray:
  """Return all images as one, side by side in rows, in about a square.

  Args:
    images: [N, H, W, C].

  Returns:
    [h, w, C]. Zeros fill up the last row.

  Raises:
    InputError: the result would be larger than the codecs take.
  """
  number, height, width, channels = images.shape
  columns = max(1, round(math.sqrt(number * height / width)))
  rows = -(-number // columns)
  if max(rows * height, columns * width) > _LARGEST_SIDE:
    raise InputError(
        f"{number:,} images of {height}x{width} side by side are larger than the"
        f" {_LARGEST_SIDE:,} pixels that WebP takes. Compare fewer."
    )
  full = np.zeros((rows * columns, height, width, channels), images.dtype)
  full[:number] = images
  full = full.reshape(rows, columns, height, width, channels)
  return full.swapaxes(1, 2).reshape(rows * height, columns * width, channels)


def _image(pixels: np.ndarray, levels: int) -> Image.Image:
  """Return an image of the values; two levels are black and white, a bit each."""
  if pixels.shape[-1] == 3:
    return Image.fromarray(pixels)
  if levels == 2:
    return Image.fromarray(pixels[..., 0] > 0)
  return Image.fromarray(pixels[..., 0])


def _save(image: Image.Image, kind: str, **options) -> bytes:
  """Return a file of a format of Pillow's."""
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def _png(pixels: np.ndarray, levels: int) -> bytes:
  """Return a PNG file."""
  return _save(_image(pixels, levels), "PNG", optimize=True)


def _webp(pixels: np.ndarray, levels: int) -> bytes:
  """Return a WebP file."""
  image = _image(pixels, levels).convert("RGB")
  return _save(image, "WEBP", lossless=True, quality=100, method=6)


def _jpeg_xl(pixels: np.ndarray, levels: int) -> bytes:
  """Return a JPEG XL file."""
  image = _image(pixels, levels)
  image = image.convert("L") if image.mode == "1" else image
  return _save(image, "JXL", lossless=True, effort=9)


def _jbig2(pixels: np.ndarray, levels: int) -> bytes:
  """Return the shorter of two JBIG2 files, with and without coding repeated rows."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "image.png")
    _image(pixels, levels).save(path)
    results = [
        subprocess.run(
            ["jbig2", *options, path], check=True, capture_output=True, cwd=folder)
        for options in ([], ["-d"])]
  return min((result.stdout for result in results), key=len)
