"""CIFAR-10 and CIFAR-100, prepared without TensorFlow from small archives.

The archives have the format of the original ones.
"""

import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from helpers.archives import (
  CIFAR10_FILES,
  CIFAR10_NAMES,
  cifar_files,
  record,
  write_tar_gz,
)
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.data import archives, cifar, load_source
from pixelrnn_jax.errors import InputError

EACH = 12
BATCH = "cifar-10-batches-bin/data_batch_2.bin"
NAMES = "cifar-10-batches-bin/batches.meta.txt"


def make_config(data_dir, name="cifar10"):
  config = load_config("row_lstm_cifar10")
  config.data.source = f"tfds:{name}"
  config.data.data_dir = str(data_dir)
  config.data.validation_images = 5
  return config


@pytest.fixture
def put(tmp_path, monkeypatch):
  """Return put(name, **changes), which writes an archive where a user puts it.

  `put` returns the contents of the archive's files by name.
  """

  def write(name, **changes):
    folder = tmp_path / "downloads" / "manual"
    folder.mkdir(parents=True, exist_ok=True)
    contents = cifar_files(name, EACH) | changes
    contents = {name: content for name, content in contents.items() if content != b""}
    path = folder / f"{name[:5]}-{name[5:]}-binary.tar.gz"
    write_tar_gz(path, contents)
    record(monkeypatch, name, folder)
    return contents

  return write


def test_cifar10(put, tmp_path):
  contents = put("cifar10")
  config = make_config(tmp_path)
  train, validation, test = (
      load_source(config, split) for split in ("train", "validation", "test"))
  assert (len(train), len(validation), len(test)) == (5 * EACH - 5, 5, EACH)
  assert train.description == "tfds cifar10:3.0.2, train[:55]"
  assert test.description == "tfds cifar10:3.0.2, test"

  builder = tfds.builder("cifar10", data_dir=tmp_path)
  assert builder.info.features["label"].names == CIFAR10_NAMES
  for split, files in (("train", CIFAR10_FILES[:5]), ("test", CIFAR10_FILES[5:])):
    # Plain loops read the documented layout: the label, then the red, green and blue
    # values, each row by row.
    expected = {}
    for file in files:
      content = contents[f"cifar-10-batches-bin/{file}"]
      for at in range(0, len(content), 3073):
        planes = np.frombuffer(content[at + 1:at + 3073], np.uint8)
        image = np.stack(np.split(planes, 3), axis=-1).reshape(32, 32, 3)
        expected[f"{split}_{len(expected):05d}"] = content[at], image
    examples = builder.as_data_source(split=split)
    assert len(examples) == len(expected)
    for example in examples:
      label, image = expected.pop(example["id"].decode())
      assert example["label"] == label
      np.testing.assert_array_equal(example["image"], image)
  # The prepared data set is read without the archive.
  for path in (tmp_path / "downloads").rglob("*.gz"):
    path.unlink()
  np.testing.assert_array_equal(load_source(config, "test").images, test.images)


def test_cifar100(put, tmp_path):
  contents = put("cifar100")
  assert len(load_source(make_config(tmp_path, "cifar100"), "test")) == EACH
  builder = tfds.builder("cifar100", data_dir=tmp_path)
  assert builder.info.features["coarse_label"].names[3] == "coarse3"
  assert builder.info.features["label"].names[99] == "fine99"
  content = contents["cifar-100-binary/test.bin"]
  for example in builder.as_data_source(split="test"):
    at = 3074 * int(example["id"].decode().removeprefix("test_"))
    assert (example["coarse_label"], example["label"]) == tuple(content[at:at + 2])
    np.testing.assert_array_equal(
        example["image"].transpose(2, 0, 1).ravel(), list(content[at + 2:at + 3074]))


