"""Data sets of TFDS: tiny ones are written to disk and read, without a network."""

import json
import pickle
import socket
import time

import numpy as np
import pytest

from pixelrnn_jax.configs.schema import Config, DataConfig, ModelConfig
from pixelrnn_jax.data import (
  archives,
  binarize,
  load_source,
  packaged_mnist,
  sources,
  tfds_images,
)
from pixelrnn_jax.errors import InputError


def random_images(seed, count, shape):
  return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


RGB = {"train": random_images(0, 20, (4, 5, 3)), "test": random_images(1, 7, (4, 5, 3))}
GREY = {
    "train": random_images(2, 12, (6, 6, 1)), "test": random_images(3, 6, (6, 6, 1))}


def make_config(name, data_dir, shape=(4, 5, 3), levels=256, binarization="none"):
  config = Config(
      name="tiny",
      model=ModelConfig(kind="row_lstm", image_shape=shape, levels=levels, hidden=4),
      data=DataConfig(
          source=f"tfds:{name}", data_dir=str(data_dir), binarization=binarization,
          validation_images=5),
  )
  config.validate()
  return config


def as_set(images):
  """Return the images as a set of bytes, because TFDS stores them in its own order."""
  found = {np.asarray(image).tobytes() for image in images}
  assert len(found) == len(images)
  return found


@pytest.mark.parametrize("in_memory", [True, False])
def test_splits(prepare, monkeypatch, in_memory):
  if not in_memory:
    monkeypatch.setattr(sources, "_MEMORY_BYTES", 0)
  config = make_config("tiny_rgb", prepare("tiny_rgb", RGB))
  train, validation, test = (
      load_source(config, split) for split in ("train", "validation", "test"))
  assert train.in_memory == in_memory
  assert (len(train), len(validation), len(test)) == (15, 5, 7)
  assert train[0].shape == (4, 5, 3) and train[0].dtype == np.uint8
  assert as_set(train) | as_set(validation) == as_set(RGB["train"])
  assert as_set(test) == as_set(RGB["test"])
  assert train.description == "tfds tiny_rgb:1.0.0, train[:15]"
  assert validation.description == "tfds tiny_rgb:1.0.0, train[15:]"
  assert test.description == "tfds tiny_rgb:1.0.0, test"
  config.data.max_images = 3
  first = load_source(config, "validation")
  np.testing.assert_array_equal(list(first), [validation[i] for i in range(3)])
  # Grain's workers get a pickled copy.
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(train))[14], train[14])


@pytest.mark.parametrize("file_format", ["array_record", "parquet"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_formats_that_ignore_ranges(
    tiny_builder, tmp_path, monkeypatch, file_format, in_memory):
  """A split has its own images only, also where TFDS ignores ranges.

  TFDS's parquet source gives all of `train` for `train[:15]`.
  """
  if not in_memory:
    monkeypatch.setattr(sources, "_MEMORY_BYTES", 0)
  builder = tiny_builder("tiny_format", RGB)
  builder(data_dir=tmp_path, file_format=file_format).download_and_prepare()
  config = make_config("tiny_format", tmp_path)
  train, validation, test = (
      load_source(config, split) for split in ("train", "validation", "test"))
  assert (len(train), len(validation), len(test)) == (15, 5, 7)
  assert as_set(train) | as_set(validation) == as_set(RGB["train"])
  assert as_set(test) == as_set(RGB["test"])
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(validation))[4],
                                validation[4])


@pytest.mark.parametrize("file_format, there, message", [
    ("parquet", 19, "says .* 'train' has 19 images, .* have 20"),
    ("parquet", 25, "says .* 'train' has 25 images, .* have 20"),
    ("array_record", 19, "says .* 'train' has 19 images, .* have 20"),
    ("array_record", 25, "says .* 'train' has 25 images, .* have 20"),
])
def test_other_numbers_than_it_says(
    tiny_builder, tmp_path, file_format, there, message):
  builder = tiny_builder("tiny_rgb", RGB)
  builder(data_dir=tmp_path, file_format=file_format).download_and_prepare()
  path = tmp_path / "tiny_rgb" / "1.0.0" / "dataset_info.json"
  info = json.loads(path.read_text())
  split, = (split for split in info["splits"] if split["name"] == "train")
  split["shardLengths"] = [str(there)]
  path.write_text(json.dumps(info))
  with pytest.raises(InputError, match=message):
    load_source(make_config("tiny_rgb", tmp_path), "validation")


