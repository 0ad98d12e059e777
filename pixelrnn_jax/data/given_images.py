"""Images that a user names, to be completed, grown or looked at.

Whatever training takes is taken, by the same code: PNG and JPEG files of any size, by
name or pattern, folders of them, and `.npz` files; see `own_images.py`.
"""

import glob
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pixelrnn_jax import files, ops
from pixelrnn_jax.data import own_images
from pixelrnn_jax.data.image_files import crop_and_resize, decode
from pixelrnn_jax.errors import InputError


class GivenImages:
  """The images of files, folders and `.npz` files, which are read when asked for.

  Attributes:
    named: whether all of them are files that were named, one by one or by a pattern.
    paths: the file of each image; None for those of an `.npz`.
  """

  def __init__(
      self, names: Sequence[str], image_shape: tuple[int, int, int], levels: int,
      factors: tuple[int, ...] = (),
  ):
    """Find the images.

    Args:
      names: paths or patterns (`*`, `?`, `[...]`); a folder stands for all image
        files below it in the order of their names, an `.npz` for the images of its
        arrays, test images first.
      image_shape: the model's (H, W, C), which files are cropped and resized to.
      levels: the model's. A grey or colour value x of 0 .. 255 becomes
        floor(x levels / 256): x for 256 levels, x >= 128 for two. Values of an `.npz`
        are the model's.
      factors: of a multi-scale model whose smallest images are wanted: images are
        subsampled by all of them, unless they are of that size.

    Raises:
      InputError: a pattern that fits no file, no names, or a folder or `.npz` that
        cannot be used.
    """
    self._shape, self._levels, self._factors = tuple(image_shape), levels, factors
    whole = int(np.prod(factors))
    self._small = (
        image_shape[0] // whole, image_shape[1] // whole, image_shape[2])
    self._parts = []  # (how many, what yields the first so many)
    self.named, self.paths = True, []
    for path in _find(names):
      if os.path.isdir(path) or path.lower().endswith(".npz"):
        self.named = False
        self._parts.append(
            self._of_folder(path) if os.path.isdir(path) else self._of_npz(path))
      else:
        self.paths.append(path)
        self._parts.append((1, lambda most, path=path: iter([self._decode(path)])))

  def __len__(self) -> int:
    return sum(number for number, _ in self._parts)

  def read(self, number: int) -> np.ndarray:
    """Return the first images, uint8 [number, H, W, C], values 0 .. levels - 1.

    Raises:
      InputError: a file that `decode` refuses, or values that are not the model's.
    """
    images = []
    for there, read in self._parts:
      if wanted := min(there, number - len(images)):
        images += read(wanted)
    return np.stack(images)

  def _of_folder(self, path: str) -> tuple[int, Callable[[int], Iterator[np.ndarray]]]:
    files = [os.path.join(path, name) for name in own_images.folder_images(path)]
    if not files:
      raise InputError(
          f"{path!r} holds no images: no file in it or below it ends in"
          f" {', '.join(own_images.SUFFIXES)}.")
    self.paths += files
    return len(files), lambda most: map(self._decode, files[:most])

  def _of_npz(self, path: str) -> tuple[int, Callable[[int], Iterator[np.ndarray]]]:
    try:
      reader = own_images.open_reader(path, self._small)
    except InputError:
      if self._small == self._shape:
        raise
      reader = own_images.open_reader(path, self._shape)

    def read(most):
      images = np.stack(list(reader.read(most, reader.arrays[::-1])))
      return iter(self._subsample(
          own_images.to_levels(images, self._levels, path, int(images.max()))))

    self.paths += [None] * reader.number
    return reader.number, read

  def _decode(self, path: str) -> np.ndarray:
    """Return the image of a file."""
    height, width, channels = self._shape
    pixels = decode(path, channels).pixels
    if pixels.shape != self._small:
      pixels = crop_and_resize(pixels, height, width)
    return self._subsample(own_images.quantise(pixels, self._levels)[None])[0]

  def _subsample(self, images: np.ndarray) -> np.ndarray:
    """Return images of the wanted size, [N, H, W, C]."""
    if images.shape[1:] == self._small:
      return images
    return ops.pyramid(images, self._factors)[0]


def _find(names: Sequence[str]) -> list[str]:
  """Return the paths that names and patterns stand for.

  Raises:
    InputError: a pattern that fits no file, or there are none.
  """
  found = []
  for name in names:
    pattern = files.expand(name.removeprefix("folder:"))
    if os.path.exists(pattern) or not glob.has_magic(pattern):
      found.append(pattern)
    elif matches := sorted(glob.glob(pattern)):
      found += matches
    else:
      raise InputError(
          f"No file fits the pattern {name!r}. Give PNG or JPEG files, a folder or an"
          " .npz.")
  if not found:
    raise InputError("No images: give at least one PNG or JPEG file, folder or .npz.")
  return found