@pytest.mark.parametrize("name, size, digest", [
    ("cifar10", 170_052_171,
     "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
    ("cifar100", 168_513_733,
     "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
])
def test_the_record_is_that_of_tfds(tmp_path, name, size, digest):
  builder = tfds.builder(name, data_dir=tmp_path)
  [archive] = archives.recorded(builder, cifar.archive_names(builder))
  assert archive == archives.Archive(
      f"{name[:5]}-{name[5:]}-binary.tar.gz",
      f"https://www.cs.toronto.edu/~kriz/{archive.name}", size, digest)


def test_without_a_network_it_says_which_file_to_put_where(tmp_path, monkeypatch):
  asked = []

  def refuse(server, timeout):
    asked.append(server)
    raise OSError("no network")

  monkeypatch.setattr(archives.socket, "create_connection", refuse)
  monkeypatch.setattr(archives.urllib.request, "getproxies", dict)
  with pytest.raises(InputError) as error:
    load_source(make_config(tmp_path), "train")
  message = str(error.value)
  assert asked == [("www.cs.toronto.edu", 443)] and "\n" not in message
  for words in (
      "tfds:cifar10 is not prepared", "www.cs.toronto.edu does not answer",
      "the same command downloads", "cifar-10-binary.tar.gz (170,052,171 bytes",
      f"put it into {tmp_path}/downloads/manual", "--config.data.data_dir=DIR"):
    assert words in message
  assert not list(tmp_path.iterdir())


def link(name, target):
  member = tarfile.TarInfo(name)
  member.type, member.linkname = tarfile.SYMTYPE, target
  return member


def label_of(value):
  content = bytearray(cifar_files("cifar10", EACH)[BATCH])
  content[3073] = value
  return bytes(content)


@pytest.mark.parametrize("changes, message", [
    ({BATCH: b""}, "has no cifar-10-batches-bin/data_batch_2.bin"),
    ({BATCH: bytes(3073 * 2 - 1)}, "_2.bin has 6,145 bytes, which is no whole number"),
    ({BATCH: label_of(10)}, r"_2.bin has labels up to \[10\], .* only \[10\]"),
    ({BATCH: link(BATCH, "/etc/passwd")}, "has no .*/data_batch_2.bin"),
    ({NAMES: b"cat\ndog\n"}, "batches.meta.txt has 2 names of labels and .* 10"),
    ({NAMES: b"\xff" * 100}, "batches.meta.txt has 1 names of labels"),
])
def test_a_hostile_archive(put, tmp_path, changes, message):
  put("cifar10", **changes)
  with pytest.raises(InputError, match=f"-binary.tar.gz.*{message}.*Get it again"):
    load_source(make_config(tmp_path), "train")
  assert not (tmp_path / "cifar10" / "3.0.2").exists()


def test_a_huge_member_is_not_read(put, tmp_path, monkeypatch):
  monkeypatch.setattr(cifar, "_MOST_BYTES", 3073 * EACH)
  put("cifar10", **{BATCH: bytes(3073 * (EACH + 1))})
  with pytest.raises(InputError, match="data_batch_2.bin has 39,949 bytes; no file"):
    load_source(make_config(tmp_path), "train")


def test_nothing_is_unpacked(put, tmp_path):
  put("cifar10", **{"../../evil": b"x", "/tmp/evil_of_cifar": b"x"})
  before = {path for path in tmp_path.rglob("*")}
  load_source(make_config(tmp_path), "test")
  new = {path for path in tmp_path.rglob("*")} - before
  assert not [path for path in new if "evil" in path.name]


@pytest.mark.parametrize("keep", [0, 100, -20_000])
def test_a_damaged_archive(tmp_path, monkeypatch, keep):
  folder = tmp_path / "downloads" / "manual"
  folder.mkdir(parents=True)
  path = folder / "cifar-10-binary.tar.gz"
  write_tar_gz(path, cifar_files("cifar10", EACH))
  path.write_bytes(path.read_bytes()[:keep] or b"hello")
  record(monkeypatch, "cifar10", folder)
  with pytest.raises(InputError, match="binary.tar.gz.*Get it again"):
    load_source(make_config(tmp_path), "train")
  assert not (tmp_path / "cifar10" / "3.0.2").exists()
