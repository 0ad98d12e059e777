""".npz files whose headers make false claims."""

import os
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.data import GivenImages, load_source, own_parts
from pixelrnn_jax.errors import InputError

SHAPE = (4, 6, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SHAPE), np.uint8)


def make_config(path, shape=SHAPE):
  config = load_config("pixel_cnn_cifar10:smoke")
  config.model.image_shape = shape
  config.data.source, config.data.max_images = f"folder:{path}", 0
  config.data.validation_images = 2
  return config


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def npy(number, values):
  """Return an .npy file whose header claims `number` images."""
  text = (f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(number, *SHAPE)}}}"
          .ljust(117) + "\n").encode()
  return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


def write(path, content, compression=zipfile.ZIP_DEFLATED, **claims):
  """Write an .npz of one array, with false `claims` in its central directory."""
  with zipfile.ZipFile(path, "w", compression) as archive:
    archive.writestr("images.npy", content)
    for name, value in claims.items():
      setattr(archive.filelist[0], name, value)


def refuse(path, message):
  """Assert that training and --images refuse the file.

  They must use little memory and write nothing to the cache.
  """
  for attempt in (
      lambda: load_source(make_config(path), "train"),
      lambda: GivenImages([str(path)], SHAPE, 256).read(2)):
    tracemalloc.start()
    try:
      with pytest.raises(InputError, match=message) as error:
        attempt()
      assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
      tracemalloc.stop()
    assert str(path) in str(error.value) and "\n" not in str(error.value)
  assert not list(path.parent.glob("cache/*/images_*"))


@pytest.mark.parametrize("number", [10**6, 30 * 10**6, 10**9])
def test_millions_of_images_in_kilobytes(tmp_path, number):
  """False sizes are refused, even when all of them agree with each other.

  The array's compressed and uncompressed sizes both fit the claimed number of images.
  """
  size = 128 + number * 72
  write(tmp_path / "own.npz", npy(number, IMAGES.tobytes()), file_size=size,
        compress_size=size // 100)
  refuse(tmp_path / "own.npz", "claims .* of the file's .* bytes")


def test_zeros(tmp_path):
  number = 2**20
  write(tmp_path / "own.npz", npy(number, bytes(72 * number)))
  refuse(tmp_path / "own.npz", "no images shrink by more than 200 times")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("number", [11, 13])
def test_other_numbers_of_images(tmp_path, compression, number):
  write(tmp_path / "own.npz", npy(number, IMAGES.tobytes()), compression)
  refuse(tmp_path / "own.npz", f"claims {number} images but has 992 bytes")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_fewer_images_than_all_headers_say(tmp_path, compression):
  path = tmp_path / "own.npz"
  write(path, npy(20, IMAGES.tobytes()), compression, file_size=128 + 20 * 72)
  for attempt in (
      lambda: load_source(make_config(path), "train"),
      lambda: GivenImages([str(path)], SHAPE, 256).read(20)):
    with pytest.raises(InputError, match="damaged or no .npz"):
      attempt()
  assert not list(tmp_path.glob("cache/*/images_*"))


def test_the_sum_is_checked_at_the_end(tmp_path):
  write(tmp_path / "own.npz", npy(12, IMAGES.tobytes()), CRC=1)
  for attempt in (
      lambda: load_source(make_config(tmp_path / "own.npz"), "train"),
      lambda: GivenImages([str(tmp_path / "own.npz")], SHAPE, 256).read(12)):
    with pytest.raises(InputError, match="Bad CRC-32"):
      attempt()


def test_two_arrays_of_one_name(tmp_path):
  with (pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(tmp_path / "own.npz", "w") as archive):
    for _ in range(2):
      archive.writestr("images.npy", npy(12, IMAGES.tobytes()))
  refuse(tmp_path / "own.npz", "holds 'images.npy' more than once")


def test_what_is_no_file(tmp_path):
  os.mkfifo(tmp_path / "own.npz")
  refuse(tmp_path / "own.npz", "It is a pipe, a socket or a device")
  (tmp_path / "own.npz").unlink()
  (tmp_path / "own.npz").symlink_to("/dev/zero")
  refuse(tmp_path / "own.npz", "It is a pipe, a socket or a device")


def test_bytes_changed_at_random(tmp_path):
  """A file with random changes is read in full or refused with an InputError."""
  rng = np.random.default_rng(0)
  path = tmp_path / "own.npz"
  np.savez_compressed(path, train=IMAGES, test=IMAGES[:3])
  good, refused = path.read_bytes(), 0
  for _ in range(200):
    content = bytearray(good)
    # Most changes are in the headers, at the start and the end of the file.
    for at in rng.integers(-len(content) // 8, 60, rng.integers(1, 4)):
      content[at] = rng.integers(256)
    path.write_bytes(content)
    try:
      assert len(load_source(make_config(path), "train")) == 10
    except InputError:
      refused += 1
  assert 50 < refused < 200


def test_the_division_of_many(tmp_path):
  """100,000 images are divided as by sorting, in less than 150 bytes an image."""
  tracemalloc.start()
  parts = own_parts.divide(range(100_000), "x")
  assert tracemalloc.get_traced_memory()[1] < 150 * 100_000
  tracemalloc.stop()
  few = own_parts.divide(range(50), "x")
  as_names = own_parts.divide([str(i) for i in range(50)], "x")
  for part in few:
    assert [str(i) for i in few[part]] == as_names[part]
  assert sorted(np.concatenate(list(parts.values()))) == list(range(100_000))


@pytest.mark.parametrize("names", [
    [str(number) for number in range(50_000)],
    ["validatio" * 7_000 + str(number) for number in range(100)]])
def test_entries_without_end(tmp_path, names):
  """An .npz with very many entries, or with very long names, is refused at once.

  Comparing each name with all others, or with those of the parts, would take hours.
  """
  path = tmp_path / "own.npz"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("images.npy", npy(12, IMAGES.tobytes()))
    for name in names:
      archive.writestr(name, b"")
  start = time.process_time()
  with pytest.raises(InputError, match=f"holds {len(names) + 1:,} entries; at most"):
    load_source(make_config(path), "train")
  assert time.process_time() - start < 10
