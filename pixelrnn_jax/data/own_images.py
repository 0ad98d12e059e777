"""The user's own images: a folder of PNG and JPEG files, or an `.npz` file.

- `image_folder.py` and `npz_file.py`: the two forms, and their readers.
- `own_parts.py`: the parts train, validation and test.
- `image_files.py`: from a file to pixels.
- `pixel_cache.py`: the decoded pixels of both, kept for later starts.
"""

import dataclasses
import os
import re
from typing import Any

from pixelrnn_jax import files
from pixelrnn_jax.data.image_folder import ImageFolder
from pixelrnn_jax.data.npz_file import NpzFile
from pixelrnn_jax.data.own_parts import source_name
from pixelrnn_jax.data.pixel_cache import Pixels, cached_pixels, default_cache
from pixelrnn_jax.errors import InputError


class OwnImages:
  """A folder or an `.npz`, as `sources.load_source` expects a data set.

  Attributes:
    title: the path, the number of images and the digest of all pixels.
    split_names: the names of the parts, 'train', 'test' and perhaps 'validation', by
      themselves.
    sizes: number of images of each part.
    largest: the largest value.
    as_stored: whether values are the model's already (`.npz`).
    in_colour: number of files in colour; None for an `.npz`.
    notes: sentences about files that exist there and are not read, and about colours.
  """

  def __init__(
      self, path: str, cache: str, image_shape: tuple[int, int, int],
      writes: bool = True,
  ):
    """Find the images and decode them, unless the cache has them.

    Args:
      path: the path of the folder or the file.
      cache: a directory for decoded pixels; "" is `~/.cache/pixelrnn_jax`.
      image_shape: the (H, W, C) that the model needs.
      writes: whether `cache` may be written to. Otherwise it is only read, and new
        pixels go to `~/.cache/pixelrnn_jax`.

    Raises:
      InputError: there is no such folder or file, it holds no images, some of
        them cannot be used, or the cache cannot be written.
    """
    reader = open_reader(path, image_shape)
    places = [files.expand(cache) if cache else default_cache()]
    if not writes:
      places.append(default_cache())
    self._pixels, about = cached_pixels(reader, places)
    self.sizes = about["sizes"]
    self.split_names = {part: part for part in self.sizes}
    self.largest, self.in_colour = about["largest"], about["in_colour"]
    self.as_stored = isinstance(reader, NpzFile)
    self.notes = [*reader.notes, *_doubts(about, reader.shape)]
    number = sum(self.sizes.values())
    self.title = (
        f"{reader.kind} {path} ({number:,} images{reader.treatment}, SHA-256"
        f" {about['digest'][:12]})")

  def open(self, part: str, start: int, stop: int) -> Pixels:
    """Return images `start` to `stop` of `part`, each uint8 [H, W, C] when read."""
    before = 0
    for name, size in self.sizes.items():
      if name == part:
        break
      before += size
    return dataclasses.replace(
        self._pixels, start=before + start, number=stop - start)


def open_reader(path: str, image_shape: tuple[int, int, int]) -> ImageFolder | NpzFile:
  """Return the reader of a folder or an `.npz`, whose form has been checked.

  Args:
    path: the path of the folder or the file.
    image_shape: the (H, W, C) that the model needs.

  Raises:
    InputError: there is no such folder or file, or it is not of the form described.
  """
  real = files.expand(path)
  if os.path.isdir(real):
    return ImageFolder(real, image_shape)
  if real.lower().endswith(".npz"):
    return NpzFile(real, image_shape)
  what = "is a file" if os.path.exists(real) else "does not exist"
  raise InputError(
      f"{source_name(path)} {what}. Give a folder of PNG or JPEG files,"
      " or a file that ends in .npz; if it has moved,"
      " --config.data.source=folder:PATH says where it is now."
  )


def without_path(description: str) -> str:
  """Return a description without the path of the user's images, which may move.

  The number of the images and the digest of their pixels stay. Other descriptions are
  returned as they are.
  """
  return re.sub(r"^(folder|npz) .* (\([\d,]+ images)", r"\1 \2", description)


def same_images(description: str, other: str) -> bool:
  """Return whether two descriptions can be of the same images, in any parts.

  They cannot if both name a digest and the digests differ.
  """
  found = [
      re.search(r"\([\d,]+ images[^()]*SHA-256 ([0-9a-f]+)\)", text)
      for text in (description, other)]
  digests = {match[1] for match in found if match}
  return not all(found) or len(digests) == 1


def _doubts(about: dict[str, Any], shape: tuple[int, int, int]) -> list[str]:
  """Return notes about colour that the user may not have meant."""
  doubts, number = [], sum(about["sizes"].values())
  if about["in_colour"] and shape[2] == 1:
    doubts.append(
        f"{about['in_colour']:,} of {number:,} images are in colour and become grey,"
        " as the model has 1 channel")
  if about["in_colour"] == 0 and shape[2] == 3:
    doubts.append(
        "none of the images is in colour: a model of 1 channel,"
        f" model.image_shape=({shape[0]}, {shape[1]}, 1), would do")
  return doubts
