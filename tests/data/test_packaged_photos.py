"""The packaged photographs, their crops, and the script that makes their files."""

import hashlib
import importlib.util
import re

import numpy as np
import pytest
from absl import flags
from PIL import Image

from helpers.programs import EXPERIMENTS, ROOT, run_program
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.data import load_source, packaged_photos
from pixelrnn_jax.data.packaged_photos import BLOCK, PHOTOS, PackagedPhotos
from pixelrnn_jax.errors import InputError

SCRIPT = EXPERIMENTS / "make_packaged_photos.py"
FOLDER = ROOT / "pixelrnn_jax" / "data" / "photos"
README = (FOLDER / "README.md").read_text()
ALL = [(part, name) for part, names in PHOTOS.items() for name in names]


@pytest.mark.parametrize("part, name", ALL)
def test_file_is_the_documented_one(part, name):
  pixels = packaged_photos.read(name)
  height, width = pixels.shape[:2]
  line = re.search(rf"^\| `{name}` \| {part} \| .*$", README, re.M)[0]
  assert f"| {width} x {height} |" in line
  assert f"`{hashlib.sha256(pixels.tobytes()).hexdigest()}`" in line
  assert "| CC BY 4.0 |" in line or "| CC0 1.0 |" in line


def test_files_are_small_and_no_others():
  files = sorted(FOLDER.glob("*.webp"))
  assert [path.stem for path in files] == sorted(name for _, name in ALL)
  size = sum(path.stat().st_size for path in files)
  assert size < 5_000_000 and f"{size:,} bytes in all" in README


def test_no_author_is_in_two_parts():
  authors = {
      part: {name.rpartition("_by_")[2] for name in names}
      for part, names in PHOTOS.items()}
  assert all(authors.values())
  assert sum(map(len, authors.values())) == len(set().union(*authors.values()))


