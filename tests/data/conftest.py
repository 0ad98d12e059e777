"""Fixtures that write tiny TFDS data sets and tars of ImageNet to disk."""

import io
import pathlib
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from helpers import archives
from pixelrnn_jax.data import downsampled_imagenet


def make_builder(
    name: str, parts: dict[str, np.ndarray], register: bool = False,
    feature: str = "image",
) -> type[tfds.core.GeneratorBasedBuilder]:
  """Return a TFDS builder of images, which needs no TensorFlow.

  Its splits are `parts`: uint8 images [N, H, W, C] by the name of the split.
  """
  shape = next(iter(parts.values())).shape[1:]

  def info(self):
    return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict({
            feature: tfds.features.Image(shape=shape),
            "index": tfds.features.Scalar(np.int64),
        }),
    )

  def generate_examples(self, images):
    for index, image in enumerate(images):
      grey = image.shape[-1] == 1
      picture = Image.fromarray(image[..., 0] if grey else image)
      yield index, {feature: picture, "index": index}

  def split_generators(self, downloads):
    del downloads
    return {part: self._generate_examples(images) for part, images in parts.items()}

  body = {
      "VERSION": tfds.core.Version("1.0.0"),
      "name": name,
      "_info": info,
      "_split_generators": split_generators,
      "_generate_examples": generate_examples,
      "__module__": __name__,
  }
  if register:
    return type(name, (tfds.core.GeneratorBasedBuilder,), body)
  with tfds.core.registered.skip_registration():
    return type(name, (tfds.core.GeneratorBasedBuilder,), body)


@pytest.fixture
def tiny_builder():
  """Return `make_builder`."""
  return make_builder


@pytest.fixture
def prepare(tmp_path):
  """Return a function that prepares a tiny data set and returns its directory."""

  def run(name: str, parts: dict[str, np.ndarray], **kwargs) -> pathlib.Path:
    builder = make_builder(name, parts, **kwargs)
    builder(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    return tmp_path

  return run


def png(image):
  content = io.BytesIO()
  Image.fromarray(image).save(content, "PNG")
  return content.getvalue()


def write_tar(path, images, extra=()):
  with tarfile.open(path, "w") as archive:
    folder = tarfile.TarInfo(path.stem)
    folder.type = tarfile.DIRTYPE
    archive.addfile(folder)
    files = [(f"{path.stem}/{i:07}.png", png(x)) for i, x in enumerate(images, 1)]
    for name, content in [*files, *extra]:
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path, monkeypatch):
  """Return a function that writes two tars with the checksums that TFDS expects.

  The function returns the folder of the tars and the images of each split.
  """

  def write(size, extra=()):
    folder = tmp_path / "downloads" / "manual"
    folder.mkdir(parents=True)
    side = int(size.split("x")[0])
    parts = {}
    for seed, (split, name) in enumerate(downsampled_imagenet.tar_names(size).items()):
      parts[split] = np.random.default_rng(seed).integers(
          0, 256, (20 - 10 * seed, side, side, 3), np.uint8)
      write_tar(folder / name, parts[split], extra)
    archives.record(monkeypatch, "downsampled_imagenet", folder)
    return folder, parts

  return write
