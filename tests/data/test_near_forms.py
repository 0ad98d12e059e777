"""Folders and .npz files that nearly have the documented form.

They are refused, or a note tells how they are read.
"""

import numpy as np
import pytest
from PIL import Image

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.data import check_enough, load_source, own_parts
from pixelrnn_jax.data.given_images import GivenImages
from pixelrnn_jax.errors import InputError

SHAPE = (4, 6, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SHAPE), np.uint8)
GREY = IMAGES[..., :1].repeat(3, axis=-1)


def make_config(path, shape=SHAPE, levels=256):
  config = load_config("pixel_cnn_cifar10:smoke")
  config.model.image_shape, config.model.levels = shape, levels
  config.data.source, config.data.max_images = f"folder:{path}", 0
  config.data.binarization = "static" if levels == 2 else "none"
  config.data.validation_images = 2
  config.validate()
  return config


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_folder(path, names, images=IMAGES):
  for number, name in enumerate(names):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    if name.endswith((".png", ".jpg")):
      Image.fromarray(images[number % len(images)]).save(path / name)
    else:
      (path / name).write_bytes(b"x")
  return path


def of(*folders):
  """Return the names of three images in each of the folders."""
  return [f"{folder}/{i}.png" for folder in folders for i in range(3)]


GOOD = of("train", "validation", "test")
FLAT = [f"{i}.png" for i in range(12)]


@pytest.mark.parametrize("names, message", [
    (of("train", "val", "test"), "'val' looks like the part 'validation'"),
    (of("train", "valid", "test"), "'valid' looks like the part 'validation'"),
    (of("train", "dev", "test"), "'dev' looks like the part 'validation'"),
    (of("train", "Validation", "test"), "'Validation' looks like the part"),
    (of("train", "validaton", "test"), "'validaton' looks like the part 'validation'"),
    (of("Train", "Test"), "looks like the part"),
    (of("TRAIN", "TEST"), "looks like the part"),
    (of("training", "testing"), "looks like the part"),
    (of("train_images", "test_images"), "looks like the part"),
    (of("TrainSet", "TestSet"), "looks like the part"),
    (of("trainset", "testset"), "looks like the part"),
    (of("train2017", "val2017"), "looks like the part"),
    (of("cats_train", "cats_test"), "looks like the part"),
    (of("test", "validation"), "looks like the part"),
    (of("val"), "looks like the part"),
    (of("train", "testing"), "no 'test'|looks like the part"),
    (of("mine/train", "mine/test"), "'mine/t.*' looks like the part"),
    (of("cats/train", "dogs/train"), "looks like the part"),
    ([f"{part}_{i}.png" for part in ("train", "test") for i in range(5)],
     "the names of all images hold a part .test, train."),
    ([f"a/{part}{i}.png" for part in ("Train", "val") for i in range(5)],
     "the names of all images hold a part .train, validation."),
    ([f"{i}_{part}.png" for part in ("train", "test") for i in range(5)],
     "the names of all images hold a part .test, train."),
    ([f"img-{part}{i}.png" for part in ("Train", "val") for i in range(5)],
     "the names of all images hold a part .train, validation."),
    (of("trainA", "trainB", "testA", "testB"), "'testA' looks like the part 'test'"),
    (of("imagesTr", "imagesTs"), "'imagesTr' looks like the part 'train'"),
    (of("tr", "te"), "'te' looks like the part 'test'"),
    ([*GOOD, "stray.png"], "1 images that are in none of them, such as 'stray.png'"),
    ([*GOOD, *of("more")], "3 images that are in none of them, such as 'more/0.png'"),
    ([*GOOD, *of("more/deep")], "none of them, such as 'more/deep/0.png'"),
    ([*FLAT, "a.webp", "b.tif"], "2 image files of other formats .'a.webp', 'b.tif'"),
    ([*GOOD, "train/a.gif"], "1 image files of other formats"),
    ([*GOOD, "validation/a.BMP"], "1 image files of other formats"),
])
def test_folders_that_are_refused(tmp_path, names, message):
  path = make_folder(tmp_path / "own", names)
  with pytest.raises(InputError, match=message) as error:
    load_source(make_config(path), "train")
  assert str(path) in str(error.value) and "\n" not in str(error.value)
  assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("names, sizes, notes", [
    (FLAT, (9, 2, 1), []),
    (GOOD, (3, 3, 3), []),
    ([f"{kind}/{i}.png" for kind in ("cats", "trails", "rain", "cats_test")
      for i in range(3)], (9, 2, 1), []),
    ([*FLAT, "notes.txt", "labels.csv"], (9, 2, 1),
     ["other files are not read: 'labels.csv', 'notes.txt'"]),
    ([*GOOD, "README.md", "train/labels.csv"], (3, 3, 3), [
        "other files are not read: 'train/labels.csv'",
        "other files are not read: 'README.md'"]),
    # CIFAR-100 has a class called `train`.
    ([*GOOD, *of("train/train", "test/train")], (6, 3, 6), [
        "'train/train' is read as images of 'train'",
        "'test/train' is read as images of 'test'"]),
    # Some of these images show trains.
    ([f"{name}_{i}.png" for name in ("train", "test", "ship") for i in range(4)],
     (9, 2, 1), []),
    ([f"train_{i}.png" for i in range(12)], (9, 2, 1), []),
    ([*FLAT, ".DS_Store", ".thumbs/1.png"], (9, 2, 1), []),
])
def test_folders_that_are_read(tmp_path, names, sizes, notes):
  config = make_config(make_folder(tmp_path / "own", names))
  sources = [load_source(config, s) for s in ("train", "validation", "test")]
  assert tuple(map(len, sources)) == sizes
  assert sorted(sources[0].notes) == sorted(notes)


