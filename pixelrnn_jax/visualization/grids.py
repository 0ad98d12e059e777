"""Pictures of images: grids, completions, and large images grown from small ones.

Shapes: N images, H height, W width, C channels (1 or 3), K images made of one.
"""

import math

import numpy as np

from pixelrnn_jax import arguments
from pixelrnn_jax.data.image_files import write_png
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.visualization.captions import Caption, add_caption

BACKGROUND = 128  # grey, so that black and white images both stand out
HIDDEN = ((60, 100, 180), (110, 150, 215))  # blue stripes, which no image has

# The longer sides of a picture and of an image in it, if `scale` is not given.
_PICTURE_PIXELS, _IMAGE_PIXELS = 1280, 192


def save_grid(
    images: np.ndarray,
    path: str,
    levels: int,
    columns: int | None = None,
    scale: int | None = None,
    caption: Caption | None = None,
) -> None:
  """Write images as one PNG, in rows from left to right.

  Args:
    images: integers [N, H, W, C], values 0 to levels - 1, C = 1 or 3.
    path: the path of the PNG. It is written as a whole or not at all.
    levels: 0 is drawn as 0 and levels - 1 as 255.
    columns: images in a row. By default the grid is about square.
    scale: a value becomes scale x scale pixels. By default an image has at most 192
      pixels a side and the picture about 1280.
    caption: below the picture, and in the PNG's metadata.

  Raises:
    InputError: no images, another shape, values out of range, or columns or scale
      below 1.
  """
  images = np.asarray(images)
  _check_images(images, levels)
  _check_positive("columns", columns)
  _check_positive("scale", scale)
  number, height, width, _ = images.shape
  columns = columns or math.ceil(math.sqrt(number))
  rows = math.ceil(number / columns)
  scale = scale or _default_scale(images, rows, columns)
  margin = max(1, scale * width // 16)
  _write(
      _grid(_enlarge(images, levels, scale), columns, margin, margin), path, caption)


def save_completions(
    images: np.ndarray,
    known: np.ndarray,
    completions: np.ndarray,
    path: str,
    levels: int,
    scale: int | None = None,
    caption: Caption | None = None,
) -> None:
  """Write images with their hidden part, completions and originals, as one RGB PNG.

  Each image has a strip, as in the paper's first figure: the image with blue stripes
  over its hidden pixels, the K completions, the original. The strips are below each
  other. Many strips are in several columns.

  Args:
    images: the originals, integers [N, H, W, C], values 0 to levels - 1.
    known: bool [H, W] or [N, H, W], false where a pixel was hidden.
    completions: [N, K, H, W, C], K of each image.
    path: the path of the PNG. It is written as a whole or not at all.
    levels: 0 is drawn as 0 and levels - 1 as 255.
    scale: a value becomes scale x scale pixels; see `save_grid`.
    caption: below the picture, and in the PNG's metadata.

  Raises:
    InputError: shapes that do not fit each other, values out of range, or a scale below
      1.
  """
  images, known = np.asarray(images), np.asarray(known)
  completions = np.asarray(completions)
  _check_images(images, levels)
  _check_positive("scale", scale)
  number, height, width, _ = images.shape
  if known.dtype != bool or known.shape not in (images.shape[1:3], images.shape[:3]):
    raise InputError(
        f"A mask of shape {known.shape} and dtype {known.dtype}: known must be"
        f" bool, [H, W] = {[height, width]} or [N, H, W] ="
        f" {[number, height, width]}."
    )
  _check_several("Completions", completions, images.shape, levels)
  layout = _Strips(completions, completions.shape[1] + 2, levels, scale)
  original = layout.enlarge(images)
  shown = np.broadcast_to(known, images.shape[:3])
  shown = shown.repeat(layout.scale, axis=1).repeat(layout.scale, axis=2)
  y, x = np.indices(original.shape[1:3])
  stripes = np.array(HIDDEN, np.uint8)[(y + x) // (layout.gap + 1) % 2]
  occluded = np.where(shown[..., None], original, stripes)
  _write(layout.arrange(occluded, completions, original), path, caption)


def save_grown(
    small: np.ndarray,
    grown: np.ndarray,
    path: str,
    levels: int,
    originals: np.ndarray | None = None,
    scale: int | None = None,
    caption: Caption | None = None,
) -> None:
  """Write small images, large ones made of them, and originals, as one RGB PNG.

  Each small image has a strip: the image, the K large ones, the original if there is
  one. The small image is enlarged to the size of the large ones. The strips are
  arranged as in `save_completions`.

  Args:
    small: integers [N, h, w, C], values 0 to levels - 1.
    grown: [N, K, H, W, C], K of each image, with H = f h and W = f w, f whole.
    path: the path of the PNG. It is written as a whole or not at all.
    levels: 0 is drawn as 0 and levels - 1 as 255.
    originals: [N, H, W, C], the images of which the small ones were made.
    scale: a value of a large image becomes scale x scale pixels; see `save_grid`.
    caption: below the picture, and in the PNG's metadata.

  Raises:
    InputError: shapes that do not fit each other, values out of range, or a scale below
      1.
  """
  small, grown = np.asarray(small), np.asarray(grown)
  _check_images(small, levels)
  _check_positive("scale", scale)
  number, height, width, channels = small.shape
  factor = grown.shape[2] // height if grown.ndim == 5 else 0
  wanted = (number, factor * height, factor * width, channels)
  _check_several("Large images", grown, wanted, levels)
  if originals is not None:
    originals = np.asarray(originals)
    _check_several("Originals", originals[:, None], wanted, levels)
  layout = _Strips(grown, grown.shape[1] + 1 + (originals is not None), levels, scale)
  enlarged = layout.enlarge(small.repeat(factor, axis=1).repeat(factor, axis=2))
  original = None if originals is None else layout.enlarge(originals)
  _write(layout.arrange(enlarged, grown, original), path, caption)


class _Strips:
  """Strips of an image, K others made of it, and perhaps another one.

  The strips are below each other. Many strips are in several columns.

  Attributes:
    columns: strips beside each other.
    scale: a value becomes scale x scale pixels.
    gap: pixels between images.
    levels: see `save_completions`.
  """

  def __init__(
      self, several: np.ndarray, in_strip: int, levels: int, scale: int | None
  ):
    """Choose the layout.

    Args:
      several: the images made of others, [N, K, H, W, C].
      in_strip: images in a strip.
      levels: see `save_completions`.
      scale: see `save_completions`.
    """
    number, _, height, width, _ = several.shape
    self.columns = max(1, round(math.sqrt(number * height / (in_strip * width))))
    rows = math.ceil(number / self.columns)
    self.scale = scale or _default_scale(
        several[:, 0], rows, self.columns * in_strip)
    self.gap = max(1, self.scale * width // 16)
    self.levels = levels

  def enlarge(self, images: np.ndarray) -> np.ndarray:
    """Return the RGB pixels of images, uint8 [N, scale H, scale W, 3]."""
    pixels = _enlarge(images, self.levels, self.scale)
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))

  def arrange(
      self, first: np.ndarray, several: np.ndarray, last: np.ndarray | None
  ) -> np.ndarray:
    """Return the picture, uint8 [h, w, 3].

    Args:
      first: pixels of the first image of each strip, from `enlarge`.
      several: the images made of others, [N, K, H, W, C].
      last: pixels of the last image of each strip, if there is one.
    """
    # The parts of a strip are further apart than the images of its middle part.
    narrow, wide = (
        np.full((*first.shape[:2], pixels, 3), BACKGROUND, np.uint8)
        for pixels in (self.gap, 3 * self.gap)
    )
    parts = [first, wide]
    for k in range(several.shape[1]):
      parts += [self.enlarge(several[:, k]), narrow]
    parts.pop()
    if last is not None:
      parts += [wide, last]
    strips = np.concatenate(parts, axis=2)
    between = self.gap if self.columns == 1 else 6 * self.gap
    return _grid(strips, self.columns, self.gap, between)


def _write(pixels: np.ndarray, path: str, caption: Caption | None) -> None:
  """Write a picture, uint8 [h, w, C], with its caption."""
  if caption is None:
    write_png(pixels, path)
  else:
    write_png(add_caption(pixels, caption), path, caption.metadata())


def _check_images(images: np.ndarray, levels: int) -> None:
  """Raise InputError unless `images` are [N, H, W, C] of values below `levels`."""
  if images.ndim != 4 or not images.size or images.shape[-1] not in (1, 3):
    raise InputError(
        f"Images of shape {images.shape}: a picture takes [N, H, W, C] with N of at"
        " least 1 and 1 or 3 channels."
    )
  if images.min() < 0 or images.max() >= levels:
    raise InputError(
        f"Images with values from {images.min()} to {images.max()}: with"
        f" levels={levels} they must be 0 to {levels - 1}."
    )


def _check_several(
    what: str, several: np.ndarray, shape: tuple[int, ...], levels: int
) -> None:
  """Raise InputError unless images are [N, K, H, W, C], [N, H, W, C] = `shape`."""
  if (
      several.ndim != 5 or several.shape[1] < 1
      or (len(several), *several.shape[2:]) != tuple(shape)
  ):
    number, *rest = shape
    raise InputError(
        f"{what} of shape {several.shape}: they must be [N, K, H, W, C] ="
        f" [{number}, K, {', '.join(map(str, rest))}], K of at least 1."
    )
  _check_images(several.reshape(-1, *several.shape[2:]), levels)


def _check_positive(name: str, value: int | None) -> None:
  """Raise InputError for a number below 1; None passes."""
  if value is not None:
    arguments.whole(name, value)


def _default_scale(images: np.ndarray, rows: int, columns: int) -> int:
  """Return the pixels of a value, in a picture of rows and columns of images."""
  _, height, width, _ = images.shape
  return max(1, min(
      _IMAGE_PIXELS // max(height, width),
      _PICTURE_PIXELS // max(rows * height, columns * width)))


def _enlarge(images: np.ndarray, levels: int, scale: int) -> np.ndarray:
  """Return the pixels of values [N, H, W, C], uint8 [N, scale H, scale W, C]."""
  pixels = np.round(images * (255.0 / (levels - 1))).astype(np.uint8)
  return pixels.repeat(scale, axis=1).repeat(scale, axis=2)


def _grid(tiles: np.ndarray, columns: int, margin: int, gap: int) -> np.ndarray:
  """Return tiles in rows from left to right on the background.

  Args:
    tiles: uint8 [N, h, w, C].
    columns: tiles in a row.
    margin: pixels around the grid and between rows.
    gap: pixels between columns.
  """
  number, height, width, channels = tiles.shape
  rows = math.ceil(number / columns)
  grid = np.full(
      (rows * (height + margin) + margin,
       columns * (width + gap) - gap + 2 * margin, channels),
      BACKGROUND, np.uint8)
  for i, tile in enumerate(tiles):
    row, column = divmod(i, columns)
    top, left = margin + row * (height + margin), margin + column * (width + gap)
    grid[top : top + height, left : left + width] = tile
  return grid
