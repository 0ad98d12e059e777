"""The user's folders of images and .npz files: pixels, parts and the cache."""

import hashlib
import os
import pickle
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from pixelrnn_jax.configs.schema import Config, DataConfig, ModelConfig
from pixelrnn_jax.data import image_folder, load_source, sources
from pixelrnn_jax.data.image_files import crop_and_resize
from pixelrnn_jax.errors import InputError


def make_config(path, cache, shape=(4, 6, 3), levels=256, binarization="none"):
  config = Config(
      name="tiny",
      model=ModelConfig(kind="row_lstm", image_shape=shape, levels=levels, hidden=4),
      data=DataConfig(
          source=f"folder:{path}", data_dir=str(cache), binarization=binarization,
          validation_images=2),
  )
  config.validate()
  return config


def random_images(seed, *shape):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, pixels, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
  """Return a folder of eleven images, and the images.

  Some are in a sub-folder. There are also files that are not images.
  """
  images = random_images(0, 11, 4, 6, 3)
  for i, image in enumerate(images):
    save(tmp_path / "own" / f"{'b/' if i % 2 else ''}{i}.png", image)
  (tmp_path / "own" / "notes.txt").write_text("hello")
  (tmp_path / "own" / "._0.png").write_text("what some systems leave")
  (tmp_path / "own" / ".hidden").mkdir()
  (tmp_path / "own" / ".hidden" / "x.png").write_text("")
  return tmp_path / "own", images


def all_parts(config):
  return [
      np.stack(list(load_source(config, split)))
      for split in ("train", "validation", "test")]


def test_parts_follow_from_the_names(folder, tmp_path):
  path, images = folder
  config = make_config(path, tmp_path / "cache")
  train, validation, test = all_parts(config)
  assert (len(train), len(validation), len(test)) == (8, 2, 1)
  names = [f"{'b/' if i % 2 else ''}{i}.png" for i in range(11)]
  order = np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in names])
  np.testing.assert_array_equal(
      np.concatenate([train, validation, test]), images[order])
  description = load_source(config, "train").description
  digest = hashlib.sha256(b"(4, 6, 3)" + images[order].tobytes()).hexdigest()
  assert description == (
      f"folder {path} (11 images of any size cropped and resized to 4x6, SHA-256"
      f" {digest[:12]}), train[:8]")


def test_sub_folders_are_the_parts(tmp_path):
  parts = {name: random_images(seed, 3, 4, 6, 3) for seed, name in enumerate(
      ("train", "validation", "test"))}
  for name, images in parts.items():
    for i, image in enumerate(images):
      save(tmp_path / "own" / name / f"{i}.png", image)
  config = make_config(tmp_path / "own", tmp_path / "cache")
  for found, expected in zip(all_parts(config), parts.values(), strict=True):
    np.testing.assert_array_equal(found, expected)
  config.data.max_images = 2
  assert load_source(config, "validation").description.endswith("validation[:2]")
  # Without a folder `validation`, the validation part is the end of `train`.
  for file in (tmp_path / "own" / "validation").iterdir():
    file.unlink()
  (tmp_path / "own" / "validation").rmdir()
  config.data.max_images = 0
  train, validation, test = all_parts(config)
  np.testing.assert_array_equal(train, parts["train"][:1])
  np.testing.assert_array_equal(validation, parts["train"][1:])