def test_links(tmp_path):
  """A link to a part's folder is followed. A note names all other links to folders."""
  elsewhere = make_folder(tmp_path / "elsewhere", of("a", "b"))
  own = make_folder(tmp_path / "own", of("test"))
  (own / "train").symlink_to(elsewhere / "a")
  (own / "more").symlink_to(elsewhere / "b")
  source = load_source(make_config(own), "test")
  assert len(source) == 3
  assert source.notes == ("links to folders are not read: 'more'",)
  (own / "more").rename(own / "val")
  with pytest.raises(InputError, match="'val' looks like the part 'validation'"):
    load_source(make_config(own), "test")


PARTS = {"train": IMAGES, "test": IMAGES[:3]}


@pytest.mark.parametrize("arrays, message", [
    (PARTS | {"val": IMAGES}, "'val' looks like the part 'validation'"),
    (PARTS | {"valid": IMAGES}, "'valid' looks like the part 'validation'"),
    (PARTS | {"Validation": IMAGES}, "'Validation' looks like the part"),
    (PARTS | {"x_val": IMAGES}, "'x_val' looks like the part"),
    (PARTS | {"held_out": IMAGES}, "'held_out' looks like the part 'test'"),
    ({"Train": IMAGES, "Test": IMAGES}, "it must hold 'images', or 'train' and 'test'"),
    ({"training": IMAGES, "testing": IMAGES}, "'training' looks like the part 'train'"),
    ({"images": IMAGES, "train": IMAGES}, "'train' looks like the part 'train'"),
    ({"images": IMAGES, "test": IMAGES}, "'test' looks like the part 'test'"),
    ({"images": IMAGES, "val_images": IMAGES}, "'val_images' looks like the part"),
    (PARTS | {"validation/images": IMAGES}, "looks like the part 'validation'"),
    ({"Images": IMAGES}, "it must hold 'images'"),
    ({"train": IMAGES}, "it must hold 'images'"),
])
def test_npz_files_that_are_refused(tmp_path, arrays, message):
  np.savez(tmp_path / "own.npz", **arrays)
  with pytest.raises(InputError, match=message):
    load_source(make_config(tmp_path / "own.npz"), "train")
  assert not (tmp_path / "cache").exists()


def test_npz_files_that_are_read(tmp_path):
  labels = {"train_labels": np.arange(12), "test_labels": np.arange(3)}
  np.savez(tmp_path / "own.NPZ", **PARTS, **labels)
  (tmp_path / "own.NPZ.npz").rename(tmp_path / "own.NPZ")
  source = load_source(make_config(tmp_path / "own.NPZ"), "train")
  assert len(source) == 10
  assert source.notes == (
      "other arrays are not read: 'train_labels', 'test_labels'",)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_advice_about_floats(tmp_path, dtype):
  np.savez(tmp_path / "own.npz", images=(IMAGES / 255).astype(dtype))
  with pytest.raises(InputError, match=r"from 0 to 1: save np.round\(255 \* array\)"):
    load_source(make_config(tmp_path / "own.npz"), "train")
  # The advice of the message gives the right images.
  followed = np.round(255 * (IMAGES / 255).astype(dtype)).astype(np.uint8)
  np.testing.assert_allclose(followed, IMAGES.astype(int), atol=1)


