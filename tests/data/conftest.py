"""Tiny TFDS data sets, really prepared and read from disk."""

import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image


def make_builder(
    name: str, parts: dict[str, np.ndarray], register: bool = False,
    feature: str = "image",
) -> type[tfds.core.GeneratorBasedBuilder]:
  """A builder of uint8 images [N, H, W, C] by split that needs no TensorFlow."""
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
  """The function that makes a builder."""
  return make_builder


@pytest.fixture
def prepare(tmp_path):
  """prepare(name, parts) prepares a tiny data set; returns the data directory."""

  def run(name: str, parts: dict[str, np.ndarray], **kwargs) -> pathlib.Path:
    builder = make_builder(name, parts, **kwargs)
    builder(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    return tmp_path

  return run
