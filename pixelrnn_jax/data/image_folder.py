"""A folder of PNG and JPEG files, as a reader of the user's own images.

If the folder has a sub-folder `train`, the parts are the images below `train`, `test`
and, if it is there, `validation`. That part is then the validation split, whatever
`data.validation_images` says. Otherwise all images below the folder are divided; see
`own_parts.divide`. Their names are the paths relative to the folder, with /.

A folder that nearly has one of these forms is refused: one with `val` or `Train` for a
part, with images beside the parts, or with image files of other formats. `notes` tells
of all other files that are not read (labels, text, links to folders). Only names that
begin with a dot are passed over in silence.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pixelrnn_jax import progress
from pixelrnn_jax.configs.schema import SPLITS
from pixelrnn_jax.data.image_files import SUFFIXES, crop_and_resize, decode
from pixelrnn_jax.data.own_parts import (
  divide,
  near_part,
  near_parts,
  parts_in_names,
  some,
  source_name,
)
from pixelrnn_jax.errors import InputError

# Image files that are not read.
_OTHER_FORMATS = (
    ".apng", ".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe",
    ".jxl", ".pbm", ".pgm", ".ppm", ".tga", ".tif", ".tiff", ".webp")


class ImageFolder:
  """The image files of a folder.

  Attributes:
    path: the path of the folder.
    shape: (H, W, C) of the images as read.
    treatment: how a file becomes an image, for descriptions.
    parts: names of the files of each part, relative to the folder.
    given: whether the user has divided them.
    notes: see OwnImages.
  """

  kind = "folder"

  def __init__(self, path: str, shape: tuple[int, int, int]):
    """Find the files and check the folder's form.

    Args:
      path: the path of the folder.
      shape: (H, W, C).

    Raises:
      InputError: the folder has none of the forms above.
    """
    self.path, self.shape = path, shape
    self.treatment = f" of any size cropped and resized to {shape[0]}x{shape[1]}"
    self.notes = []
    # The listing has the names as they are. Some systems would find `Train` too.
    names = set(os.listdir(path))
    there = [
        part for part in SPLITS
        if part in names and os.path.isdir(os.path.join(path, part))]
    self.given = "train" in there
    found = _walk(path, without=there if self.given else ())
    folders = [*found.folders, *found.links]
    if self.given:  # deeper folders are no parts, and the others have no images
      folders = [name for name in folders if "/" not in name]
    self._check_names(folders)
    if self.given:
      self.parts = self._given_parts(there, found.images)
    else:
      if parts := parts_in_names(found.images):
        raise InputError(
            f"{source_name(path)}: the names of all images hold a part"
            f" ({', '.join(parts)}), but the images would be divided anew. Move each"
            " part into a sub-folder, 'train', 'test' and, if there is one,"
            " 'validation'; if they are no parts, rename the images.")
      self.parts = divide(found.images, path)
    self._tell(found)

  def _given_parts(self, there: list[str], beside: list[str]) -> dict[str, list[str]]:
    """Return the names of the images below the parts' folders."""
    if "test" not in there:
      raise InputError(
          f"{source_name(self.path)} has a sub-folder 'train' but no 'test'."
          " Add one, or put all images into one folder, to have them divided."
      )
    if beside:
      raise InputError(
          f"{source_name(self.path)} has sub-folders {' and '.join(map(repr, there))},"
          f" and {len(beside):,} images that are in none of them, such as"
          f" {beside[0]!r}. Move those into one of them, or out of the folder."
      )
    parts = {}
    for part in there:
      found = _walk(os.path.join(self.path, part), f"{part}/")
      if not found.images:
        raise InputError(
            f"{source_name(self.path)}: the sub-folder {part!r} holds no"
            f" files that end in {', '.join(SUFFIXES)}."
        )
      parts[part] = found.images
      for name in found.folders:  # may be a class, like CIFAR-100's `train`
        if near_part(name):
          self.notes.append(f"{name!r} is read as images of {part!r}")
      self._tell(found)
    return parts

  def _check_names(self, folders: list[str]) -> None:
    """Raise InputError for a folder that looks like a part and is none."""
    for name, part in near_parts(folders).items():
      if part:
        raise InputError(
            f"{source_name(self.path)}: the sub-folder {name!r} looks like the part"
            f" {part!r}. Parts are sub-folders 'train' and 'test' and, if there is one,"
            " 'validation', directly in the folder and named so. Rename or move it; if"
            " it is no part, give it another name."
        )

  def _tell(self, found: "_Found") -> None:
    """Add notes about files and folders that are not read."""
    for what, names in (
        ("other files", found.others), ("links to folders", found.links)):
      if names:
        self.notes.append(f"{what} are not read: {some(names)}")

  def facts(self) -> list:
    """Return name, size and time of each file, which change when the file does."""
    found = []
    for names in self.parts.values():
      for name in names:
        status = os.stat(os.path.join(self.path, name))
        found.append([name, status.st_size, status.st_mtime_ns])
    return found

  def fill(self, write: Callable[[int, np.ndarray], None]) -> int:
    """Decode all images.

    Args:
      write: called with the number and the pixels, uint8 [H, W, C], of each image.

    Returns:
      The number of images in colour.

    Raises:
      InputError: some images cannot be used.
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
    # Few threads, because each may hold an image of the largest size.
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
          f"{source_name(self.path)}: {len(problems)} of {len(names)} images"
          f" cannot be used. {' '.join(problems[:3])}{more} Mend them or take them out"
          " of the folder."
      )
    return in_colour


def folder_images(path: str) -> list[str]:
  """Return the image files below a folder, relative to it, in order.

  Raises:
    InputError: something cannot be read, or there are image files of other formats.
  """
  return _walk(path).images


@dataclasses.dataclass
class _Found:
  """The content of a folder: relative names, in order, without hidden ones.

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
  """Return the content of a folder and of the folders below it.

  Args:
    folder: the path.
    prefix: put before the names.
    without: folders directly in it that are left out.

  Raises:
    InputError: something cannot be read, or there are image files of other formats.
  """

  def fail(error: OSError):
    raise InputError(
        f"{source_name(folder)}: {error.filename} cannot be read:"
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
              f"{source_name(folder)}: {path} is no regular file, or a link to nothing."
              " Mend it or take it out.")
        found.images.append(relative(name))
      else:
        found.others.append(relative(name))
        if name.lower().endswith(_OTHER_FORMATS):
          wrong.append(relative(name))
  wrong.sort()
  if found.images and wrong:
    raise InputError(
        f"{source_name(folder)} holds {len(wrong):,} image files of other formats"
        f" ({some(wrong)}), which would be left out. Convert them to PNG or JPEG, or"
        " take them out of the folder."
    )
  return _Found(*map(sorted, dataclasses.astuple(found)))