def test_odd_images_become_the_models(tmp_path):
  """Images of other sizes and modes take the size and the channels of the model.

  Palettes, orientations and JPEG files are among them.
  """
  rgb = random_images(1, 8, 12, 3)
  halves = rgb.reshape(4, 2, 6, 2, 3).astype(float).mean(axis=(1, 3))
  folder = tmp_path / "own"
  save(folder / "train" / "a_double.png", rgb)
  save(folder / "train" / "b_wide.png", np.pad(rgb, [(0, 0), (4, 4), (0, 0)]))
  save(folder / "train" / "c_high.png", np.pad(rgb, [(6, 6), (0, 0), (0, 0)]))
  opaque = np.dstack([rgb, np.full((8, 12), 255, np.uint8)])
  save(folder / "train" / "d_opaque.png", opaque)
  orientation = Image.Exif()
  orientation[0x0112] = 3  # 180 degrees
  save(folder / "train" / "e_turned.png", rgb[::-1, ::-1], exif=orientation)
  save(folder / "train" / "f_grey.png", rgb[..., 0])
  Image.fromarray(rgb).quantize(96).save(folder / "train" / "g_palette.png")
  save(folder / "train" / "h_photo.JPEG", np.full((9, 9, 3), (200, 100, 50), np.uint8))
  save(folder / "test" / "one_pixel.png", rgb[:1, :1])
  config = make_config(folder, tmp_path / "cache")
  images = np.concatenate(all_parts(config))
  assert len(images) == 9
  for image in images[:5]:
    np.testing.assert_allclose(image, halves, atol=1)
  np.testing.assert_allclose(
      images[5], np.stack([halves[..., 0]] * 3, axis=-1), atol=1)
  np.testing.assert_allclose(images[6], halves, atol=3)
  np.testing.assert_allclose(images[7], np.full((4, 6, 3), (200, 100, 50)), atol=3)
  np.testing.assert_array_equal(images[8], np.broadcast_to(rgb[0, 0], (4, 6, 3)))


@pytest.mark.parametrize("size", [(4, 6), (5, 17), (40, 7), (64, 64), (1, 1), (3, 9)])
def test_crop_and_resize_against_a_loop(size):
  """A value is the mean of the pixels whose centres lie in its area.

  In images that are enlarged it is the nearest pixel.
  """
  pixels = random_images(3, *size, 1)
  scale = min(Fraction(size[0], 4), Fraction(size[1], 6))
  reach = max(scale, 1) / 2

  def covered(length, number, index):
    centre = (length - number * scale) / 2 + (index + Fraction(1, 2)) * scale
    return [x for x in range(length)
            if -reach < x + Fraction(1, 2) - centre <= reach]

  found = crop_and_resize(pixels, 4, 6)
  for i in range(4):
    for j in range(6):
      part = pixels[np.ix_(covered(size[0], 4, i), covered(size[1], 6, j))]
      assert abs(part.mean() - found[i, j, 0]) <= 1, (i, j)


def test_the_cache_is_used_until_a_file_changes(folder, tmp_path, monkeypatch):
  path, images = folder
  config = make_config(path, tmp_path / "cache")
  calls = []
  original = image_folder.decode
  monkeypatch.setattr(
      image_folder, "decode", lambda *args: calls.append(args) or original(*args))
  before = load_source(config, "train").description
  first = all_parts(config)
  assert len(calls) == 11
  save(path / "0.png", 255 - images[0])
  second = all_parts(config)
  assert len(calls) == 22
  changed = sum(
      (a != b).any() for x, y in zip(first, second, strict=True)
      for a, b in zip(x, y, strict=True))
  assert changed == 1
  assert load_source(config, "train").description != before
  # A start that is killed leaves an incomplete entry in the cache. The next start does
  # not use it.
  partial = tmp_path / "cache" / f"images_{'0' * 24}"
  partial.mkdir()
  (partial / "pixels").write_bytes(b"x")
  os.utime(path / "0.png", (0, 0))
  np.testing.assert_array_equal(all_parts(config)[0], second[0])
  assert len(calls) == 33 and not partial.exists()


def test_large_folders_are_read_from_the_cache(folder, tmp_path, monkeypatch):
  config = make_config(folder[0], tmp_path / "cache")
  expected = load_source(config, "train")
  monkeypatch.setattr(sources, "_MEMORY_BYTES", 0)
  lazy = load_source(config, "train")
  assert expected.in_memory and not lazy.in_memory
  np.testing.assert_array_equal(np.stack(list(lazy)), expected.images)
  content = pickle.dumps(lazy)  # Grain's workers get a pickled copy
  assert len(content) < 1000
  np.testing.assert_array_equal(pickle.loads(content)[7], expected[7])


