"""The user's own images: a folder of PNG and JPEG files, or an `.npz` file.

A folder. If it has a sub-folder `train`, the parts are the images below `train`
and `test` and, if it is there, `validation` (which is then the validation split,
whatever `data.validation_images` says). Otherwise all images below it are put in
the order of the SHA-256 of their names (paths relative to the folder, with /); the
last tenth, rounded down but at least one, is the test part. So the parts do not
depend on the machine, and a new file moves few others. Files and folders whose
names begin with a dot, links to folders, and files that do not end in .png, .jpg or
.jpeg, are not looked at. What becomes of a file's pixels is in `image_files.decode` and
`image_files.crop_and_resize`.

An `.npz`. Arrays `train` and `test` and, if it is there, `validation`; or one array
`images`, divided as a folder is, with the index as name. They are uint8
[N, H, W, C], or [N, H, W] for grey images, of the model's shape. Other arrays, such
as labels, are not read. Values are the model's, 0 .. levels - 1.

Both are decoded once, to a file of all pixels in a cache, which later starts read
while the files' names, sizes and times are the same. An `.npz` holds numbers and
nothing that runs (`allow_pickle` is never used), it is read in pieces, and what its
header claims is checked before anything is allocated.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from pixelrnn_jax import files
from pixelrnn_jax.data.image_files import crop_and_resize, decode
from pixelrnn_jax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg")
PARTS = ("train", "validation", "test")
_RULES = 1  # a new number when other pixels or parts come from the same files
_PIECE = 2**22  # bytes read, written or hashed at a time
_CHECKED = 2**30  # bytes of pixels whose digest each start checks
# Deflate can shrink zeros a thousand times, but images hardly ten times.
_MOST_SHRUNK = 200
_UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class OwnImages:
  """A folder or an `.npz`, as `sources.load_source` expects a data set.

  Attributes:
    title: the path, how many images and what they are: a digest of all pixels.
    split_names: 'train', 'test' and perhaps 'validation', to themselves.
    sizes: images of each part.
    largest: the largest value, if values are the model's (`.npz`), else None.
  """

  def __init__(self, path: str, cache: str, image_shape: tuple[int, int, int]):
    """Finds the images and decodes them, unless the cache has them.

    Args:
      path: of the folder or the file.
      cache: a directory for decoded pixels; "" is `~/.cache/pixelrnn_jax`.
      image_shape: the (H, W, C) that the model needs.

    Raises:
      InputError: there is no such folder or file, it holds no images, some of
        them cannot be used, or the cache cannot be written.
    """
    reader = (_Npz if path.endswith(".npz") else _Folder)(path, tuple(image_shape))
    self._pixels, about = _cached(reader, cache or _default_cache())
    self.sizes = about["sizes"]
    self.split_names = {part: part for part in self.sizes}
    self.largest = about["largest"] if isinstance(reader, _Npz) else None
    number = sum(self.sizes.values())
    self.title = (
        f"{reader.kind} {path} ({number:,} images{reader.treatment}, SHA-256"
        f" {about['digest'][:12]})")

  def open(self, part: str, start: int, stop: int) -> "Pixels":
    """Images `start` to `stop` of `part`, each uint8 [H, W, C] when it is read."""
    before = 0
    for name, size in self.sizes.items():
      if name == part:
        break
      before += size
    return dataclasses.replace(
        self._pixels, start=before + start, number=stop - start)


@dataclasses.dataclass
class Pixels:
  """Images of a file of nothing but pixels, by index.

  Attributes:
    path: of the file.
    shape: (H, W, C).
    start: of the first image.
    number: of images.
  """

  path: str
  shape: tuple[int, int, int]
  start: int
  number: int

  def __len__(self) -> int:
    return self.number

  def __getitem__(self, index: int) -> np.ndarray:
    if not hasattr(self, "_map"):
      self._map = np.memmap(self.path, np.uint8, "r").reshape(-1, *self.shape)
    return np.array(self._map[self.start + index])

  def __getstate__(self) -> dict:
    """Without the map, which would be pickled as all of its pixels."""
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


class _Folder:
  """The image files of a folder."""

  kind = "folder"

  def __init__(self, path: str, shape: tuple[int, int, int]):
    self.path, self.shape = path, shape
    self.treatment = f" of any size cropped and resized to {shape[0]}x{shape[1]}"
    if not os.path.isdir(path):
      what = "is a file" if os.path.exists(path) else "does not exist"
      raise InputError(
          f"data.source='folder:{path}' {what}. Give a folder of PNG or JPEG files,"
          " or a file that ends in .npz."
      )
    self.parts = self._find()

  def _find(self) -> dict[str, list[str]]:
    """Names of each part, relative to the folder, in order."""
    if not os.path.isdir(os.path.join(self.path, "train")):
      return _divide(_image_names(self.path), self.path)
    parts = {}
    for part in PARTS:
      folder = os.path.join(self.path, part)
      if os.path.isdir(folder):
        parts[part] = [f"{part}/{name}" for name in sorted(_image_names(folder))]
      elif part == "test":
        raise InputError(
            f"data.source='folder:{self.path}' has a sub-folder 'train' but no 'test'."
            " Add one, or put all images into one folder, to have them divided."
        )
    return parts

  def facts(self) -> list:
    """What says that nothing has changed."""
    found = []
    for names in self.parts.values():
      for name in names:
        status = os.stat(os.path.join(self.path, name))
        found.append([name, status.st_size, status.st_mtime_ns])
    return found

  def fill(self, write: Callable[[int, np.ndarray], None]) -> None:
    """Calls `write` with the number and the pixels of each image."""
    names = [name for names in self.parts.values() for name in names]
    height, width, channels = self.shape

    def read(name: str) -> np.ndarray | InputError:
      try:
        pixels = decode(
            os.path.join(self.path, name), channels, ["PNG", "JPEG"])
        return crop_and_resize(pixels, height, width)
      except InputError as error:
        return error

    problems = []
    # Few, as each may hold an image of the largest size.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
      for first in tqdm(
          range(0, len(names), 256), "decoding", unit="x 256 images", leave=False):
        some = pool.map(read, names[first:first + 256])
        for index, pixels in enumerate(some, start=first):
          if isinstance(pixels, InputError):
            problems.append(str(pixels))
          else:
            write(index, pixels)
    if problems:
      more = f" And {len(problems) - 3} more." if len(problems) > 3 else ""
      raise InputError(
          f"data.source='folder:{self.path}': {len(problems)} of {len(names)} images"
          f" cannot be used. {' '.join(problems[:3])}{more} Mend them or take them out"
          " of the folder."
      )


class _Npz:
  """The arrays of an `.npz` file."""

  kind = "npz"
  treatment = ""

  def __init__(self, path: str, shape: tuple[int, int, int]):
    self.path, self.shape = path, shape
    self.source = f"data.source='folder:{path}'"
    if not os.path.isfile(path):
      raise InputError(f"{self.source} does not exist. Give a file of np.savez.")
    try:
      with zipfile.ZipFile(path) as archive:
        self.arrays = self._choose(archive)
        counts = {
            name: self._check(archive, name) for name in self.arrays
        }
    except _UNREADABLE as error:
      self._fail(error)
    if self.arrays == ["images"]:
      numbers = [str(index) for index in range(counts["images"])]
      self.parts = _divide(numbers, path)
      order = [int(n) for numbers in self.parts.values() for n in numbers]
      self.places = np.argsort(order)
    else:
      self.parts = {name: range(count) for name, count in counts.items()}
      self.places = np.arange(sum(counts.values()))

  def facts(self) -> list:
    """What says that nothing has changed."""
    status = os.stat(self.path)
    return [self.arrays, status.st_size, status.st_mtime_ns]

  def fill(self, write: Callable[[int, np.ndarray], None]) -> None:
    """Calls `write` with the number and the pixels of each image."""
    size, index = int(np.prod(self.shape)), 0
    try:
      with zipfile.ZipFile(self.path) as archive:
        for name in self.arrays:
          with archive.open(f"{name}.npy") as file:
            _read_header(file)
            while content := file.read(size):
              write(self.places[index],
                    np.frombuffer(content, np.uint8).reshape(self.shape))
              index += 1
    except _UNREADABLE as error:
      self._fail(error)

  def _choose(self, archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays that are read, in order."""
    there = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
    if "train" in there and "test" in there:
      return [part for part in PARTS if part in there]
    if "images" in there:
      return ["images"]
    raise InputError(
        f"{self.source} holds {', '.join(map(repr, there[:8])) or 'no arrays'}; it"
        " must hold 'images', or 'train' and 'test' (and perhaps 'validation'):"
        " np.savez(path, train=..., test=...)."
    )

  def _check(self, archive: zipfile.ZipFile, name: str) -> int:
    """How many images an array has; InputError unless it can be read."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError("it is neither stored nor deflated")
    with archive.open(entry) as file:
      shape, fortran, dtype = _read_header(file)
      header = file.tell()
    what = f"{self.source}: the array {name!r}"
    if dtype != np.uint8:
      kind = "Python objects, which are not read" if dtype.hasobject else str(dtype)
      raise InputError(
          f"{what} is of {kind}; it must be uint8. Save array.astype(np.uint8), with"
          " values 0 .. levels - 1."
      )
    wanted = self.shape if len(shape) != 3 else self.shape[:2]
    if shape[1:] != wanted or (len(shape) == 3 and self.shape[2] != 1):
      raise InputError(
          f"{what} has the shape {shape}, but model.image_shape is {self.shape}: it"
          f" must be (N, {', '.join(map(str, self.shape))}). Change one of them;"
          " arrays are not resized."
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
    if entry.file_size > max(_MOST_SHRUNK * entry.compress_size, 2**26):
      raise InputError(
          f"{what} has {entry.file_size:,} bytes in {entry.compress_size:,}: no images"
          f" shrink by more than {_MOST_SHRUNK} times. Save it uncompressed, with"
          " np.savez, if they are good."
      )
    return number

  def _fail(self, error: Exception) -> None:
    if isinstance(error, InputError):
      raise error
    raise InputError(
        f"{self.source} is damaged or no .npz: {' '.join(str(error).split())[:200]}."
        " Save it again with np.savez."
    ) from error


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Shape, whether in Fortran order, and dtype; the file stands at the values."""
  version = np.lib.format.read_magic(file)
  if version != (1, 0):
    raise ValueError(f"an array of format {version}, not (1, 0)")
  try:
    return np.lib.format.read_array_header_1_0(file)
  except Exception as error:  # of Python's parser, of any kind
    raise ValueError("the header of an array cannot be read") from error


