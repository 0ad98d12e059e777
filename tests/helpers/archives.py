"""Small archives in the format of CIFAR's and ImageNet's, and TFDS's checksums."""

import dataclasses
import hashlib
import io
import pathlib
import tarfile
import zipfile

import numpy as np
import tensorflow_datasets as tfds

CIFAR10_FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
CIFAR10_NAMES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
    "truck"]


def cifar_files(name: str, each: int) -> dict[str, bytes]:
  """Return the files of a CIFAR archive by path, with `each` images in a file.

  Images and labels are random, and the same at every call.
  """
  rng = np.random.default_rng(0)
  if name == "cifar10":
    folder, files, classes = "cifar-10-batches-bin", CIFAR10_FILES, [10]
    texts = {"batches.meta.txt": CIFAR10_NAMES + [""]}  # as in the original
  else:
    folder, files, classes = "cifar-100-binary", ["train.bin", "test.bin"], [20, 100]
    texts = {
        "coarse_label_names.txt": [f"coarse{i}" for i in range(20)],
        "fine_label_names.txt": [f"fine{i}" for i in range(100)],
    }
  contents = {
      f"{folder}/{file}": "".join(f"{line}\n" for line in lines).encode()
      for file, lines in texts.items()}
  for file in files:
    labels = rng.integers(0, classes, (each, len(classes)))
    images = rng.integers(0, 256, (each, 3072))
    records = np.concatenate([labels, images], axis=1).astype(np.uint8)
    contents[f"{folder}/{file}"] = records.tobytes()
  return contents


def write_tar_gz(path: pathlib.Path, contents: dict[str, bytes | tarfile.TarInfo]):
  """Write a tar.gz file.

  `contents` holds bytes or complete members by path.
  """
  with tarfile.open(path, "w:gz") as archive:
    for name, content in contents.items():
      if isinstance(content, tarfile.TarInfo):
        archive.addfile(content)
        continue
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))


def resized_arrays(size: int, counts: dict[str, int]) -> dict[str, dict]:
  """Return the arrays of `imagenet_resized`.

  They have the form {archive: {file: {"data": ..., "labels": ...}}}.
  """
  rng = np.random.default_rng(size)

  def arrays(count):
    return {
        "data": rng.integers(0, 256, (count, 3 * size * size), np.uint8),
        "labels": rng.integers(1, 1001, count),
    }

  val = {"val_data.npz": arrays(counts["validation"])}
  train = {f"train_data_batch_{i}.npz": arrays(counts["train"]) for i in (1, 2)}
  archives = {f"Imagenet{size}_val_npz.zip": val}
  if size == 64:
    for i, (name, content) in enumerate(train.items(), 1):
      archives[f"Imagenet64_train_part{i}_npz.zip"] = {name: content}
  else:
    archives[f"Imagenet{size}_train_npz.zip"] = train
  return archives


def write_zip(path: pathlib.Path, contents: dict[str, dict | bytes]):
  """Write a zip file.

  `contents` holds bytes, or the arrays of an `.npz` file, by path.
  """
  with zipfile.ZipFile(path, "w") as archive:
    for name, content in contents.items():
      if isinstance(content, dict):
        file = io.BytesIO()
        np.savez(file, **content)
        content = file.getvalue()
      archive.writestr(name, content)


def record(monkeypatch, name: str, folder: pathlib.Path, server: str = ""):
  """Make TFDS expect the checksums of the files in `folder`.

  Args:
    monkeypatch: the fixture of pytest.
    name: the name of the data set.
    folder: a folder with files of the names that TFDS has recorded.
    server: an address that replaces the one of the original server.
  """
  builder = tfds.builder_cls(name)
  changed = {}
  for url, info in builder.url_infos.items():
    path = folder / info.filename
    if path.exists():
      content = path.read_bytes()
      info = dataclasses.replace(
          info, size=type(info.size)(len(content)),
          checksum=hashlib.sha256(content).hexdigest())
    changed[f"{server}/{info.filename}" if server else url] = info
  monkeypatch.setattr(builder, "url_infos", changed)
