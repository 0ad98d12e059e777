"""Comparison of our builders with those of TFDS.

TFDS's builders need TensorFlow, so this check does not run in CI. Run it in a separate
environment, as the package works without TensorFlow:

    python3 -m venv tf && tf/bin/pip install -e '.[test]' tensorflow-cpu
    tf/bin/python -m pytest -m slow tests/data/test_against_tfds.py

Both builders prepare the same archives. Every record must be equal, and the order of
the records too. The splits and the features must be equal as well.
"""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from helpers.archives import (
  cifar_files,
  record,
  resized_arrays,
  write_tar_gz,
  write_zip,
)
from pixelrnn_jax.data import cifar, downsampled_imagenet, imagenet_resized

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None,
        reason="TFDS's own builders need TensorFlow: see the top of this file"),
]


def write_archives(name, folder):
  """Write archives with 120 images or more in each split."""
  if name.startswith("cifar"):
    archive = folder / f"{name[:5]}-{name[5:]}-binary.tar.gz"
    write_tar_gz(archive, cifar_files(name, 150))
    return
  size = int(name.rpartition("x")[2])
  counts = {"train": 120, "validation": 130}
  for archive, contents in resized_arrays(size, counts).items():
    write_zip(folder / archive, contents)


@pytest.mark.parametrize("name, module", [
    ("cifar10", cifar), ("cifar100", cifar),
    *((f"imagenet_resized/{s}x{s}", imagenet_resized) for s in (8, 16, 32, 64)),
    ("downsampled_imagenet/32x32", downsampled_imagenet),
])
def test_same_as_tfds(tmp_path, monkeypatch, tars, name, module):
  if module is downsampled_imagenet:
    folder, _ = tars("32x32")
  else:
    folder = tmp_path / "downloads" / "manual"
    folder.mkdir(parents=True)
    write_archives(name, folder)
    record(monkeypatch, name.partition("/")[0], folder)
  theirs = tfds.builder(name, data_dir=tmp_path / "theirs", file_format="array_record")
  theirs.download_and_prepare(
      download_config=tfds.download.DownloadConfig(manual_dir=folder))
  ours = module.make_builder(tfds.builder(name, data_dir=tmp_path / "ours"), folder)
  ours.download_and_prepare()
  assert theirs.is_prepared() and ours.is_prepared()
  assert ours.info.full_name == theirs.info.full_name
  places = {
      pathlib.Path(b.data_dir).relative_to(b.data_dir_root) for b in (ours, theirs)}
  assert len(places) == 1

  # Our builder of this data set also records the size of the images.
  if module is not downsampled_imagenet:
    assert features(ours) == features(theirs)
    assert ours.info.supervised_keys == theirs.info.supervised_keys
    assert ours.info.description == theirs.info.description
    assert ours.info.citation == theirs.info.citation
  assert list(ours.info.splits) == list(theirs.info.splits)
  for split in theirs.info.splits:
    first, second = (b.as_data_source(split=split) for b in (ours, theirs))
    assert len(first) == len(second) > 5
    for mine, wanted in zip(first, second, strict=True):
      assert mine.keys() == wanted.keys()
      for key in wanted:
        np.testing.assert_array_equal(mine[key], wanted[key])
        assert np.asarray(mine[key]).dtype == np.asarray(wanted[key]).dtype


def features(builder):
  """Return the files that describe the records: features.json and the label names."""
  return {
      path.name: json.loads(path.read_text()) if path.suffix == ".json"
      else path.read_text()
      for path in pathlib.Path(builder.data_dir).iterdir()
      if path.name == "features.json" or path.name.endswith(".labels.txt")}
