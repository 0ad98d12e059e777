"""PNG grids of images."""

import math
import os

import numpy as np
from PIL import Image

from pixelrnn_jax.errors import InputError

BACKGROUND = 128  # grey, so that black and white images both stand out


def save_grid(
    images: np.ndarray,
    path: str,
    levels: int,
    columns: int | None = None,
    scale: int | None = None,
) -> None:
  """Writes images as one PNG, in rows from left to right.

  Args:
    images: [N, H, W, C] integers, values 0 .. levels - 1, C = 1 or 3.
    path: of the PNG; it is complete or not there.
    levels: 0 is drawn as 0 and levels - 1 as 255.
    columns: images in a row; by default the grid is about square.
    scale: a value becomes scale x scale pixels; by default what makes the grid
      some 512 pixels wide.

  Raises:
    InputError: no images, another shape, values out of range, or columns or
      scale below 1.
  """
  images = np.asarray(images)
  if images.ndim != 4 or not images.size or images.shape[-1] not in (1, 3):
    raise InputError(
        f"Images of shape {images.shape}: a grid takes [N, H, W, C] with N of at"
        " least 1 and 1 or 3 channels."
    )
  if images.min() < 0 or images.max() >= levels:
    raise InputError(
        f"Images with values from {images.min()} to {images.max()}: with"
        f" levels={levels} they must be 0 to {levels - 1}."
    )
  for name, value in (("columns", columns), ("scale", scale)):
    if value is not None and value < 1:
      raise InputError(f"{name}={value}: must be at least 1.")
  number, height, width, channels = images.shape
  columns = columns or math.ceil(math.sqrt(number))
  rows = math.ceil(number / columns)
  scale = scale or max(1, 512 // (columns * width))
  margin = max(1, scale * width // 16)

  pixels = np.round(images * (255.0 / (levels - 1))).astype(np.uint8)
  pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
  height, width = height * scale, width * scale
  grid = np.full(
      (rows * (height + margin) + margin, columns * (width + margin) + margin,
       channels),
      BACKGROUND, np.uint8,
  )
  for i, image in enumerate(pixels):
    row, column = divmod(i, columns)
    top = margin + row * (height + margin)
    left = margin + column * (width + margin)
    grid[top:top + height, left:left + width] = image
  temporary = f"{path}.tmp"
  Image.fromarray(grid[..., 0] if channels == 1 else grid).save(temporary, "PNG")
  os.replace(temporary, path)
