"""An `.npz` file, as a reader of the user's own images.

It holds the arrays `train`, `test` and, if it is there, `validation`. Or it holds one
array `images`, which is divided as a folder is, with the index of an image as its name;
see `own_parts.divide`. The arrays are uint8 [N, H, W, C], or [N, H, W] for grey images,
of the model's shape. Their values are the model's, 0 to levels - 1.

The file may be somebody else's. It holds numbers and nothing that runs: `allow_pickle`
is never used. It is read in pieces, and the claims of its headers are held against the
bytes of the file before anything is allocated.
"""

import contextlib
import functools
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import numpy as np

from pixelrnn_jax import files
from pixelrnn_jax.configs.schema import SPLITS
from pixelrnn_jax.data.own_parts import divide, near_part, some, source_name
from pixelrnn_jax.errors import InputError, plain_text

# Deflate can shrink zeros a thousand times, but images hardly ten times.
_MOST_SHRUNK, _SMALL = 200, 2**22
# To compare the names of millions takes hours.
_MOST_ENTRIES, _LONGEST_NAME = 1000, 200


class NpzFile:
  """The arrays of an `.npz` file.

  Attributes:
    path: the path of the file.
    shape: (H, W, C) of the images.
    treatment: "", as descriptions need none.
    arrays: names of the arrays that are read, in order.
    number: the number of images in all of them.
    given: whether the user has divided them.
    notes: see OwnImages.
  """

  kind = "npz"
  treatment = ""

  def __init__(self, path: str, shape: tuple[int, int, int]):
    """Check the file and its arrays.

    Args:
      path: the path of the file.
      shape: (H, W, C), of the model.

    Raises:
      InputError: the file is missing or damaged, or has not the form above.
    """
    self.path, self.shape = path, shape
    with self._archive() as (archive, size):
      self.arrays = self._choose(archive)
      self._counts = {
          name: self._check(archive, name, size) for name in self.arrays}
    self.number = sum(self._counts.values())
    self.given = self.arrays != ["images"]

  @functools.cached_property
  def parts(self) -> dict[str, Sequence[int] | np.ndarray]:
    """The places of the images of each part in the file, in order."""
    if not self.given:
      return divide(range(self.number), self.path)
    ends = np.cumsum(list(self._counts.values())).tolist()
    return {
        name: range(end - count, end)
        for (name, count), end in zip(self._counts.items(), ends, strict=True)}

  def facts(self) -> list:
    """Return names, size and time, which change when the file does."""
    status = os.stat(self.path)
    return [self.arrays, status.st_size, status.st_mtime_ns]

  def fill(self, write: Callable[[int, np.ndarray], None]) -> None:
    """Read all images.

    Args:
      write: called with the number and the pixels, uint8 [H, W, C], of each image.

    Raises:
      InputError: the file is damaged.
    """
    order = np.concatenate([np.asarray(part) for part in self.parts.values()])
    places = np.argsort(order)
    for index, image in enumerate(self.read(len(order), self.arrays)):
      write(int(places[index]), image)

  def read(self, most: int, arrays: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield the first images of arrays, one after another, uint8 [H, W, C].

    Args:
      most: number of images.
      arrays: names of arrays, in the order in which they are read.

    Raises:
      InputError: the file is damaged.
    """
    size, left = int(np.prod(self.shape)), most
    with self._archive() as (archive, _):
      for name in arrays:
        with archive.open(f"{name}.npy") as file:
          count = _read_header(file)[0][0]
          taken = min(count, left)
          for _ in range(taken):
            content = file.read(size)
            if len(content) < size:
              raise ValueError(f"{name!r} claims {count} images and has fewer")
            yield np.frombuffer(content, np.uint8).reshape(self.shape)
          left -= taken
          if taken == count and file.read(1):  # zipfile checks the sum at the end
            raise ValueError(f"{name!r} claims {count} images and has more")

  @contextlib.contextmanager
  def _archive(self) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """Open the file and yield it with its size in bytes.

    Raises:
      InputError: anything in this context finds that the file is bad.
    """
    if not os.path.exists(self.path):
      raise InputError(
          f"{source_name(self.path)} does not exist. Give a file of np.savez; if it has"
          " moved, --config.data.source=folder:PATH says where it is now.")
    try:
      with files.open_file(self.path) as file, zipfile.ZipFile(file) as archive:
        yield archive, os.fstat(file.fileno()).st_size
    except InputError:
      raise
    except Exception as error:  # zipfile and the decompressors raise anything
      raise InputError(
          f"{source_name(self.path)} is damaged or no .npz:"
          f" {' '.join(plain_text(error).split())[:200]}. Save it again with np.savez."
      ) from error

  def _choose(self, archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the arrays that are read, in order."""
    names = archive.namelist()
    if len(names) > _MOST_ENTRIES or max(map(len, names), default=0) > _LONGEST_NAME:
      raise InputError(
          f"{source_name(self.path)} holds {len(names):,} entries; at most"
          f" {_MOST_ENTRIES:,} with names of at most {_LONGEST_NAME} letters are looked"
          " at. Save 'images', or 'train' and 'test', in a file of their own.")
    if doubled := {name for name in names if names.count(name) > 1}:
      raise ValueError(f"it holds {min(doubled)!r} more than once")
    there = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
    if "train" in there and "test" in there:
      chosen = [part for part in SPLITS if part in there]
    else:
      chosen = ["images"]
    left = [n for n in map(lambda n: n.removesuffix(".npy"), names) if n not in chosen]
    near = {
        name: part for name in left for part in map(near_part, name.split("/")) if part}
    wrong = next(iter(near), "")
    if "images" not in there and chosen == ["images"] or wrong:
      raise InputError(
          f"{source_name(self.path)} holds {some(there) or 'no arrays'}; it"
          " must hold 'images', or 'train' and 'test' (and perhaps 'validation'):"
          " np.savez(path, train=..., test=...)."
          + (f" {wrong!r} looks like the part {near[wrong]!r} and would not be"
             " read: rename it, or leave it out." if wrong else "")
      )
    self.notes = [f"other arrays are not read: {some(left)}"] if left else []
    return chosen

  def _check(self, archive: zipfile.ZipFile, name: str, size: int) -> int:
    """Return the number of images of an array, which is checked.

    Args:
      archive: the file.
      name: the name of the array.
      size: bytes of the whole file.

    Raises:
      InputError: the array is not of the form above.
      ValueError: the headers contradict the file.
    """
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError("it is neither stored nor deflated")
    if entry.header_offset + entry.compress_size > size:
      raise ValueError(
          f"{name!r} claims {entry.compress_size:,} of the file's {size:,} bytes")
    with archive.open(entry) as file:
      shape, fortran, dtype = _read_header(file)
      header = file.tell()
    what = f"{source_name(self.path)}: the array {name!r}"
    if dtype != np.uint8:
      raise InputError(
          f"{what} is of {_kind(dtype)}; it must be uint8.{_advice(dtype)}")
    wanted = self.shape if len(shape) != 3 else self.shape[:2]
    if shape[1:] != wanted or (len(shape) == 3 and self.shape[2] != 1):
      raise InputError(
          f"{what} has the shape {shape}, but model.image_shape is {self.shape}: it"
          f" must be (N, {', '.join(map(str, self.shape))}). Change one of them;"
          " arrays are not resized. Configs of colour images are those of CIFAR-10 and"
          " ImageNet, of binary grey ones those of MNIST."
      )
    if not shape[0]:
      raise InputError(f"{what} has no images.")
    if fortran:
      raise InputError(
          f"{what} is in Fortran order. Save np.ascontiguousarray(array).")
    number = int(shape[0])
    if entry.file_size != header + number * int(np.prod(self.shape)):
      raise ValueError(
          f"{name!r} claims {number} images but has {entry.file_size} bytes")
    if entry.file_size > max(_MOST_SHRUNK * entry.compress_size, _SMALL):
      raise InputError(
          f"{what} has {entry.file_size:,} bytes in {entry.compress_size:,}: no images"
          f" shrink by more than {_MOST_SHRUNK} times. Save it uncompressed, with"
          " np.savez, if they are good."
      )
    return number


def _kind(dtype: np.dtype) -> str:
  """Return the name of a dtype, for messages."""
  return "Python objects, which are not read" if dtype.hasobject else str(dtype)


def _advice(dtype: np.dtype) -> str:
  """Return a sentence on how values of another dtype become bytes."""
  if dtype.kind == "f":
    return (
        " Values from 0 to 1: save np.round(255 * array).astype(np.uint8); from -1 to"
        " 1: np.round(127.5 * (array + 1)).astype(np.uint8); whole numbers from 0 to"
        " 255: array.astype(np.uint8).")
  if dtype.kind in "iub":
    return (
        " If its values are whole numbers from 0 to 255, save array.astype(np.uint8).")
  return ""


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Return shape, whether in Fortran order, and dtype.

  Afterwards the file stands at the first value.

  Raises:
    ValueError: the header is none, or of another version.
  """
  version = np.lib.format.read_magic(file)
  if version != (1, 0):
    raise ValueError(f"an array of format {version}, not (1, 0)")
  try:
    return np.lib.format.read_array_header_1_0(file)
  except Exception as error:  # Python's parser raises anything
    raise ValueError("the header of an array cannot be read") from error