@pytest.mark.parametrize("levels", [256, 16])
@pytest.mark.parametrize("largest", [0, 1])
def test_images_that_would_be_black(tmp_path, levels, largest):
  """Images made by truncating floats from 0 to 1 to bytes are refused.

  Such images are black. They are refused in an .npz and in a folder.
  """
  black = (IMAGES / 255 * largest).astype(np.uint8)
  black[0, 0, 0] = largest
  np.savez(tmp_path / "own.npz", images=black)
  folder = make_folder(tmp_path / "own", FLAT, black)
  for path in (tmp_path / "own.npz", folder):
    with pytest.raises(InputError, match=r"no value above .*np.round\(255 \* array\)"):
      load_source(make_config(path, levels=levels), "train")


def test_black_images_in_one_part_or_in_given_ones(tmp_path):
  black = (IMAGES > 127).astype(np.uint8)
  for number, split in enumerate(("train", "validation", "test")):
    parts = dict.fromkeys(("train", "validation", "test"), IMAGES) | {split: black}
    np.savez(tmp_path / f"{number}.npz", **parts)
    config = make_config(tmp_path / f"{number}.npz")
    with pytest.raises(InputError, match=f"split '{split}', holds no value above 1"):
      load_source(config, split)
  with pytest.raises(InputError, match=r"2.npz' holds no value above 1.*255 \* array"):
    GivenImages([str(tmp_path / "2.npz")], SHAPE, 256).read(2)
  # A single black image is allowed.
  np.savez(tmp_path / "one.npz", train=IMAGES, test=IMAGES[:1] * 0)
  assert len(load_source(make_config(tmp_path / "one.npz"), "test")) == 1
  assert not GivenImages([str(tmp_path / "one.npz")], SHAPE, 256).read(1).any()


@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize("largest, dark", [(2, True), (15, True), (63, True),
                                           (64, False), (255, False)])
def test_images_that_are_nearly_black(tmp_path, levels, largest, dark):
  shape = SHAPE if levels == 256 else (4, 6, 1)
  images = np.minimum(IMAGES, largest)[..., :shape[2]]
  np.savez(tmp_path / "own.npz", images=images)
  notes = load_source(make_config(tmp_path / "own.npz", shape, levels), "train").notes
  assert [f"above {largest} of 255: they are nearly black" in n for n in notes] == (
      [True] if dark else [])
  np.savez(tmp_path / "few.npz", images=np.minimum(IMAGES, 3))
  assert not load_source(make_config(tmp_path / "few.npz", levels=4), "train").notes


def test_bits_are_good_for_a_binary_model(tmp_path):
  bits = (IMAGES[..., :1] > 127).astype(np.uint8)
  np.savez(tmp_path / "own.npz", images=bits)
  source = load_source(make_config(tmp_path / "own.npz", (4, 6, 1), 2), "train")
  assert set(source.images.ravel()) == {0, 1}


def test_colour_images_and_a_binary_model(tmp_path):
  large = IMAGES.repeat(8, axis=1).repeat(8, axis=2)
  path = make_folder(tmp_path / "own", [f"{i}.jpg" for i in range(12)], large)
  config = make_config(path, (28, 28, 1), 2)
  with pytest.raises(InputError, match="12 of its images are in colour.*--config="
                     "pixel_cnn_cifar10.*image_shape='.28, 28, 3.'.*levels=256"
                     ".*binarization=none"):
    load_source(config, "test")
  with pytest.raises(InputError, match="black and white values .model.levels=2."):
    load_source(make_config(path, (28, 28, 3), 2), "test")
  with pytest.raises(InputError, match="0.jpg' is in colour, but the model"):
    GivenImages([str(path)], (28, 28, 1), 2).read(1)
  # Grey images are allowed. A model of grey values takes colour images, and a note says
  # what it does with them.
  grey = make_folder(tmp_path / "grey", FLAT, GREY)
  load_source(make_config(grey, (28, 28, 1), 2), "test")
  source = load_source(make_config(path, (28, 28, 1)), "test")
  assert source.notes == (
      "12 of 12 images are in colour and become grey, as the model has 1 channel",)
  assert "would do" in load_source(make_config(grey), "test").notes[0]


def test_too_few_images_for_a_batch(tmp_path):
  config = make_config(make_folder(tmp_path / "own", FLAT))
  source = load_source(config, "train")
  config.train.batch_size = 9
  check_enough(config, source)
  config.train.batch_size = 10
  with pytest.raises(InputError, match="batch_size=10, .* only 9 images to train on"):
    check_enough(config, source)


def test_names_that_mean_a_part():
  for name in ("test", "Tests", "TEST", "test-01", "x_test", "xtest", "test_data",
               "deep/down/test images"):
    assert own_parts.near_part(name) == "test", name
  for name in ("text", "tester", "latest", "contest", "attest", "rest", "cats_test",
               "test_labels", "", "12", "x", "images"):
    assert not own_parts.near_part(name), name
