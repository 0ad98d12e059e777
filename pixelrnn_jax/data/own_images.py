"""The user's own images: a folder of PNG and JPEG files, or an `.npz` file.

A folder. If it has a sub-folder `train`, the parts are the images below `train`
and `test` and, if it is there, `validation` (which is then the validation split,
whatever `data.validation_images` says). Otherwise all images below it are put in
the order of the SHA-256 of their names (paths relative to the folder, with /); the
last tenth, rounded down but at least one, is the test part. So the parts do not
depend on the machine, and a new file moves few others. What becomes of a file's
pixels is in `image_files.py`.

An `.npz`. Arrays `train` and `test` and, if it is there, `validation`; or one array
`images`, divided as a folder is, with the index as name. They are uint8
[N, H, W, C], or [N, H, W] for grey images, of the model's shape. Values are the
model's, 0 .. levels - 1.

What nearly has one of these forms is refused: `val` or `Train` for a part, images
beside the parts, image files of other formats. Whatever else is not read (labels,
text, links to folders) is told, in `notes`. Only names that begin with a dot are
passed over in silence.

Both are decoded once, to a file of all pixels in a cache, which later starts read
while the files' names, sizes and times are the same. An `.npz` holds numbers and
nothing that runs (`allow_pickle` is never used), it is read in pieces, and what its
headers claim is held against the bytes of the file before anything is allocated.

The cache. Its entries are directories `images_HASH` with the files `pixels` and
`about.json`, which is written last, and there is a file `pixelrnn_jax.lock`. Nothing
of another name is ever changed or removed.
"""

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np

from pixelrnn_jax import files, progress
from pixelrnn_jax.data.image_files import crop_and_resize, decode
from pixelrnn_jax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg")
PARTS = ("train", "validation", "test")
_RULES = 1  # a new number when other pixels or parts come from the same files
_PIECE = 2**22  # bytes read, written or hashed at a time
_CHECKED = 2**30  # bytes of pixels whose digest each start checks
# Deflate can shrink zeros a thousand times, but images hardly ten times.
_MOST_SHRUNK, _SMALL = 200, 2**22
# Image files that are not read.
_OTHER_FORMATS = (
    ".apng", ".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe",
    ".jxl", ".pbm", ".pgm", ".ppm", ".tga", ".tif", ".tiff", ".webp")
# What people call the parts, and what they add to it: `val2017`, `TrainSet`, `x_test`.
_NEAR_NAMES = {
    "train": "train trains training trn trainval trian tarin traning trainning",
    "validation": "val vals valid validate validating validations vali dev devel"
                  " development eval evaluate evaluation holdout validset",
    "test": "test tests testing tst tset tets heldout",
}
_FILLERS = {
    "arr", "array", "data", "dataset", "image", "images", "img", "imgs", "my", "part",
    "photo", "photos", "pic", "pics", "pictures", "sample", "samples", "set", "split",
    "subset", "x"}


class OwnImages:
  """A folder or an `.npz`, as `sources.load_source` expects a data set.

  Attributes:
    title: the path, how many images and what they are: a digest of all pixels.
    split_names: 'train', 'test' and perhaps 'validation', to themselves.
    sizes: images of each part.
    largest: the largest value.
    as_stored: whether values are the model's already (`.npz`).
    in_colour: how many of the files are in colour; None for an `.npz`.
    notes: what is there and is not read.
  """

  def __init__(
      self, path: str, cache: str, image_shape: tuple[int, int, int],
      writes: bool = True,
  ):
    """Find the images and decode them, unless the cache has them.

    Args:
      path: of the folder or the file.
      cache: a directory for decoded pixels; "" is `~/.cache/pixelrnn_jax`.
      image_shape: the (H, W, C) that the model needs.
      writes: whether `cache` may be written to. Else it is looked into, and new
        pixels go to `~/.cache/pixelrnn_jax`.

    Raises:
      InputError: there is no such folder or file, it holds no images, some of
        them cannot be used, or the cache cannot be written.
    """
    reader = open_reader(path, image_shape)
    places = [files.expand(cache) if cache else _default_cache()]
    if not writes:
      places.append(_default_cache())
    self._pixels, about = _cached(reader, places)
    self.sizes = about["sizes"]
    self.split_names = {part: part for part in self.sizes}
    self.largest, self.in_colour = about["largest"], about["in_colour"]
    self.as_stored = isinstance(reader, _Npz)
    self.notes = [*reader.notes, *_doubts(about, reader.shape)]
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