def test_an_npz_with_parts(tmp_path):
  parts = {name: random_images(seed, 4 + seed, 4, 6, 3) for seed, name in enumerate(
      ("train", "validation", "test"))}
  np.savez_compressed(tmp_path / "own.npz", labels=np.arange(9.0), **parts)
  config = make_config(tmp_path / "own.npz", tmp_path / "cache")
  for found, expected in zip(all_parts(config), parts.values(), strict=True):
    np.testing.assert_array_equal(found, expected)
  description = load_source(config, "test").description
  assert description.startswith(f"npz {tmp_path}/own.npz (15 images, SHA-256 ")
  assert description.endswith("), test")


def test_an_npz_of_images_is_divided(tmp_path):
  images = random_images(0, 20, 5, 5)
  np.savez(tmp_path / "own.npz", images=images)
  config = make_config(tmp_path / "own.npz", tmp_path / "cache", (5, 5, 1))
  train, validation, test = all_parts(config)
  assert (len(train), len(validation), len(test)) == (16, 2, 2)
  order = np.argsort([hashlib.sha256(str(i).encode()).hexdigest() for i in range(20)])
  np.testing.assert_array_equal(
      np.concatenate([train, validation, test])[..., 0], images[order])


@pytest.mark.parametrize("levels, words", [(16, "16 levels as stored"), (256, "")])
def test_values_of_an_npz_are_the_models(tmp_path, levels, words):
  images = random_images(0, 20, 5, 5) % 16
  np.savez(tmp_path / "own.npz", images=images)
  config = make_config(tmp_path / "own.npz", tmp_path / "cache", (5, 5, 1), levels)
  train, validation, test = all_parts(config)
  np.testing.assert_array_equal(
      np.sort(np.concatenate([train, validation, test]).ravel()),
      np.sort(images.ravel()))
  assert words in load_source(config, "train").description


def test_bits_and_greys_of_an_npz(tmp_path):
  images = random_images(0, 20, 5, 5)
  for name, array, words in (
      ("grey", images, "binarised at 128"),
      ("bits", images // 128, "2 levels as stored")):
    np.savez(tmp_path / f"{name}.npz", images=array)
    config = make_config(
        tmp_path / f"{name}.npz", tmp_path / "cache", (5, 5, 1), 2, "threshold")
    assert words in load_source(config, "train").description
    found = np.concatenate(all_parts(config))
    assert found.sum() == (images >= 128).sum()


@pytest.mark.parametrize("damage", [
    lambda entry: (entry / "about.json").write_text("{"),
    lambda entry: (entry / "about.json").write_text("[]"),
    lambda entry: (entry / "about.json").write_text("{}"),
    lambda entry: (entry / "about.json").unlink(),
    lambda entry: (entry / "pixels").write_bytes(b"short"),
    lambda entry: (entry / "pixels").write_bytes(
        bytes([(entry / "pixels").read_bytes()[0] ^ 1])
        + (entry / "pixels").read_bytes()[1:]),
])
def test_a_damaged_cache_is_made_again(folder, tmp_path, damage):
  config = make_config(folder[0], tmp_path / "cache")
  before = all_parts(config)
  entry, = (tmp_path / "cache").glob("images_*")
  damage(entry)
  for again, first in zip(all_parts(config), before, strict=True):
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("header", [
    b"{'descr': (", b"(" * 5000, b"-" * 9000 + b"1", b"if 1:\n  a\n b\n",
    b"{[]: None, 'shape': (1,)}", b"{1: None, 'descr': 2}"])
def test_headers_that_python_cannot_parse(tmp_path, header):
  content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
  with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
    archive.writestr("images.npy", content)
  config = make_config(tmp_path / "own.npz", tmp_path / "cache")
  with pytest.raises(InputError, match="header of an array cannot be read"):
    load_source(config, "train")
  assert not (tmp_path / "cache").exists()


def test_links_to_nothing(folder, tmp_path):
  (folder[0] / "c.png").symlink_to("nowhere.png")
  config = make_config(folder[0], tmp_path / "cache")
  with pytest.raises(InputError, match="a link to nothing"):
    load_source(config, "train")


def test_a_path_that_is_not_utf8(tmp_path):
  with pytest.raises(InputError, match="not UTF-8"):
    make_config(os.fsdecode(b"bad\xff"), tmp_path)
