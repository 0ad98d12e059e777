"""Images that a user names, to be completed, grown or looked at.

They may be whatever training takes, and are read by the same code: PNG and JPEG files
of any size, by name or pattern, folders of such files, and `.npz` files. See
`own_images.py`.
"""

import glob
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pixelrnn_jax import arguments, files, ops
from pixelrnn_jax.data.image_files import SUFFIXES, crop_and_resize, decode
from pixelrnn_jax.data.image_folder import folder_images
from pixelrnn_jax.data.levels import check_not_black, quantise, to_levels
from pixelrnn_jax.data.npz_file import NpzFile
from pixelrnn_jax.errors import InputError


class GivenImages:
  """The images of files, folders and `.npz` files. `read` reads them.

  Attributes:
    named: whether all of them are files that were named, one by one or by a pattern.
    paths: the file of each image; None for an image of an `.npz`.
  """

  def __init__(
      self, names: Sequence[str], image_shape: tuple[int, int, int], levels: int,
      factors: tuple[int, ...] = (),
  ):
    """Find the images.

    Args:
      names: paths or patterns (`*`, `?`, `[...]`). A folder stands for all image
        files below it in the order of their names. An `.npz` stands for the images of
        its arrays, test images first.
      image_shape: the model's (H, W, C). Files are cropped and resized to it.
      levels: the model's. A grey or colour value x of 0 to 255 becomes
        floor(x levels / 256): x for 256 levels, x >= 128 for two. Values of an `.npz`
        are the model's already.
      factors: the factors of a multi-scale model, if its smallest images are wanted.
        Images are subsampled by all factors, unless they have the smallest size.

    Raises:
      InputError: a pattern fits no file, there are no names, or a folder or `.npz`
        cannot be used.
    """
    self._shape, self._levels, self._factors = image_shape, levels, factors
    whole = int(np.prod(factors))
    self._small = (
        image_shape[0] // whole, image_shape[1] // whole, image_shape[2])
    # Pairs of a number of images, and a function that yields the first `most` of them.
    self._parts = []
    self.named, self.paths = True, []
    for path in _find(names):
      if os.path.isdir(path) or path.lower().endswith(".npz"):
        self.named = False
        self._parts.append(
            self._add_folder(path) if os.path.isdir(path) else self._add_npz(path))
      else:
        self.paths.append(path)
        self._parts.append((1, lambda most, path=path: iter([self._decode(path)])))

  def __len__(self) -> int:
    """Return the number of images."""
    return sum(number for number, _ in self._parts)

  def read(self, number: int) -> np.ndarray:
    """Return the first images, uint8 [number, H, W, C], values 0 to levels - 1.

    Raises:
      InputError: `decode` refuses a file, or values are not the model's.
    """
    images = []
    for there, read in self._parts:
      if wanted := min(there, number - len(images)):
        images += read(wanted)
    return np.stack(images)

  def _add_folder(self, path: str) -> tuple[int, Callable[[int], Iterator[np.ndarray]]]:
    """Add the paths of a folder's files, and return the folder as one of the parts."""
    paths = [os.path.join(path, name) for name in folder_images(path)]
    if not paths:
      raise InputError(
          f"{path!r} holds no images: no file in it or below it ends in"
          f" {', '.join(SUFFIXES)}.")
    self.paths += paths
    return len(paths), lambda most: map(self._decode, paths[:most])

  def _add_npz(self, path: str) -> tuple[int, Callable[[int], Iterator[np.ndarray]]]:
    """Add a None for each image of an `.npz`, and return it as one of the parts."""
    try:
      reader = NpzFile(path, self._small)
    except InputError:
      if self._small == self._shape:
        raise
      reader = NpzFile(path, self._shape)

    def read(most):
      images = np.stack(list(reader.read(most, reader.arrays[::-1])))
      largest = int(images.max())
      if most > 1:  # one black image may be good
        check_not_black(largest, self._levels, repr(path))
      return iter(self._subsample(to_levels(images, self._levels, path, largest)))

    self.paths += [None] * reader.number
    return reader.number, read

  def _decode(self, path: str) -> np.ndarray:
    """Return the image of a file."""
    height, width, channels = self._shape
    image = decode(path, channels)
    if image.in_colour and self._levels == 2:  # training refuses it, too
      raise InputError(
          f"{path!r} is in colour, but the model is of black and white values"
          " (model.levels=2). To use it all the same, save it as a grey image.")
    pixels = image.pixels
    if pixels.shape != self._small:
      pixels = crop_and_resize(pixels, height, width)
    return self._subsample(quantise(pixels, self._levels)[None])[0]

  def _subsample(self, images: np.ndarray) -> np.ndarray:
    """Return images of the wanted size, [N, H, W, C]."""
    if images.shape[1:] == self._small:
      return images
    return ops.pyramid(images, self._factors)[0]


def _find(names: Sequence[str]) -> list[str]:
  """Return the paths that names and patterns stand for.

  Raises:
    InputError: a pattern fits no file, or there are no names.
  """
  found = []
  for name in [names] if isinstance(names, (str, os.PathLike)) else names:
    pattern = files.expand(arguments.path("images", name).removeprefix("folder:"))
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
