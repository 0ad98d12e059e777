"""The cache of the user's own images, decoded.

Images are decoded once, to a file of all pixels. Later starts read that file while the
names, sizes and times of the images' files are the same.

An entry of the cache is a directory `images_HASH` with the files `pixels` and
`about.json`, which is written last. The lock is `pixelrnn_jax.lock`. Nothing of another
name is ever changed or removed.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from pixelrnn_jax import files
from pixelrnn_jax.data.image_folder import ImageFolder
from pixelrnn_jax.data.npz_file import NpzFile
from pixelrnn_jax.data.own_parts import source_name
from pixelrnn_jax.errors import InputError

_RULES = 1  # increased when the same files give other pixels or parts

_CHECKED = 2**30  # largest number of bytes whose digest each start checks


@dataclasses.dataclass
class Pixels:
  """Images by index, from a file of nothing but pixels.

  Attributes:
    path: the path of the file.
    shape: (H, W, C).
    start: the first image's index in the file.
    number: the number of images.
  """

  path: str
  shape: tuple[int, int, int]
  start: int
  number: int

  def __len__(self) -> int:
    """Return the number of images."""
    return self.number

  def __getitem__(self, index: int) -> np.ndarray:
    """Return an image, uint8 [H, W, C]."""
    if not hasattr(self, "_map"):
      self._map = np.memmap(self.path, np.uint8, "r").reshape(-1, *self.shape)
    return np.array(self._map[self.start + index])

  def __getstate__(self) -> dict:
    """Return the fields without the map, which would be pickled with all its pixels."""
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def cached_pixels(
    reader: ImageFolder | NpzFile, places: Sequence[str]
) -> tuple[Pixels, dict[str, Any]]:
  """Return the pixels of all parts, one after the other, and the record of them.

  Args:
    reader: the reader of the images.
    places: caches that are looked into. The last one is written to.

  Returns:
    The pixels, and the content of `about.json`: `sizes` of the parts, the `largest`
    value, the `digest` of all pixels, and the number of images `in_colour`, if known.

  Raises:
    InputError: the images cannot be used, or the cache cannot be written.
  """
  sizes = {part: len(names) for part, names in reader.parts.items()}
  key = json.dumps([_RULES, reader.kind, os.path.abspath(reader.path), reader.shape,
                    sizes, reader.facts()])
  name = f"images_{hashlib.sha256(key.encode()).hexdigest()[:24]}"
  wanted = _Entry(reader, sizes)
  for place in places:
    if about := wanted.find(os.path.join(place, name)):
      return wanted.pixels(os.path.join(place, name)), about
  cache = places[-1]
  directory = os.path.join(cache, name)
  try:
    os.makedirs(cache, exist_ok=True)
    with files.hold_lock(os.path.join(cache, "pixelrnn_jax.lock"), wait=True):
      if not (about := wanted.find(directory)):
        _tidy(cache)
        about = wanted.make(directory)
    return wanted.pixels(directory), about
  except OSError as error:
    raise InputError(
        f"The decoded images of {reader.path} ({wanted.size:,} bytes) cannot be kept in"
        f" {cache}: {error.strerror}. Give another directory, with"
        " --config.data.data_dir=DIR."
    ) from error


def default_cache() -> str:
  """Return the path of the user's cache, which need not exist."""
  base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.path.join(base, "pixelrnn_jax")


class _Entry:
  """An entry of the cache, which need not exist.

  Attributes:
    size: bytes of all pixels.
  """

  def __init__(self, reader: ImageFolder | NpzFile, sizes: dict[str, int]):
    """Describe the entry.

    Args:
      reader: the reader of the images.
      sizes: images of each part.
    """
    self._reader, self._sizes = reader, sizes
    self._number = sum(sizes.values())
    self._image_bytes = int(np.prod(reader.shape))
    self.size = self._number * self._image_bytes

  def pixels(self, directory: str) -> Pixels:
    """Return the images of an entry that exists."""
    return Pixels(
        os.path.join(directory, "pixels"), self._reader.shape, 0, self._number)

  def find(self, directory: str) -> dict[str, Any] | None:
    """Return the record of an entry; None if it does not exist or is damaged.

    The digest is checked where the pixels are few enough to be read into memory anyway.
    """
    try:
      with files.open_file(os.path.join(directory, "about.json")) as file:
        about = json.loads(file.read(2**16))
      with files.open_file(os.path.join(directory, "pixels")) as file:
        good = (
            set(about) == {"sizes", "largest", "digest", "in_colour"}
            and about["sizes"] == self._sizes and type(about["largest"]) is int
            and type(about["in_colour"]) in (int, type(None))
            and os.fstat(file.fileno()).st_size == self.size
            and (self.size > _CHECKED or self._digest(file) == about["digest"]))
    except (OSError, ValueError, TypeError, RecursionError):
      return None
    return about if good else None

  def make(self, directory: str) -> dict[str, Any]:
    """Make the entry: decode the images into a directory.

    Returns:
      The record of the entry.

    Raises:
      InputError: the images cannot be used, or there is no room.
      OSError: the directory cannot be written.
    """
    free = shutil.disk_usage(os.path.dirname(directory)).free
    if free < self.size:
      raise InputError(
          f"The decoded images of {self._reader.path} take {self.size:,} bytes, more"
          f" than is free in {os.path.dirname(directory)}. Give another directory, with"
          " --config.data.data_dir=DIR."
      )
    _remove(directory)  # a damaged one
    os.mkdir(directory)
    try:
      about = self._write(os.path.join(directory, "pixels"))
      with files.create_file(os.path.join(directory, "about.json")) as file:
        file.write(json.dumps(about).encode())
        file.flush()
        os.fsync(file.fileno())
      return about
    except BaseException:
      _remove(directory)
      raise

  def _write(self, path: str) -> dict[str, Any]:
    """Write the pixels of all images, and return the record of them."""
    next_index = written = largest = 0
    with files.create_file(path) as file:

      def write(index: int, image: np.ndarray) -> None:
        nonlocal next_index, largest, written
        largest = max(largest, int(image.max()))
        if index != next_index:
          file.seek(index * self._image_bytes)
        file.write(image.tobytes())
        next_index, written = index + 1, written + 1

      in_colour = self._reader.fill(write)
      file.flush()
      os.fsync(file.fileno())
    if written != self._number:
      raise InputError(
          f"{source_name(self._reader.path)}: {written:,} images were read instead of"
          f" {self._number:,}: it has changed meanwhile. Start again.")
    with files.open_file(path) as file:
      digest = self._digest(file)
    return {"sizes": self._sizes, "largest": largest, "digest": digest,
            "in_colour": in_colour}

  def _digest(self, file: Any) -> str:
    """Return the SHA-256 of the shape, of the parts if given, and of all pixels."""
    digest = hashlib.sha256(f"{self._reader.shape}".encode())
    if self._reader.given:
      digest.update(f"{self._sizes}".encode())
    return hashlib.file_digest(file, lambda: digest).hexdigest()


def _tidy(cache: str) -> None:
  """Remove entries that a killed process left incomplete, while the lock is held."""
  for entry in os.scandir(cache):
    if re.fullmatch(r"images_[0-9a-f]{24}", entry.name) and not os.path.lexists(
        os.path.join(entry.path, "about.json")):
      _remove(entry.path)


def _remove(directory: str) -> None:
  """Remove an entry's own files, and the directory if it holds nothing else."""
  if os.path.islink(directory):
    return
  with contextlib.suppress(OSError):  # an entry that is not ours is left alone
    for name in ("about.json", "pixels"):
      with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, name))
    os.rmdir(directory)