def crops_by_hand(part, shape):
  """Return every crop of a part, by plain loops over the documented rule."""
  height, width, _ = shape
  down, across = (height, width) if part != "train" else (height // 2, width // 2)
  crops = []
  for name in PHOTOS[part]:
    photo = packaged_photos.read(name)
    top = photo.shape[0] % height // 2
    while top + height <= photo.shape[0]:
      left = photo.shape[1] % width // 2
      while left + width <= photo.shape[1]:
        crops.append(photo[top:top + height, left:left + width].tobytes())
        left += max(across, 1)
      top += max(down, 1)
  return crops


@pytest.mark.parametrize("shape", [(32, 32, 3), (30, 47, 3), (268, 341, 3)])
@pytest.mark.parametrize("part", PHOTOS)
def test_crops_are_those_of_the_rule(part, shape):
  photos = PackagedPhotos(shape)
  images = photos.open(part, 0, photos.sizes[part])
  assert images.shape == (photos.sizes[part], *shape) and images.dtype == np.uint8
  assert sorted(map(bytes, images)) == sorted(crops_by_hand(part, shape))
  # Any range of images is a slice of the same order.
  start, stop = len(images) // 3, len(images) // 2 + 1
  np.testing.assert_array_equal(photos.open(part, start, stop), images[start:stop])


@pytest.mark.parametrize("part", ["validation", "test"])
def test_no_pixel_is_evaluated_twice(part):
  photos = PackagedPhotos((32, 32, 3))
  seen = np.zeros((len(PHOTOS[part]), 1000, 1000), np.uint8)
  for photo, top, left in photos._places[part]:
    seen[photo, top:top + 32, left:left + 32] += 1
  assert seen.max() == 1
  assert seen.sum() == photos.sizes[part] * 32 * 32


def test_the_first_crops_are_of_all_photographs():
  photos = PackagedPhotos((32, 32, 3))
  for part, names in PHOTOS.items():
    assert set(photos._places[part][:60, 0]) == set(range(len(names)))


def test_groups_are_blocks():
  photos = PackagedPhotos((32, 32, 3))
  groups, kind = photos.groups("test", 0, photos.sizes["test"])
  assert kind == "blocks of 128x128 pixels of 3 photographs"
  blocks = {}
  for group, (photo, top, left) in zip(groups, photos._places["test"], strict=True):
    blocks.setdefault(group, set()).add((photo, top // BLOCK, left // BLOCK))
  assert all(len(places) == 1 for places in blocks.values())
  assert len(set.union(*blocks.values())) == len(blocks) == 54
  part, _ = photos.groups("test", 10, 40)
  np.testing.assert_array_equal(
      part[:, None] == part, groups[10:40, None] == groups[10:40])


def test_source():
  config = load_config("quickstart_photos")
  test = load_source(config, "test")
  assert test.description == "photographs (packaged), test"
  assert test.group_kind == "blocks of 128x128 pixels of 3 photographs"
  assert len(test) == len(test.groups) == 745
  config.data.max_images = 100
  first = load_source(config, "test")
  assert len(first) == len(first.groups) == 100
  np.testing.assert_array_equal(first.images, test.images[:100])


def test_grey():
  photos = PackagedPhotos((32, 32, 1))
  assert photos.title == "photographs (packaged, in grey)"
  grey = photos.open("test", 0, 50)
  red, green, blue = np.moveaxis(
      PackagedPhotos((32, 32, 3)).open("test", 0, 50).astype(int), -1, 0)
  luma = (19595 * red + 38470 * green + 7471 * blue + 32768) // 65536
  np.testing.assert_array_equal(grey[..., 0], luma)


@pytest.mark.parametrize("shape", [(269, 32, 3), (32, 342, 3)])
def test_crops_that_do_not_fit(shape):
  with pytest.raises(InputError, match="at most 268 and a width of at most 341"):
    PackagedPhotos(shape)


def test_a_damaged_file(tmp_path):
  path = tmp_path / "x.webp"
  path.write_bytes((FOLDER / f"{ALL[0][1]}.webp").read_bytes()[:1000])
  with pytest.raises(InputError, match="x.webp cannot be read.*install pixelrnn_jax"):
    packaged_photos.read(path)


@pytest.fixture
def script():
  """Import the script as a module, and remove its flags after the test."""
  spec = importlib.util.spec_from_file_location("make_packaged_photos", SCRIPT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  yield module
  for flag in (module.SOURCE, module.OUTPUT):
    delattr(flags.FLAGS, flag.name)


def test_script_reduces_by_area(script, tmp_path, monkeypatch):
  image = np.random.default_rng(0).integers(0, 256, (93, 41, 3), np.uint8)
  monkeypatch.setattr(script, "LONGEST_SIDE", 18)
  # The test needs exact pixels, and PNG is lossless.
  Image.fromarray(image).save(tmp_path / "a.jpg", "PNG")
  digest = hashlib.sha256((tmp_path / "a.jpg").read_bytes()).hexdigest()
  monkeypatch.setattr(script, "SHA256", {"a": digest})
  script.make(tmp_path, tmp_path / "out")
  assert script.factor(41, 93) == 5  # 93 // 5 is 18
  means = image[:90, :40].reshape(18, 5, 8, 5, 3).mean(axis=(1, 3))
  made = packaged_photos.read(tmp_path / "out" / "a.webp")
  assert made.shape == (18, 8, 3)
  assert np.abs(made - means).max() <= 0.53  # Pillow rounds in fixed point


@pytest.mark.parametrize("width, height, by", [
    (2572, 1740, 4), (1365, 1074, 4), (2560, 3837, 5), (5312, 2988, 6), (3603, 9, 4),
    (3604, 9, 5)])
def test_factors(script, width, height, by):
  assert script.factor(width, height) == by


def test_script_refuses_other_files(tmp_path):
  (tmp_path / "Picture_0B_by_freespace.jpg").write_bytes(b"hello")
  run = run_program(
      "make_packaged_photos.py", f"--source={tmp_path}", f"--output={tmp_path}/out")
  assert run.returncode == 1
  assert "freespace.jpg is not the original photograph" in run.stderr
  assert "Traceback" not in run.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_models_of_black_and_white_are_refused(channels, split):
  """Photographs have many values, so a model of two levels would see noise."""
  config = load_config("row_lstm_mnist")
  config.data.source = "packaged_photos"
  config.model.image_shape = (28, 28, channels)
  message = "more than the two values.*--config=row_lstm_photos"
  with pytest.raises(InputError, match=message) as caught:
    load_source(config, split)
  assert "model.levels=2" in str(caught.value)


def test_grey_photographs_of_many_levels_are_taken():
  config = load_config("row_lstm_photos")
  config.model.image_shape = (28, 28, 1)
  assert "in grey" in load_source(config, "test").description
