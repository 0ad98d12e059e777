"""The paper's ImageNet at 32x32 and 64x64, prepared without TensorFlow.

The server of `downsampled_imagenet`, http://image-net.org/small, is gone. Whoever
has its tars puts them into TFDS's directory for what is got by hand. They are read
as a stream, nothing is unpacked, and what is prepared is what TFDS's own builder
would have made of them: the same name, version, keys and so the same order.
"""

import csv
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator

import tensorflow_datasets as tfds

from pixelrnn_jax import progress
from pixelrnn_jax.errors import InputError

NAME = "downsampled_imagenet"
SIZES = ("32x32", "64x64")
VERSION = "2.0.0"
# An image of the tars takes some 10 kB at most.
_MOST_BYTES = 2**20
_PIECE = 2**22


def recorded_sums() -> dict[str, tuple[int, str]]:
  """TFDS's record of the four tars: {name: (bytes, SHA-256)}."""
  path = tfds.core.tfds_path() / "datasets" / NAME / "checksums.tsv"
  rows = csv.reader(io.StringIO(path.read_text()), delimiter="\t")
  return {name: (int(size), digest) for _, size, digest, name in rows}


def tar_names(size: str) -> dict[str, str]:
  """The tars of the splits at a size, `32x32` or `64x64`."""
  return {"train": f"train_{size}.tar", "validation": f"valid_{size}.tar"}


def check_tars(folder: str, size: str) -> None:
  """Raises InputError unless the two tars are there and are the right ones."""
  sums = recorded_sums()
  names = list(tar_names(size).values())
  missing = [n for n in names if not os.path.isfile(os.path.join(folder, n))]
  if missing:
    raise InputError(
        f"tfds:{NAME}/{size} is not prepared, and {' and '.join(missing)} not in"
        f" {folder}. The server of these images (the paper's ImageNet) is gone: get"
        f" {names[0]} ({sums[names[0]][0]:,} bytes, SHA-256 {sums[names[0]][1]}) and"
        f" {names[1]} ({sums[names[1]][0]:,} bytes, SHA-256 {sums[names[1]][1]}) from"
        " someone who has them, put them there and start again: they are prepared"
        " without TensorFlow. If the prepared files are in another directory, pass"
        " --config.data.data_dir=DIR. Or use imagenet_resized, another resize of the"
        " same images that is easier by about 0.26 bits/dim and so not comparable"
        f" with the paper: --config.data.source=tfds:imagenet_resized/{size}"
    )
  for name in names:
    path = os.path.join(folder, name)
    wanted, digest = sums[name]
    found = os.path.getsize(path)
    if found != wanted:
      raise InputError(
          f"{path} has {found:,} bytes, the paper's has {wanted:,}: it is cut short or"
          " another file. Get it again."
      )
    if _sha256(path, found) != digest:
      raise InputError(
          f"{path} is not the file of TFDS's record: its SHA-256 is not {digest}."
          " Get it again."
      )


def make_builder(
    folder: str, size: str, data_dir: str
) -> tfds.core.GeneratorBasedBuilder:
  """The builder that prepares the tars of `folder` in `data_dir`."""
  with tfds.core.registered.skip_registration():  # TFDS has one of that name

    class Builder(tfds.core.GeneratorBasedBuilder):
      """The paper's ImageNet, from its tars."""

      name = NAME
      BUILDER_CONFIGS = [
          tfds.core.BuilderConfig(
              name=s, version=tfds.core.Version(VERSION),
              description=f"Images of {s} pixels from the paper's tars.")
          for s in SIZES
      ]

      def _info(self) -> tfds.core.DatasetInfo:
        side = int(self.builder_config.name.split("x")[0])
        image = tfds.features.Image(shape=(side, side, 3), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"image": image}),
            homepage="http://image-net.org/small/download.php")

      def _split_generators(self, downloads) -> dict[str, Iterator]:
        del downloads  # nothing can be downloaded
        return {
            split: self._generate_examples(os.path.join(folder, name))
            for split, name in tar_names(self.builder_config.name).items()
        }

      def _generate_examples(self, path: str) -> Iterator[tuple[str, dict]]:
        for name, content in _images(path):
          yield name, {"image": io.BytesIO(content)}

  return Builder(config=size, data_dir=data_dir, file_format="array_record")


def _images(path: str) -> Iterator[tuple[str, bytes]]:
  """(name, PNG file) of each image of a tar."""
  with tarfile.open(path, "r|") as archive:
    for member in archive:
      if not member.isfile():
        continue
      if member.size > _MOST_BYTES:
        raise InputError(
            f"{path}: {member.name} has {member.size:,} bytes; no image of it has more"
            f" than {_MOST_BYTES:,}. Get it again."
        )
      yield member.name, archive.extractfile(member).read()


def _sha256(path: str, size: int) -> str:
  digest = hashlib.sha256()
  label = f"checking {os.path.basename(path)}"
  with open(path, "rb") as file, progress.bar(
      label, size, "B", unit_scale=True) as bar:
    while piece := file.read(_PIECE):
      digest.update(piece)
      bar.update(len(piece))
  return digest.hexdigest()