def _image_names(folder: str) -> Iterator[str]:
  """Image files below a folder, relative to it, with /."""

  def fail(error: OSError):
    raise InputError(
        f"data.source='folder:{folder}': {error.filename} cannot be read:"
        f" {error.strerror}. Make it readable or take it out.") from error

  for directory, folders, names in os.walk(folder, onerror=fail):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for name in names:
      path = os.path.join(directory, name)
      if not name.lower().endswith(SUFFIXES) or name.startswith("."):
        continue
      if not os.path.isfile(path):
        raise InputError(
            f"data.source='folder:{folder}': {path} is no file, or a link to nothing."
            " Mend it or take it out.")
      yield os.path.relpath(path, folder).replace(os.sep, "/")


def _divide(names: Iterator[str] | list[str], path: str) -> dict[str, list[str]]:
  """The parts of images that nobody has divided, by the digests of their names."""
  ordered = sorted(
      names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
  if not ordered:
    raise InputError(
        f"data.source='folder:{path}' holds no images: no file in it or below it ends"
        f" in {', '.join(SUFFIXES)}."
    )
  if len(ordered) < 3:
    raise InputError(
        f"data.source='folder:{path}' holds {len(ordered)} image(s): at least 3 are"
        " needed, to train, validate and test."
    )
  test = max(1, len(ordered) // 10)
  return {"train": ordered[:-test], "test": ordered[-test:]}


def _default_cache() -> str:
  base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.path.join(base, "pixelrnn_jax")


def _cached(reader: _Folder | _Npz, cache: str) -> tuple[Pixels, dict[str, Any]]:
  """The pixels of all parts, one after the other, and what is known of them."""
  sizes = {part: len(names) for part, names in reader.parts.items()}
  for part, size in sizes.items():
    if not size:
      raise InputError(
          f"data.source='folder:{reader.path}': the sub-folder {part!r} holds no"
          f" files that end in {', '.join(SUFFIXES)}."
      )
  number = sum(sizes.values())
  key = json.dumps([_RULES, reader.kind, os.path.abspath(reader.path), reader.shape,
                    sizes, reader.facts()])
  name = f"images_{hashlib.sha256(key.encode()).hexdigest()[:24]}"
  directory = os.path.join(cache, name)
  pixels = Pixels(os.path.join(directory, "pixels"), reader.shape, 0, number)
  size = number * int(np.prod(reader.shape))
  try:
    if not (about := _about(directory, pixels, size)):
      os.makedirs(cache, exist_ok=True)
      with files.hold_lock(os.path.join(cache, "lock"), wait=True):
        if not (about := _about(directory, pixels, size)):
          about = _write(reader, cache, directory, sizes, size)
    return pixels, about
  except OSError as error:
    raise InputError(
        f"The decoded images of {reader.path} ({size:,} bytes) cannot be kept in"
        f" {cache}: {error.strerror}. Give another directory, with"
        " --config.data.data_dir=DIR."
    ) from error


def _about(directory: str, pixels: Pixels, size: int) -> dict[str, Any] | None:
  """What is known of cached pixels; None if they are not there, or damaged.

  Their digest is checked where they are few enough to be read into memory anyway.
  """
  try:
    with open(os.path.join(directory, "about.json"), encoding="utf-8") as file:
      about = json.load(file)
    good = (
        set(about) == {"sizes", "largest", "digest"}
        and os.path.getsize(pixels.path) == size
        and (size > _CHECKED or _digest(pixels.path, pixels.shape) == about["digest"]))
  except (OSError, ValueError, TypeError):
    return None
  return about if good else None


def _write(
    reader: _Folder | _Npz, cache: str, directory: str, sizes: dict[str, int],
    size: int,
) -> dict[str, Any]:
  """Makes a directory of the cache, which is complete or not there."""
  partial = os.path.join(cache, "partial")  # of a process that was killed
  for old in (partial, directory):
    shutil.rmtree(old, ignore_errors=True)
  if shutil.disk_usage(cache).free < size:
    raise InputError(
        f"The decoded images of {reader.path} take {size:,} bytes, more than is free"
        f" in {cache}. Give another directory, with --config.data.data_dir=DIR."
    )
  os.mkdir(partial)
  try:
    path = os.path.join(partial, "pixels")
    largest = _write_pixels(reader, path)
    about = {"sizes": sizes, "largest": largest, "digest": _digest(path, reader.shape)}
    with open(os.path.join(partial, "about.json"), "w", encoding="utf-8") as file:
      json.dump(about, file)
      file.flush()
      os.fsync(file.fileno())
    os.rename(partial, directory)
    return about
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _write_pixels(reader: _Folder | _Npz, path: str) -> int:
  """Writes the pixels of all images; returns the largest value."""
  image_bytes = int(np.prod(reader.shape))
  next_index = largest = 0
  with open(path, "wb") as file:

    def write(index: int, image: np.ndarray) -> None:
      nonlocal next_index, largest
      largest = max(largest, int(image.max()))
      if index != next_index:
        file.seek(index * image_bytes)
      file.write(image.tobytes())
      next_index = index + 1

    reader.fill(write)
    file.flush()
    os.fsync(file.fileno())
  return largest


def _digest(path: str, shape: tuple[int, int, int]) -> str:
  """SHA-256 of the shape and all pixels."""
  digest = hashlib.sha256(f"{shape}".encode())
  with open(path, "rb") as file:
    while piece := file.read(_PIECE):
      digest.update(piece)
  return digest.hexdigest()