def without_path(description: str) -> str:
  """Return a description without the path of the user's images, which may move.

  What is left names their number and the digest of their pixels. Other descriptions
  are returned as they are.
  """
  return re.sub(r"^(folder|npz) .* (\([\d,]+ images)", r"\1 \2", description)


def same_images(description: str, other: str) -> bool:
  """Return whether two descriptions can be of the same images, of whichever parts.

  They cannot if both name a digest and it is not the same.
  """
  found = [
      re.search(r"\([\d,]+ images[^()]*SHA-256 ([0-9a-f]+)\)", text)
      for text in (description, other)]
  return not all(found) or found[0][1] == found[1][1]


def open_reader(path: str, image_shape: tuple[int, int, int]) -> "_Folder | _Npz":
  """Return what reads a folder or an `.npz`, whose form has been checked.

  Raises:
    InputError: there is no such folder or file, or it is not of the form above.
  """
  real, shape = files.expand(path), tuple(image_shape)
  if os.path.isdir(real):
    return _Folder(real, shape)
  if real.lower().endswith(".npz"):
    return _Npz(real, shape)
  what = "is a file" if os.path.exists(real) else "does not exist"
  raise InputError(
      f"{_source(path)} {what}. Give a folder of PNG or JPEG files,"
      " or a file that ends in .npz; if it has moved,"
      " --config.data.source=folder:PATH says where it is now."
  )


def folder_images(path: str) -> list[str]:
  """Return the image files below a folder, relative to it, in order.

  Raises:
    InputError: something that cannot be read, or image files of other formats.
  """
  return _walk(path).images


