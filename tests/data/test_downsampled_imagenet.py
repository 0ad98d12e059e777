"""The paper's 32x32 and 64x64 ImageNet, prepared from small tars.

The checksums of these tars replace those that TFDS has recorded.
"""

import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.data import archives, downsampled_imagenet, load_source
from pixelrnn_jax.errors import InputError


def make_config(size, data_dir):
  config = load_config(f"row_lstm_imagenet{size.split('x')[0]}")
  config.data.data_dir = str(data_dir)
  config.data.validation_images = 5
  return config


def as_set(images):
  return {np.asarray(image).tobytes() for image in images}


@pytest.mark.parametrize("size", ["32x32", "64x64"])
def test_tars_are_prepared_and_read(tars, tmp_path, size):
  folder, parts = tars(size)
  config = make_config(size, tmp_path)
  train, validation, test = (
      load_source(config, split) for split in ("train", "validation", "test"))
  assert (len(train), len(validation), len(test)) == (15, 5, 10)
  assert as_set(train) | as_set(validation) == as_set(parts["train"])
  assert as_set(test) == as_set(parts["validation"])
  title = f"tfds downsampled_imagenet/{size}:2.0.0"
  assert train.description == f"{title}, train[:15]"
  assert test.description == f"{title}, validation"
  for path in folder.iterdir():  # the tars are not needed any more
    path.unlink()
  assert len(load_source(config, "test")) == 10


def test_the_record_is_that_of_tfds(tmp_path):
  builder = tfds.builder("downsampled_imagenet/32x32", data_dir=tmp_path)
  train, valid = archives.recorded(
      builder, downsampled_imagenet.archive_names(builder))
  assert (train.name, train.size, train.sha256) == (
      "train_32x32.tar", 4113018880,
      "244a323d48f8d72f65ad8b54658c01fed68d2d7bdc77ccb43da58c11e94224e5")
  assert valid.name == "valid_32x32.tar"


def cut_short(path: pathlib.Path):
  path.write_bytes(path.read_bytes()[:-512])


def change(path: pathlib.Path):
  content = bytearray(path.read_bytes())
  content[2000] ^= 1
  path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage, message", [
    (pathlib.Path.unlink, r"valid_32x32.tar not in .*manual.*server .* is gone.*"
     r"SHA-256 [0-9a-f]{64}.*no TensorFlow.*imagenet_resized/32x32"),
    (cut_short, "valid_32x32.tar has .* bytes, and TFDS's record says .*Get it again"),
    (change, "valid_32x32.tar is not the file of TFDS's record: its SHA-256"),
])
def test_other_files_are_refused(tars, tmp_path, damage, message):
  folder, _ = tars("32x32")
  damage(folder / "valid_32x32.tar")
  with pytest.raises(InputError, match=message):
    load_source(make_config("32x32", tmp_path), "train")
  assert not (tmp_path / "downsampled_imagenet").exists()


def test_a_huge_member_is_not_read(tars, tmp_path):
  tars("32x32", extra=[("big.png", bytes(2**20 + 1))])
  with pytest.raises(InputError, match="big.png has 1,048,577 bytes"):
    load_source(make_config("32x32", tmp_path), "train")


def test_an_image_that_is_none(tars, tmp_path):
  tars("32x32", extra=[("x.png", b"no image")])
  with pytest.raises(InputError, match="Image .* of tfds.*cannot be read: .*again"):
    load_source(make_config("32x32", tmp_path), "test")  # small, so read at once
