"""`imagenet_resized` at 8x8 to 64x64, prepared without TensorFlow.

These are the images of Chrabaszcz et al. (2017), another resize of ImageNet than the
paper's `downsampled_imagenet`. An archive is a zip of `.npz` files with arrays `data`,
uint8 [N, 3 S S], and `labels`, 1 to 1000, [N]. They are read image by image. The
prepared data set equals that of TFDS's own builder: it has the same name, version,
features and keys, and so the same order.
"""

import contextlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import Image
from tensorflow_datasets.core import registered

from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError

NAMES = ("imagenet_resized",)
GONE = False  # the server of the archives

# The largest .npz has about 1.6 GB, and all images are in ten files.
_MOST_BYTES = 2**31
_MOST_IMAGES = 2**18
# Exceptions of zipfile and NumPy for files that are damaged, encrypted or of another
# kind.
_DAMAGE = (
    zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error)


def _archives(theirs: Any) -> dict[str, list[str]]:
  """Return the archives of each split."""
  size = _side(theirs)
  train = [f"Imagenet{size}_train_npz.zip"]
  if size == 64:
    train = [f"Imagenet64_train_part{i}_npz.zip" for i in (1, 2)]
  return {"train": train, "validation": [f"Imagenet{size}_val_npz.zip"]}


def _side(theirs: Any) -> int:
  """Return S of images of S x S pixels."""
  return int(theirs.builder_config.name.split("x")[0])


def archive_names(theirs: Any) -> list[str]:
  """Return the archives of TFDS's builder and its size."""
  return [name for names in _archives(theirs).values() for name in names]


def advice(theirs: Any) -> str:
  """Return a sentence for a user who cannot get the archives: there is none."""
  del theirs
  return ""


def make_builder(theirs: Any, folder: Any) -> Any:
  """Return the builder that prepares the archives of `folder` as `theirs` would.

  Args:
    theirs: TFDS's own builder, a `tfds.core.GeneratorBasedBuilder`.
    folder: the directory of the archives.

  Returns:
    A `tfds.core.GeneratorBasedBuilder`.
  """
  side = _side(theirs)
  their_class: Any = type(theirs)
  with registered.skip_registration():  # TFDS has one of that name

    class Builder(their_class):
      """TFDS's own builder with a reader of ours."""

      name = theirs.name
      pkg_dir_path = type(theirs).pkg_dir_path  # has the description

      def _split_generators(self, downloads) -> dict[str, Iterator]:
        del downloads  # the archives exist already
        return {
            split: self._generate_examples([str(folder / name) for name in names])
            for split, names in _archives(theirs).items()}

      def _generate_examples(self, paths: list[str]) -> Iterator[tuple[str, dict]]:
        for path in paths:
          for key, image, label in _images(path, side):
            yield key, {"image": Image.fromarray(image), "label": label}

  return Builder(
      config=theirs.builder_config.name, version=str(theirs.version),
      data_dir=theirs.data_dir_root, file_format="array_record")


def _images(path: str, side: int) -> Iterator[tuple[str, np.ndarray, int]]:
  """Yield (key, image, label) of an archive, uint8 [S, S, 3] and 0 to 999.

  Raises:
    InputError: the archive is damaged, or is no zip of such `.npz` files.
  """
  with contextlib.ExitStack() as stack:
    try:
      archive = stack.enter_context(zipfile.ZipFile(path))
    except _DAMAGE as error:
      raise InputError(f"{path} cannot be read ({error}). Get it again.") from error
    for member in archive.infolist():
      if member.is_dir() or not member.file_size:
        continue
      where = f"{path}: {member.filename}"
      if member.file_size > _MOST_BYTES:
        raise InputError(
            f"{where} has {member.file_size:,} bytes; no file of it has more than"
            f" {_MOST_BYTES:,}. Get it again."
        )
      try:
        # Random access needs a file. It is beside the archive, because /tmp may be
        # small. It has no name, so that it goes when the process does.
        with tempfile.TemporaryFile(dir=os.path.dirname(path)) as file:
          with archive.open(member) as packed:
            shutil.copyfileobj(packed, file)
          with zipfile.ZipFile(file) as arrays:
            for index, (image, label) in enumerate(_records(where, arrays, side)):
              yield os.path.normpath(member.filename) + str(index), image, label
      except InputError:
        raise
      except KeyError as error:
        raise InputError(f"{where}: {error.args[0]}. Get it again.") from error
      except _DAMAGE as error:
        if files.disk_fault(error):
          raise
        raise InputError(f"{where} cannot be read ({error}). Get it again.") from error


def _records(
    where: str, arrays: zipfile.ZipFile, side: int
) -> Iterator[tuple[np.ndarray, int]]:
  """Yield (image, label) of an `.npz`, uint8 [S, S, 3] and 0 to 999."""
  with _array(where, arrays, "labels") as (file, shape, dtype):
    good = len(shape) == 1 and dtype.kind in "iu" and 0 <= shape[0] <= _MOST_IMAGES
    if not good:
      raise InputError(
          f"{where} has labels {dtype} {list(shape)}, and integers [N] are wanted, N at"
          f" most {_MOST_IMAGES:,}. Get it again."
      )
    labels = np.frombuffer(_exactly(file, shape[0] * dtype.itemsize), dtype)
  if labels.size and not (labels.min() >= 1 and labels.max() <= 1000):
    raise InputError(
        f"{where} has labels from {labels.min()} to {labels.max()}, and 1 to 1000 are"
        " wanted. Get it again."
    )
  values = 3 * side * side
  with _array(where, arrays, "data") as (file, shape, dtype):
    if (shape, dtype) != ((labels.size, values), np.uint8):
      raise InputError(
          f"{where} has data {dtype} {list(shape)}, and uint8 [{labels.size}, {values}]"
          " is wanted. Get it again."
      )
    for label in labels:
      image = np.frombuffer(_exactly(file, values), np.uint8)
      yield image.reshape(3, side, side).transpose(1, 2, 0), int(label) - 1


@contextlib.contextmanager
def _array(
    where: str, arrays: zipfile.ZipFile, name: str
) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
  """Open an array of an `.npz`, and yield the file at its values, shape and dtype.

  An array of objects is refused, so nothing of the file is run. A header alone takes no
  memory.
  """
  formats = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
  }
  with arrays.open(f"{name}.npy") as file:
    version = np.lib.format.read_magic(file)
    if version not in formats:
      raise InputError(f"{where}: {name} is in an unknown format. Get it again.")
    shape, fortran, dtype = formats[version](file)
    if fortran and len(shape) > 1 or dtype.hasobject:
      raise InputError(
          f"{where}: {name} is {dtype}{', column by column' if fortran else ''}; plain"
          " numbers, row by row, are wanted. Get it again."
      )
    yield file, shape, dtype


def _exactly(file: IO[bytes], size: int) -> bytes:
  """Return the next `size` bytes.

  Raises:
    EOFError: there are fewer.
  """
  content = file.read(size)
  if len(content) != size:
    raise EOFError("it ends too early")
  return content
