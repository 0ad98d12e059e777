"""The paper's ImageNet at 32x32 and 64x64, prepared without TensorFlow.

The server of `downsampled_imagenet`, http://image-net.org/small, is gone. A user who
has its tars puts them into TFDS's directory for files that users get by hand. They are
read as a stream, and nothing is unpacked. The prepared data set equals that of TFDS's
own builder: it has the same name, version and keys, and so the same order.
"""

import io
import tarfile
from collections.abc import Iterator
from typing import IO, Any, cast

import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

from pixelrnn_jax.errors import InputError

NAMES = ("downsampled_imagenet",)
GONE = True  # the server of the archives
SIZES = ("32x32", "64x64")
VERSION = "2.0.0"
# An image of the tars has about 10 kB at most.
_MOST_BYTES = 2**20


def archive_names(theirs: Any) -> list[str]:
  """Return the tars of TFDS's builder and its size."""
  return list(tar_names(theirs.builder_config.name).values())


def advice(theirs: Any) -> str:
  """Return a sentence for a user who cannot get the tars."""
  return (
      "Or use imagenet_resized, another resize of the same images that is easier by"
      " about 0.26 bits/dim and so not comparable with the paper:"
      f" --config.data.source=tfds:imagenet_resized/{theirs.builder_config.name}")


def tar_names(size: str) -> dict[str, str]:
  """Return the tars of the splits at a size, `32x32` or `64x64`."""
  return {"train": f"train_{size}.tar", "validation": f"valid_{size}.tar"}


def make_builder(theirs: Any, folder: Any) -> Any:
  """Return the builder that prepares the tars of `folder` as `theirs` would.

  Args:
    theirs: TFDS's own builder, a `tfds.core.GeneratorBasedBuilder`.
    folder: the directory of the tars.

  Returns:
    A `tfds.core.GeneratorBasedBuilder`.
  """
  with registered.skip_registration():  # TFDS has one of that name

    class Builder(tfds.core.GeneratorBasedBuilder):
      """The paper's ImageNet, from its tars."""

      name = theirs.name
      BUILDER_CONFIGS = [
          tfds.core.BuilderConfig(
              name=s, version=tfds.core.Version(VERSION),
              description=f"Images of {s} pixels from the paper's tars.")
          for s in SIZES
      ]

      def _info(self) -> tfds.core.DatasetInfo:
        side = int(theirs.builder_config.name.split("x")[0])
        image = tfds.features.Image(shape=(side, side, 3), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"image": image}),
            homepage="http://image-net.org/small/download.php")

      def _split_generators(self, downloads) -> dict[str, Iterator]:
        del downloads  # nothing can be downloaded
        return {
            split: self._generate_examples(str(folder / name))
            for split, name in tar_names(theirs.builder_config.name).items()
        }

      def _generate_examples(self, path: str) -> Iterator[tuple[str, dict]]:
        for name, content in _images(path):
          yield name, {"image": io.BytesIO(content)}

  return Builder(
      config=theirs.builder_config.name, data_dir=theirs.data_dir_root,
      file_format="array_record")


def _images(path: str) -> Iterator[tuple[str, bytes]]:
  """Yield (name, PNG file) of each image of a tar."""
  with tarfile.open(path, "r|") as archive:
    for member in archive:
      if not member.isfile():
        continue
      if member.size > _MOST_BYTES:
        raise InputError(
            f"{path}: {member.name} has {member.size:,} bytes; no image of it has more"
            f" than {_MOST_BYTES:,}. Get it again."
        )
      with cast(IO[bytes], archive.extractfile(member)) as content:
        yield member.name, content.read()