@pytest.mark.parametrize("file_format", ["array_record", "parquet"])
def test_damaged_files(tiny_builder, tmp_path, file_format):
  """A damaged file is reported as damaged, and not as one of another format.

  The message names no Python object.
  """
  builder = tiny_builder("tiny_rgb", RGB)
  builder(data_dir=tmp_path, file_format=file_format).download_and_prepare()
  train, = (tmp_path / "tiny_rgb" / "1.0.0").glob("*-train.*")
  whole = train.read_bytes()
  png = whole.index(b"PNG")
  for content in (b"", whole[:len(whole) // 2], whole[:png] + whole[png + 9:]):
    train.write_bytes(content)
    with pytest.raises(InputError, match="cannot be (opened|read).* Delete") as error:
      load_source(make_config("tiny_rgb", tmp_path), "train")
    assert "object at 0x" not in str(error.value)


def test_every_source_is_held_to_its_number(prepare, monkeypatch):
  """A source that gives another number of images than it should is refused."""
  config = make_config("tiny_rgb", prepare("tiny_rgb", RGB))
  original = tfds_images.TfdsImages.open
  for wrong in ((0, 14), (0, 16)):
    monkeypatch.setattr(
        tfds_images.TfdsImages, "open",
        lambda self, part, start, stop, wrong=wrong: original(self, part, *wrong))
    with pytest.raises(InputError, match="images 0 to 15 of its part 'train' were"):
      load_source(config, "train")


def test_splits_that_are_not_used_are_told(prepare):
  parts = {**RGB, "validation": RGB["test"], "extra": RGB["test"]}
  source = load_source(make_config("tiny_three", prepare("tiny_three", parts)), "train")
  note, = source.notes
  assert "not used" in note and "'extra'" in note and "'validation'" in note
  source = load_source(make_config("tiny_rgb", prepare("tiny_rgb", RGB)), "train")
  assert source.notes == ()


def test_nothing_is_prepared_where_a_runs_config_says(tiny_builder, tmp_path):
  tiny_builder("tiny_strangers", RGB, register=True)
  config = make_config("tiny_strangers", tmp_path / "theirs")
  with pytest.raises(InputError, match="not in .*theirs.*--config.data.data_dir=DIR"):
    load_source(config, "test", writes=False)
  assert not (tmp_path / "theirs").exists()


def test_validation_is_the_test_split_where_there_is_no_test(prepare):
  data_dir = prepare("tiny_valid", {"train": RGB["train"], "validation": RGB["test"]})
  source = load_source(make_config("tiny_valid", data_dir), "test")
  assert as_set(source) == as_set(RGB["test"])
  assert source.description == "tfds tiny_valid:1.0.0, validation"


def test_no_test_split(prepare):
  data_dir = prepare("tiny_train", {"train": RGB["train"]})
  with pytest.raises(InputError, match="splits train; .*'test' or 'validation'"):
    load_source(make_config("tiny_train", data_dir), "train")


def test_prepared_on_first_use(tiny_builder, tmp_path):
  tiny_builder("tiny_first_use", RGB, register=True)
  config = make_config("tiny_first_use", tmp_path)
  assert as_set(load_source(config, "test")) == as_set(RGB["test"])
  files = list((tmp_path / "tiny_first_use" / "1.0.0").glob("*.array_record*"))
  assert len(files) == 2


@pytest.mark.parametrize("shape", [(4, 4, 3), (5, 4, 3), (4, 5, 1)])
def test_wrong_shape(prepare, shape):
  config = make_config("tiny_rgb", prepare("tiny_rgb", RGB), shape)
  with pytest.raises(InputError, match=r"\(4, 5, 3\).*model.image_shape is"):
    load_source(config, "train")


def test_images_of_unknown_shape_are_checked_when_read(prepare):
  data_dir = prepare("tiny_rgb", RGB)
  path = data_dir / "tiny_rgb" / "1.0.0" / "features.json"
  features = json.loads(path.read_text())
  shape = features["featuresDict"]["features"]["image"]["image"]["shape"]
  shape["dimensions"] = ["-1", "-1", "3"]
  path.write_text(json.dumps(features))
  assert len(load_source(make_config("tiny_rgb", data_dir), "test")) == 7
  with pytest.raises(InputError, match=r"\(4, 5, 3\).*is \(5, 5, 3\)"):
    load_source(make_config("tiny_rgb", data_dir, (5, 5, 3)), "test")


def test_no_image(prepare):
  data_dir = prepare("tiny_photo", RGB, feature="photo")
  message = failure(make_config("tiny_photo", data_dir))
  assert "no feature 'image' of uint8" in message and "'photo': Image" in message


def test_other_file_format(prepare):
  data_dir = prepare("tiny_rgb", RGB)
  path = data_dir / "tiny_rgb" / "1.0.0" / "dataset_info.json"
  path.write_text(path.read_text().replace("array_record", "tfrecord"))
  with pytest.raises(InputError, match="tfds convert_format --out_file_format=array"):
    load_source(make_config("tiny_rgb", data_dir), "train")


def test_missing_file(prepare):
  data_dir = prepare("tiny_rgb", RGB)
  for path in data_dir.glob("tiny_rgb/1.0.0/*test.array_record*"):
    path.unlink()
  config = make_config("tiny_rgb", data_dir)
  assert len(load_source(config, "train")) == 15
  with pytest.raises(InputError, match="cannot be opened: .*prepare it again"):
    load_source(config, "test")


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("rule, words", [
    ("static", "static binarisation"),
    ("threshold", "binarised at 128"),
    ("dynamic", "dynamic binarisation (drawn at each use in training)"),
])
def test_binarisation(prepare, monkeypatch, rule, words, in_memory):
  if not in_memory:
    monkeypatch.setattr(sources, "_MEMORY_BYTES", 0)
  data_dir = prepare("tiny_grey", GREY)
  config = make_config("tiny_grey", data_dir, (6, 6, 1), 2, rule)
  config.data.validation_images = 2
  source = load_source(config, "train")
  assert source.description == f"tfds tiny_grey:1.0.0, {words}, train[:10]"
  fixed = binarize.threshold if rule == "threshold" else binarize.static
  assert as_set(source) <= as_set([fixed(image) for image in GREY["train"]])
  assert (source.intensities is not None) == (rule == "dynamic")
  if rule == "dynamic":
    for i in range(10):
      np.testing.assert_array_equal(source[i], binarize.static(source.intensities[i]))
    for split in ("validation", "test"):
      evaluated = load_source(config, split)
      assert evaluated.intensities is None
      assert "one fixed draw (training: dynamic binarisation)" in evaluated.description


def test_grey_levels(prepare):
  data_dir = prepare("tiny_grey", GREY)
  source = load_source(make_config("tiny_grey", data_dir, (6, 6, 1), 4), "test")
  assert as_set(source) == as_set(GREY["test"] // 64)


def test_binary_data_is_used_as_it_is(prepare):
  parts = {part: (images > 127).astype(np.uint8) for part, images in GREY.items()}
  data_dir = prepare("tiny_bits", parts)
  config = make_config("tiny_bits", data_dir, (6, 6, 1), 2, "static")
  source = load_source(config, "test")
  assert as_set(source) == as_set(parts["test"])
  assert source.description == "tfds tiny_bits:1.0.0, binary as published, test"


def test_same_bits_as_the_packaged_file(prepare, tmp_path, monkeypatch):
  raw = {part: random_images(5, 9, (28, 28, 1)) for part in ("train", "test")}
  config = make_config("tiny_digits", prepare("tiny_digits", raw), (28, 28, 1), 2,
                       "static")
  from_tfds = load_source(config, "test")
  bits = [binarize.static(image).reshape(-1) for image in raw["test"][..., 0]]
  np.savez(tmp_path / "packaged.npz", test_images=np.packbits(bits, axis=1))
  monkeypatch.setattr(packaged_mnist, "_FILE", tmp_path / "packaged.npz")
  monkeypatch.setattr(packaged_mnist.PackagedMnist, "sizes", {"train": 9, "test": 9})
  config.data.source = "packaged_mnist"
  from_file = load_source(config, "test")
  assert as_set(from_file) == as_set(from_tfds)


def failure(config):
  """Return the error message, which must be one line and come within seconds."""
  start = time.monotonic()
  with pytest.raises(InputError) as error:
    load_source(config, "train")
  assert time.monotonic() - start < 10
  assert "\n" not in str(error.value)
  return str(error.value)


def test_missing_without_tensorflow(tmp_path, monkeypatch):
  monkeypatch.setattr(tfds_images, "_has_tensorflow", lambda: False)
  message = failure(make_config("svhn_cropped", tmp_path, (32, 32, 3)))
  assert f"tfds:svhn_cropped is not in {tmp_path}" in message
  assert "`pip install tensorflow-cpu`" in message
  assert (
      f"`tfds build --file_format=array_record --data_dir={tmp_path} svhn_cropped`"
      in message)
  assert "--config.data.data_dir=DIR" in message
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [32, 64])
def test_missing_downsampled_imagenet(tmp_path, size):
  name = f"downsampled_imagenet/{size}x{size}"
  message = failure(make_config(name, tmp_path, (size, size, 3)))
  assert "server of these images is gone" in message
  assert f"train_{size}x{size}.tar and valid_{size}x{size}.tar not in" in message
  assert f"{tmp_path}/downloads/manual" in message
  assert "no TensorFlow is needed" in message and "0.26 bits/dim" in message
  assert f"--config.data.source=tfds:imagenet_resized/{size}x{size}" in message
  assert not list(tmp_path.iterdir())


def test_offline(tmp_path, monkeypatch):
  """Without a network, loading fails at once instead of retrying for minutes.

  The test makes the package believe that TensorFlow is installed, so that TFDS would
  prepare the data set.
  """
  asked = []

  def refuse(server, timeout):
    asked.append(server)
    raise OSError("no network")

  monkeypatch.setattr(tfds_images, "_has_tensorflow", lambda: True)
  monkeypatch.setattr(socket, "create_connection", refuse)
  monkeypatch.setattr(archives.urllib.request, "getproxies", dict)
  message = failure(make_config("svhn_cropped", tmp_path, (32, 32, 3)))
  assert "server does not answer" in message and "tfds build" in message
  assert ("ufldl.stanford.edu", 80) in asked


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, "_PROBE_SECONDS", 0.2)
  def silence(server, timeout):
    time.sleep(2)
    raise OSError("timed out")

  monkeypatch.setattr(socket, "create_connection", silence)
  start = time.monotonic()
  assert not archives.any_answers(["https://example.org/file"])
  assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("name, words", [
    ("no_such_images", "knows no such data set.*tensorflow.org/datasets/catalog"),
    ("mnist/no_config", "no_config not found"),
    ("mnist:1.2.3", "1.2.3"),
    ("two words", "NAME"),
])
def test_bad_names(tmp_path, name, words):
  message = failure(make_config(name, tmp_path))
  assert f"data.source='tfds:{name}'" in message
  with pytest.raises(InputError, match=words):
    raise InputError(message)


def test_a_failing_builder(tiny_builder, tmp_path):
  class TinyBroken(tiny_builder("tiny_base", RGB)):
    name = "tiny_broken"

    def _generate_examples(self, images):
      raise RuntimeError("the disk is on fire")

  message = failure(make_config("tiny_broken", tmp_path))
  assert "tfds:tiny_broken could not be prepared: RuntimeError" in message
  assert "the disk is on fire" in message
