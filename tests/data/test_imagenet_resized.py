"""`imagenet_resized`, prepared without TensorFlow from small archives.

The archives have the format of the original ones.
"""

import io
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from helpers.archives import record, resized_arrays, write_zip
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.data import archives, imagenet_resized, load_source
from pixelrnn_jax.errors import InputError

COUNTS = {"train": 7, "validation": 6}


def make_config(data_dir, size):
  config = load_config("row_lstm_imagenet32")
  config.model.image_shape = (size, size, 3)
  config.data.source = f"tfds:imagenet_resized/{size}x{size}"
  config.data.data_dir = str(data_dir)
  config.data.validation_images = 4
  return config


@pytest.fixture
def put(tmp_path, monkeypatch):
  """Return put(size, **changes), which writes archives where a user puts them.

  `changes` are files of the validation archive. `put` returns the arrays of all
  archives.
  """

  def write(size, **changes):
    folder = tmp_path / "downloads" / "manual"
    folder.mkdir(parents=True)
    contents = resized_arrays(size, COUNTS)
    contents[f"Imagenet{size}_val_npz.zip"].update(changes)
    for name, content in contents.items():
      write_zip(folder / name, content)
    record(monkeypatch, "imagenet_resized", folder)
    return contents

  return write


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_every_image_and_label(put, tmp_path, size):
  contents = put(size)
  config = make_config(tmp_path, size)
  train, test = (load_source(config, split) for split in ("train", "test"))
  assert (len(train), len(test)) == (2 * 7 - 4, 6)
  assert test.description == f"tfds imagenet_resized/{size}x{size}:0.1.0, validation"
  expected = {"train": {}, "validation": {}}
  for archive, files in contents.items():
    for arrays in files.values():
      for values, label in zip(arrays["data"], arrays["labels"], strict=True):
        image = np.stack(np.split(values, 3), axis=-1).reshape(size, size, 3)
        split = "train" if "train" in archive else "validation"
        expected[split][image.tobytes()] = label - 1
  builder = tfds.builder(f"imagenet_resized/{size}x{size}", data_dir=tmp_path)
  for split, labels in expected.items():
    examples = builder.as_data_source(split=split)
    assert len(examples) == len(labels)
    for example in examples:
      assert labels.pop(example["image"].tobytes()) == example["label"]


def test_the_record_is_that_of_tfds(tmp_path):
  builder = tfds.builder("imagenet_resized/64x64", data_dir=tmp_path)
  found = archives.recorded(builder, imagenet_resized.archive_names(builder))
  assert [(archive.name, archive.size) for archive in found] == [
      ("Imagenet64_train_part1_npz.zip", 6_783_426_789),
      ("Imagenet64_train_part2_npz.zip", 6_780_506_068),
      ("Imagenet64_val_npz.zip", 529_522_927)]


def npz(**arrays):
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


def with_header(shape, dtype="|u1"):
  """Return an .npz whose `data.npy` consists of a header only."""
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
      header, {"descr": dtype, "fortran_order": False, "shape": shape})
  labels = io.BytesIO()
  np.lib.format.write_array(labels, np.ones(shape[0] % 2**18, np.int64))
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("data.npy", header.getvalue())
    archive.writestr("labels.npy", labels.getvalue())
  return file.getvalue()


DATA, LABELS = np.zeros((3, 192), np.uint8), np.ones(3, np.int64)


@pytest.mark.parametrize("content, message", [
    (b"hello", "cannot be read"),
    (npz(data=DATA), "no item named 'labels.npy'"),
    (npz(labels=LABELS), "no item named 'data.npy'"),
    (npz(data=DATA, labels=LABELS[:2]), r"data uint8 \[3, 192\], and uint8 \[2, 192\]"),
    (npz(data=DATA[:, :-1], labels=LABELS), r"data uint8 \[3, 191\]"),
    (npz(data=DATA.astype(float), labels=LABELS), "data float64"),
    (npz(data=np.asfortranarray(DATA), labels=LABELS), "column by column"),
    (npz(data=DATA, labels=LABELS * 0), "labels from 0 to 0, and 1 to 1000"),
    (npz(data=DATA, labels=LABELS * 1001), "labels from 1001 to 1001"),
    (npz(data=DATA, labels=LABELS * 1.5), "has labels float64"),
    (npz(data=DATA, labels=np.array([print] * 3, object)), "labels is object"),
    (npz(data=np.array([print] * 3, object), labels=LABELS), "data is object"),
    (with_header((3, 192)), "it ends too early"),
    (with_header((2**50, 192)), r"data uint8 \[1125899906842624, 192\]"),
])
def test_a_hostile_archive(put, tmp_path, content, message):
  put(8, **{"val_data.npz": content})
  with pytest.raises(InputError, match=f"val_data.npz.*(?:{message}).*Get it again"):
    load_source(make_config(tmp_path, 8), "train")
  assert not (tmp_path / "imagenet_resized" / "8x8" / "0.1.0").exists()


def test_a_huge_member_is_not_read(put, tmp_path, monkeypatch):
  monkeypatch.setattr(imagenet_resized, "_MOST_BYTES", 10_000)
  put(8, **{"big.npz": bytes(10_001)})
  with pytest.raises(InputError, match="big.npz has 10,001 bytes; no file"):
    load_source(make_config(tmp_path, 8), "train")


def test_nothing_is_unpacked(put, tmp_path):
  put(8, **{"../../evil.npz": npz(data=DATA, labels=LABELS)})
  load_source(make_config(tmp_path, 8), "test")
  assert not list(tmp_path.parent.rglob("evil*"))


def test_no_zip(put, tmp_path, monkeypatch):
  put(8)
  folder = tmp_path / "downloads" / "manual"
  (folder / "Imagenet8_val_npz.zip").write_bytes(b"hello")
  record(monkeypatch, "imagenet_resized", folder)
  with pytest.raises(InputError, match="Imagenet8_val_npz.zip cannot be read"):
    load_source(make_config(tmp_path, 8), "train")
