"""CIFAR-10 and CIFAR-100, prepared without TensorFlow.

An archive has files of records. A record has the labels, a byte each, then the image as
3 x 32 x 32 bytes. The prepared data set equals that of TFDS's own builder: it has the
same name, version, features and keys, and so the same order.
"""

import itertools
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np
from PIL import Image
from tensorflow_datasets.core import registered

from pixelrnn_jax.errors import InputError

NAMES = ("cifar10", "cifar100")
GONE = False  # the server of the archives

_SHAPE = (3, 32, 32)
# The largest file of the archives has 154 MB.
_MOST_BYTES = 2**28

# For each data set: the archive, the folder in it, the files of the splits, and for
# each of a record's labels its feature and the file with its names.
_ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}
_FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
_SPLITS = {
    "cifar10": {
        "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
        "test": ["test_batch.bin"],
    },
    "cifar100": {"train": ["train.bin"], "test": ["test.bin"]},
}
_LABELS = {
    "cifar10": {"label": "batches.meta.txt"},
    "cifar100": {
        "coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
}


def archive_names(theirs: Any) -> list[str]:
  """Return the archives of TFDS's builder."""
  return [_ARCHIVES[theirs.name]]


def advice(theirs: Any) -> str:
  """Return a sentence for a user who cannot get the archive: there is none."""
  del theirs
  return ""


def make_builder(theirs: Any, folder: Any) -> Any:
  """Return the builder that prepares the archive of `folder` as `theirs` would.

  Args:
    theirs: TFDS's own builder, a `tfds.core.GeneratorBasedBuilder`.
    folder: the directory of the archive.

  Returns:
    A `tfds.core.GeneratorBasedBuilder`.
  """
  path = str(folder / _ARCHIVES[theirs.name])
  splits, labels = _SPLITS[theirs.name], _LABELS[theirs.name]
  their_class: Any = type(theirs)
  with registered.skip_registration():  # TFDS has one of that name

    class Builder(their_class):
      """TFDS's own builder with a reader of ours."""

      name = theirs.name

      def _split_generators(self, downloads) -> dict[str, Iterator]:
        del downloads  # the archive exists already
        wanted = [*labels.values(), *itertools.chain(*splits.values())]
        contents = _read(path, _FOLDERS[self.name], wanted)
        for label, file in labels.items():
          self.info.features[label].names = _label_names(
              path, file, contents[file], self.info.features[label].num_classes)
        return {
            split: self._generate_examples(
                split, {name: contents[name] for name in names})
            for split, names in splits.items()}

      def _generate_examples(
          self, split: str, contents: dict[str, bytes]
      ) -> Iterator[tuple[int, dict]]:
        index = 0
        for file, content in contents.items():
          classes = [self.info.features[label].num_classes for label in labels]
          for values, image in _records(path, file, content, classes):
            yield index, {
                "id": f"{split}_{index:05d}",
                "image": Image.fromarray(image),
                **dict(zip(labels, values, strict=True)),
            }
            index += 1

  return Builder(
      version=str(theirs.version), data_dir=theirs.data_dir_root,
      file_format="array_record")


def _read(path: str, folder: str, wanted: list[str]) -> dict[str, bytes]:
  """Return the content of each wanted file in `folder` of a tar.gz.

  The archive is read as a stream, and nothing is unpacked.

  Raises:
    InputError: a file is missing, is no plain file or is too large, or the archive is
      damaged.
  """
  contents = {}
  try:
    with tarfile.open(path, "r|gz") as archive:
      for member in archive:
        name = member.name.removeprefix("./").removeprefix(f"{folder}/")
        if name not in wanted or not member.isfile():
          continue
        if member.size > _MOST_BYTES:
          raise InputError(
              f"{path}: {member.name} has {member.size:,} bytes; no file of it has more"
              f" than {_MOST_BYTES:,}. Get it again."
          )
        with cast(IO[bytes], archive.extractfile(member)) as content:
          contents[name] = content.read()
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise InputError(f"{path} cannot be read ({error}). Get it again.") from error
  missing = [name for name in wanted if name not in contents]
  if missing:
    raise InputError(
        f"{path} has no {' and no '.join(f'{folder}/{name}' for name in missing)}. Get"
        " it again."
    )
  return contents


def _label_names(path: str, file: str, content: bytes, count: int) -> list[str]:
  """Return the names of `count` labels, one a line."""
  names = [name for name in content.decode(errors="replace").split("\n") if name]
  if len(set(names)) != count or len(names) != count:
    raise InputError(
        f"{path}: {file} has {len(names)} names of labels and should have {count}"
        " different ones. Get it again."
    )
  return names


def _records(
    path: str, file: str, content: bytes, classes: list[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yield (labels, image) of each record, int64 [L] and uint8 [32, 32, 3].

  Args:
    path: the path of the archive, for messages.
    file: the file's name.
    content: the content of the file.
    classes: number of classes of each label.

  Raises:
    InputError: the file ends within a record, or has a label that does not exist.
  """
  size = len(classes) + int(np.prod(_SHAPE))
  if not content or len(content) % size:
    raise InputError(
        f"{path}: {file} has {len(content):,} bytes, which is no whole number of"
        f" records of {size:,}. Get it again."
    )
  records = np.frombuffer(content, np.uint8).reshape(-1, size)
  labels = records[:, :len(classes)].astype(np.int64)
  if (labels >= classes).any():
    raise InputError(
        f"{path}: {file} has labels up to {labels.max(axis=0).tolist()}, and there are"
        f" only {classes}. Get it again."
    )
  images = records[:, len(classes):].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)
  yield from zip(labels, images, strict=True)
