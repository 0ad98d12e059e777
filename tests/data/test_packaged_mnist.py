"""The packaged MNIST, and the script that makes its file."""

import gzip
import hashlib
import importlib.util
import struct

import numpy as np
import pytest
from absl import flags

from helpers.programs import EXPERIMENTS, ROOT, run_program
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.data import binarize, load_source, packaged_mnist
from pixelrnn_jax.errors import InputError

SCRIPT = EXPERIMENTS / "make_packaged_mnist.py"
FILE = ROOT / "pixelrnn_jax" / "data" / "packaged_mnist.npz"


def test_file_is_the_documented_one():
  content = FILE.read_bytes()
  readme = (FILE.parent / "README.md").read_text()
  assert hashlib.sha256(content).hexdigest() in readme
  assert f"{len(content):,} bytes" in readme
  assert len(content) < 2_000_000


@pytest.mark.parametrize("part, counts, mean, bound, first", [
    ("train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
     0.130660, 1e-4, [5, 0, 4, 1, 9]),
    ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
     0.132515, 2.5e-4, [7, 2, 1, 0, 4]),
])
def test_file_is_mnist(part, counts, mean, bound, first):
  """The packaged file has the labels and the mean intensities of MNIST.

  `bound` is 5 standard deviations of the mean.
  """
  with np.load(FILE, allow_pickle=False) as archive:
    images, labels = archive[f"{part}_images"], archive[f"{part}_labels"]
    assert "ShareAlike" in str(archive["about"])
  assert images.dtype == labels.dtype == np.uint8
  assert images.shape == (sum(counts), 98)
  np.testing.assert_array_equal(np.bincount(labels), counts)
  np.testing.assert_array_equal(labels[:5], first)
  bits = np.unpackbits(images, axis=1)
  assert abs(bits.mean() - mean) < bound
  # In the training part, ones have the least ink (0.0760 of the square) and zeros the
  # most (0.1734). The images show this only if their labels are right.
  ink = [bits[labels == digit].mean() for digit in range(10)]
  assert np.argmin(ink) == 1 and np.argmax(ink) == 0
  assert abs(ink[1] - 0.0764) < 0.001 and abs(ink[0] - 0.173) < 0.001


def test_images_are_the_bits_of_the_file():
  with np.load(FILE, allow_pickle=False) as archive:
    bits = np.unpackbits(archive["test_images"], axis=1)
  source = load_source(load_config("diagonal_bilstm_mnist"), "test")
  assert len(source) == 10_000
  np.testing.assert_array_equal(source.images, bits.reshape(-1, 28, 28, 1))
  # The first test image is a 7. Its stroke crosses column 13, and its corners are
  # empty.
  assert source[0][:, 13, 0].sum() >= 2 and not source[0][:4, :4].any()


@pytest.fixture
def script():
  """Import the script as a module, and remove its flags after the test."""
  spec = importlib.util.spec_from_file_location("make_packaged_mnist", SCRIPT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  yield module
  for flag in (module.SOURCE, module.OUTPUT):
    delattr(flags.FLAGS, flag.name)


def write_idx(directory, sizes):
  """Write the four files with random content; return arrays and MD5 sums by name."""
  rng = np.random.default_rng(7)
  arrays, sums = {}, {}
  for part, count in sizes.items():
    for name, shape in (
        (f"{part}-images-idx3-ubyte", (count, 28, 28)),
        (f"{part}-labels-idx1-ubyte", (count,)),
    ):
      array = rng.integers(0, 256 if "images" in name else 10, shape, dtype=np.uint8)
      header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
      content = header + array.tobytes()
      (directory / f"{name}.gz").write_bytes(gzip.compress(content))
      arrays[name], sums[name] = array, hashlib.md5(content).hexdigest()
  return arrays, sums


def test_script_makes_the_same_bytes_twice(script, tmp_path, monkeypatch):
  arrays, sums = write_idx(tmp_path, {"train": 5, "t10k": 3})
  monkeypatch.setattr(script, "MD5", sums)
  first, second = tmp_path / "a.npz", tmp_path / "b.npz"
  script.make(tmp_path, first)
  script.make(tmp_path, second)
  assert first.read_bytes() == second.read_bytes()
  with np.load(first, allow_pickle=False) as archive:
    np.testing.assert_array_equal(
        archive["test_labels"], arrays["t10k-labels-idx1-ubyte"])
    for part, name in (("train", "train"), ("test", "t10k")):
      expected = [
          binarize.static(image).reshape(-1)
          for image in arrays[f"{name}-images-idx3-ubyte"]
      ]
      np.testing.assert_array_equal(
          np.unpackbits(archive[f"{part}_images"], axis=1), expected)


def test_script_refuses_other_files(tmp_path):
  write_idx(tmp_path, {"train": 2, "t10k": 2})
  run = run_program(
      "make_packaged_mnist.py", f"--source={tmp_path}",
      f"--output={tmp_path / 'out.npz'}")
  assert run.returncode == 1
  assert "train-images-idx3-ubyte.gz is not the original MNIST file" in run.stderr
  assert "6bbc9ace898e44ae57da46a324031adb" in run.stderr
  assert "Traceback" not in run.stderr
  assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("damage", ["missing", "not gzip", "cut short"])
def test_script_names_an_unreadable_file(script, tmp_path, damage):
  write_idx(tmp_path, {"train": 2, "t10k": 2})
  path = tmp_path / "train-images-idx3-ubyte.gz"
  content = path.read_bytes()
  path.unlink()
  if damage == "not gzip":
    path.write_bytes(b"hello")
  if damage == "cut short":
    path.write_bytes(content[:100])
  with pytest.raises(InputError, match="train-images-idx3-ubyte.gz cannot be read"):
    script.make(tmp_path, tmp_path / "out.npz")


def test_area_weights():
  """The weights from 28 pixels to any size are whole numbers.

  They are the overlaps of equal cells.
  """
  np.testing.assert_array_equal(packaged_mnist._area_weights(28), 28 * np.eye(28))
  np.testing.assert_array_equal(
      packaged_mnist._area_weights(14), 14 * np.repeat(np.eye(14), 2, axis=1))
  for size in (1, 5, 32, 64):
    weights = packaged_mnist._area_weights(size)
    assert (weights >= 0).all()
    np.testing.assert_array_equal(weights.sum(axis=1), 28)
    np.testing.assert_array_equal(weights.sum(axis=0), size)