def quantise(image: np.ndarray, levels: int) -> np.ndarray:
  """Return floor(x levels / 256), uint8 to uint8 0 .. levels - 1."""
  return (image.astype(np.uint16) * levels // 256).astype(np.uint8)


def to_levels(
    images: np.ndarray, levels: int, title: str, largest: int
) -> np.ndarray:
  """Return the values of an `.npz` as a model's: as they are, or quantised to bits.

  Args:
    images: uint8.
    levels: of the model.
    title: what they are, for messages.
    largest: value of all images.

  Raises:
    InputError: they are beyond `levels`.
  """
  if largest < levels:
    return images
  if levels > 2:
    raise InputError(
        f"{title} holds values up to {largest}, but model.levels={levels}: the values"
        " of an .npz are used as they are, 0 .. levels - 1. Store"
        f" floor(x {levels} / 256), or set model.levels=256."
    )
  return quantise(images, levels)


class _Folder:
  """The image files of a folder.

  Attributes:
    parts: names of the files of each part, relative to the folder.
    given: whether the user has divided them.
    notes: see OwnImages.
  """

  kind = "folder"

  def __init__(self, path: str, shape: tuple[int, int, int]):
    self.path, self.shape = path, shape
    self.treatment = f" of any size cropped and resized to {shape[0]}x{shape[1]}"
    self.notes = []
    # By the names in the listing: some systems would find `Train` too.
    names = set(os.listdir(path))
    there = [
        part for part in PARTS
        if part in names and os.path.isdir(os.path.join(path, part))]
    self.given = "train" in there
    found = _walk(path, without=there if self.given else ())
    folders = [*found.folders, *found.links]
    if self.given:  # what is below others is no part, and has no images
      folders = [name for name in folders if "/" not in name]
    self._check_names(folders)
    if self.given:
      self.parts = self._given_parts(there, found.images)
    else:
      self.parts = _divide(found.images, path)
    self._tell(found)

  def _given_parts(self, there: list[str], beside: list[str]) -> dict[str, list[str]]:
    """Return the names of the images below the parts' folders."""
    if "test" not in there:
      raise InputError(
          f"{_source(self.path)} has a sub-folder 'train' but no 'test'."
          " Add one, or put all images into one folder, to have them divided."
      )
    if beside:
      raise InputError(
          f"{_source(self.path)} has sub-folders {' and '.join(map(repr, there))}, and"
          f" {len(beside):,} images that are in none of them, such as {beside[0]!r}."
          " Move those into one of them, or out of the folder."
      )
    parts = {}
    for part in there:
      found = _walk(os.path.join(self.path, part), f"{part}/")
      if not found.images:
        raise InputError(
            f"{_source(self.path)}: the sub-folder {part!r} holds no"
            f" files that end in {', '.join(SUFFIXES)}."
        )
      parts[part] = found.images
      for name in found.folders:  # may be a class, as CIFAR-100's `train` is
        if _near_part(name):
          self.notes.append(f"{name!r} is read as images of {part!r}")
      self._tell(found)
    return parts

  def _check_names(self, folders: list[str]) -> None:
    """Raise InputError for folders that look like parts and are none."""
    for name, part in _near_parts(folders).items():
      if part:
        raise InputError(
            f"{_source(self.path)}: the sub-folder {name!r} looks like the part"
            f" {part!r}. Parts are sub-folders 'train' and 'test' and, if there is one,"
            " 'validation', directly in the folder and named so. Rename or move it; if"
            " it is no part, give it another name."
        )

  def _tell(self, found: "_Found") -> None:
    """Note what is not read."""
    for what, names in (
        ("other files", found.others), ("links to folders", found.links)):
      if names:
        self.notes.append(f"{what} are not read: {_some(names)}")

  def facts(self) -> list:
    """Return what says that nothing has changed."""
    found = []
    for names in self.parts.values():
      for name in names:
        status = os.stat(os.path.join(self.path, name))
        found.append([name, status.st_size, status.st_mtime_ns])
    return found

  def fill(self, write: Callable[[int, np.ndarray], None]) -> int:
    """Call `write` with the number and the pixels of each image.

    Returns:
      How many of them are in colour.
    """
    names = [name for names in self.parts.values() for name in names]
    height, width, channels = self.shape

    def read(name: str) -> tuple[np.ndarray, bool] | InputError:
      try:
        image = decode(os.path.join(self.path, name), channels)
        return crop_and_resize(image.pixels, height, width), image.in_colour
      except InputError as error:
        return error

    problems, in_colour = [], 0
    # Few, as each may hold an image of the largest size.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
      batches = range(0, len(names), 256)
      for first in progress.bar(
          "decoding", len(batches), "batches of 256 images", batches):
        some = pool.map(read, names[first:first + 256])
        for index, result in enumerate(some, start=first):
          if isinstance(result, InputError):
            problems.append(str(result))
          else:
            write(index, result[0])
            in_colour += result[1]
    if problems:
      more = f" And {len(problems) - 3} more." if len(problems) > 3 else ""
      raise InputError(
          f"{_source(self.path)}: {len(problems)} of {len(names)} images"
          f" cannot be used. {' '.join(problems[:3])}{more} Mend them or take them out"
          " of the folder."
      )
    return in_colour


class _Npz:
  """The arrays of an `.npz` file.

  Attributes:
    arrays: names of those that are read, in order.
    number: images of all of them.
    given: whether the user has divided them.
    notes: see OwnImages.
  """

  kind = "npz"
  treatment = ""

  def __init__(self, path: str, shape: tuple[int, int, int]):
    self.path, self.shape = path, shape
    with self._archive() as (archive, size):
      self.arrays = self._choose(archive)
      self._counts = {
          name: self._check(archive, name, size) for name in self.arrays}
    self.number = sum(self._counts.values())
    self.given = self.arrays != ["images"]

  @functools.cached_property
  def parts(self) -> dict[str, Sequence[int]]:
    """Of each part, the places of its images in the file, in order."""
    if not self.given:
      return _divide(range(self.number), self.path)
    ends = np.cumsum(list(self._counts.values())).tolist()
    return {
        name: range(end - count, end)
        for (name, count), end in zip(self._counts.items(), ends, strict=True)}

  def facts(self) -> list:
    """Return what says that nothing has changed."""
    status = os.stat(self.path)
    return [self.arrays, status.st_size, status.st_mtime_ns]

  def fill(self, write: Callable[[int, np.ndarray], None]) -> None:
    """Call `write` with the number and the pixels of each image."""
    order = np.concatenate([np.asarray(part) for part in self.parts.values()])
    places = np.argsort(order)
    for index, image in enumerate(self.read(len(order), self.arrays)):
      write(int(places[index]), image)

  def read(self, most: int, arrays: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield the first images of arrays, one after another, uint8 [H, W, C]."""
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
          if taken == count and file.read(1):  # at the end, where the sum is checked
            raise ValueError(f"{name!r} claims {count} images and has more")

  @contextlib.contextmanager
  def _archive(self) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """Open the file, whose size comes along; InputError for whatever is wrong."""
    if not os.path.exists(self.path):
      raise InputError(
          f"{_source(self.path)} does not exist. Give a file of np.savez; if it has"
          " moved, --config.data.source=folder:PATH says where it is now.")
    try:
      with files.open_file(self.path) as file, zipfile.ZipFile(file) as archive:
        yield archive, os.fstat(file.fileno()).st_size
    except InputError:
      raise
    except Exception as error:  # of zipfile and the decompressors, of any kind
      raise InputError(
          f"{_source(self.path)} is damaged or no .npz:"
          f" {' '.join(str(error).split())[:200]}. Save it again with np.savez."
      ) from error

  def _choose(self, archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the arrays that are read, in order."""
    names = archive.namelist()
    if doubled := {name for name in names if names.count(name) > 1}:
      raise ValueError(f"it holds {min(doubled)!r} more than once")
    there = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
    if "train" in there and "test" in there:
      chosen = [part for part in PARTS if part in there]
    else:
      chosen = ["images"]
    left = [n for n in map(lambda n: n.removesuffix(".npy"), names) if n not in chosen]
    wrong = next(filter(_near_part, left), "")
    if "images" not in there and chosen == ["images"] or wrong:
      raise InputError(
          f"{_source(self.path)} holds {_some(there) or 'no arrays'}; it"
          " must hold 'images', or 'train' and 'test' (and perhaps 'validation'):"
          " np.savez(path, train=..., test=...)."
          + (f" {wrong!r} looks like the part {_near_part(wrong)!r} and would not be"
             " read: rename it, or leave it out." if wrong else "")
      )
    self.notes = [f"other arrays are not read: {_some(left)}"] if left else []
    return chosen

  def _check(self, archive: zipfile.ZipFile, name: str, size: int) -> int:
    """Return how many images an array has; InputError unless it can be read.

    Args:
      archive: that holds it.
      name: of the array.
      size: bytes of the whole file.
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
    what = f"{_source(self.path)}: the array {name!r}"
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


def _source(path: str) -> str:
  """Return how messages begin."""
  return f"'folder:{path}'"


def _kind(dtype: np.dtype) -> str:
  return "Python objects, which are not read" if dtype.hasobject else str(dtype)


def _advice(dtype: np.dtype) -> str:
  """Return how values of another dtype become bytes, to follow a full stop."""
  if dtype.kind == "f":
    return (
        " Values from 0 to 1: save np.round(255 * array).astype(np.uint8); from -1 to"
        " 1: np.round(127.5 * (array + 1)).astype(np.uint8); whole numbers from 0 to"
        " 255: array.astype(np.uint8).")
  if dtype.kind in "iub":
    return (
        " If its values are whole numbers from 0 to 255, save array.astype(np.uint8).")
  return ""


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Return shape, whether in Fortran order, and dtype; the values come next."""
  version = np.lib.format.read_magic(file)
  if version != (1, 0):
    raise ValueError(f"an array of format {version}, not (1, 0)")
  try:
    return np.lib.format.read_array_header_1_0(file)
  except Exception as error:  # of Python's parser, of any kind
    raise ValueError("the header of an array cannot be read") from error


@dataclasses.dataclass
class _Found:
  """What is below a folder, relative to it, in order, but for names with a dot first.

  Attributes:
    images: files that end in `SUFFIXES`.
    others: files that are no images.
    folders: the folders.
    links: links to folders, which are not followed.
  """

  images: list[str]
  others: list[str]
  folders: list[str]
  links: list[str]


def _walk(folder: str, prefix: str = "", without: Sequence[str] = ()) -> _Found:
  """Return what is below a folder.

  Args:
    folder: the path.
    prefix: goes before the names.
    without: folders directly in it that are left out.

  Raises:
    InputError: something that cannot be read, or image files of other formats.
  """

  def fail(error: OSError):
    raise InputError(
        f"{_source(folder)}: {error.filename} cannot be read:"
        f" {error.strerror}. Make it readable or take it out.") from error

  found, wrong = _Found([], [], [], []), []
  for directory, folders, names in os.walk(folder, onerror=fail):
    top = directory == folder

    def relative(name, directory=directory):
      path = os.path.relpath(os.path.join(directory, name), folder)
      return prefix + path.replace(os.sep, "/")

    folders[:] = [
        name for name in folders
        if not name.startswith(".") and not (top and name in without)]
    for name in folders:
      path = os.path.join(directory, name)
      (found.links if os.path.islink(path) else found.folders).append(relative(name))
    for name in names:
      path = os.path.join(directory, name)
      if name.startswith("."):
        continue
      if name.lower().endswith(SUFFIXES):
        if not os.path.isfile(path):
          raise InputError(
              f"{_source(folder)}: {path} is no regular file, or a link to nothing."
              " Mend it or take it out.")
        found.images.append(relative(name))
      else:
        found.others.append(relative(name))
        if name.lower().endswith(_OTHER_FORMATS):
          wrong.append(relative(name))
  wrong.sort()
  if found.images and wrong:
    raise InputError(
        f"{_source(folder)} holds {len(wrong):,} image files of other formats"
        f" ({_some(wrong)}), which would be left out. Convert them to PNG or JPEG, or"
        " take them out of the folder."
    )
  return _Found(*map(sorted, dataclasses.astuple(found)))


def _near_part(name: str) -> str:
  """Return the part that the last component of a name seems to mean; "" if none.

  Case, digits, signs and words such as `images` or `set` do not count.
  """
  last = name.rsplit("/", 1)[-1]
  spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", last).casefold()
  words = [w for w in re.findall(r"[a-z]+", spaced) if w not in _FILLERS]
  if len(words) != 1:
    return ""
  word = words[0]
  for filler in ("set", "data", "images", "split"):
    word = word.removesuffix(filler)
  word = word.removeprefix("x")
  for part, near in _NEAR_NAMES.items():
    if word in near.split():
      return part
  close = difflib.SequenceMatcher(None, word, "validation").ratio() > 0.85
  return "validation" if close else ""


def _near_parts(folders: Sequence[str]) -> dict[str, str]:
  """Return what `_near_part` says of each folder, and of those with names in common.

  `cats_train` is near beside `cats_test`, but not alone.
  """
  found, groups = {name: _near_part(name) for name in folders}, {}
  for name in folders:
    words = re.findall(r"[^\W_]+", name)
    for i, word in enumerate(words):
      if part := _near_part(word):
        others = (name.count("/"), *words[:i], *words[i + 1:])
        groups.setdefault(others, {})[name] = part
  for group in groups.values():
    if len(set(group.values())) > 1:
      found |= group
  return found


def _some(names: Sequence[str]) -> str:
  """Return up to eight names, and how many more there are."""
  more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
  return ", ".join(map(repr, names[:8])) + more


def _divide(names: Sequence, path: str) -> dict[str, list]:
  """Return the parts of images that nobody has divided, by the digests of their names.

  Args:
    names: file names, or the indices of an array.
    path: for messages.
  """
  if not len(names):
    raise InputError(
        f"{_source(path)} holds no images: no file in it or below it ends"
        f" in {', '.join(SUFFIXES)}."
    )
  if len(names) < 3:
    raise InputError(
        f"{_source(path)} holds {len(names)} image(s): at least 3 are"
        " needed, to train, validate and test."
    )
  digests = bytearray()
  for name in names:
    digests += hashlib.sha256(os.fsencode(str(name))).digest()
  words = np.frombuffer(digests, ">u8").reshape(-1, 4)
  order = np.lexsort(words.T[::-1])  # the first word counts most
  test = max(1, len(names) // 10)
  train, test = order[:-test], order[-test:]
  if isinstance(names, range):
    return {"train": train, "test": test}
  return {"train": [names[i] for i in train], "test": [names[i] for i in test]}


def _doubts(about: dict[str, Any], shape: tuple[int, int, int]) -> list[str]:
  """Return what a user may not have meant."""
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


def _default_cache() -> str:
  base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.path.join(base, "pixelrnn_jax")


def _cached(
    reader: _Folder | _Npz, places: Sequence[str]
) -> tuple[Pixels, dict[str, Any]]:
  """Return the pixels of all parts, one after the other, and what is known of them.

  Args:
    reader: of the images.
    places: caches that are looked into; the last one is written to.
  """
  sizes = {part: len(names) for part, names in reader.parts.items()}
  key = json.dumps([_RULES, reader.kind, os.path.abspath(reader.path), reader.shape,
                    sizes, reader.facts()])
  name = f"images_{hashlib.sha256(key.encode()).hexdigest()[:24]}"
  wanted = _Wanted(reader, sizes)
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


class _Wanted:
  """An entry of the cache, which may be there or not.

  Attributes:
    size: bytes of all pixels.
  """

  def __init__(self, reader: _Folder | _Npz, sizes: dict[str, int]):
    self._reader, self._sizes = reader, sizes
    self._number = sum(sizes.values())
    self._image_bytes = int(np.prod(reader.shape))
    self.size = self._number * self._image_bytes

  def pixels(self, directory: str) -> Pixels:
    """Return the images of an entry that is there."""
    return Pixels(
        os.path.join(directory, "pixels"), self._reader.shape, 0, self._number)

  def find(self, directory: str) -> dict[str, Any] | None:
    """Return what is known of cached pixels; None if they are not there, or damaged.

    Their digest is checked where they are few enough to be read into memory anyway.
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
    """Decode the images into a directory, which is an entry once it is complete."""
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
    """Write the pixels of all images; return what is known of them."""
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
          f"{_source(self._reader.path)}: {written:,} images were read instead of"
          f" {self._number:,}: it has changed meanwhile. Start again.")
    with files.open_file(path) as file:
      digest = self._digest(file)
    return {"sizes": self._sizes, "largest": largest, "digest": digest,
            "in_colour": in_colour}

  def _digest(self, file: BinaryIO) -> str:
    """Return the SHA-256 of the shape, the parts if they were given, and all pixels."""
    digest = hashlib.sha256(f"{self._reader.shape}".encode())
    if self._reader.given:
      digest.update(f"{self._sizes}".encode())
    while piece := file.read(_PIECE):
      digest.update(piece)
    return digest.hexdigest()


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
  with contextlib.suppress(OSError):  # not ours, after all
    for name in ("about.json", "pixels"):
      with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, name))
    os.rmdir(directory)
