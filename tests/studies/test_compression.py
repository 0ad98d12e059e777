"""Compression of image files to one file, and back to the same images."""

import os

import numpy as np
import pytest
from PIL import Image

import pixelrnn_jax as prnn
from helpers.folders import contents
from helpers.parameters import random_model
from helpers.programs import run_program
from pixelrnn_jax.inference import coding
from pixelrnn_jax.runs.restore import Run
from pixelrnn_jax.studies import compression

SHAPE = (3, 4, 3)


@pytest.fixture(scope="module")
def run():
  model, variables = random_model("pixel_cnn", SHAPE, 256)
  config = prnn.load_config("pixel_cnn_cifar10:smoke")
  config.model = model.config
  return Run(config, model, variables["params"], 7)


@pytest.fixture(autouse=True)
def loaded(run, monkeypatch, tmp_path):
  """Make `run` the content of every work directory; use an empty folder."""
  monkeypatch.setattr(compression, "load_run", lambda *_: run)
  monkeypatch.chdir(tmp_path)


def pictures(number=4, shape=SHAPE, levels=256):
  return np.random.default_rng(0).integers(0, levels, (number, *shape), np.uint8)


def write(folder, names, images):
  for name, image in zip(names, images, strict=True):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.squeeze()).save(path, "PNG")


def compress(*patterns, **changes):
  # Each of two devices takes one image. So one program fits all numbers of images.
  arguments = dict(output="out.prnn", compare=False, batch_size=1) | changes
  return compression.compress_images("run", patterns, **arguments)


def test_files_come_back_as_they_were_named(tmp_path):
  names = ["b.png", "a/ä 1.png", "a/b/c.PNG", "d.jpg"]
  write(tmp_path / "in", names, pictures())
  text = compress("in")
  assert "4 images (own images)" in text and "are the same" in text
  paths = compression.decompress_images("run", "out.prnn", "back")
  assert {os.path.relpath(path, "back") for path in paths} == {
      "b.png", "a/ä 1.png", "a/b/c.PNG", "d.jpg.png"}
  for name, image in zip(names, pictures(), strict=True):
    name += "" if name.lower().endswith(".png") else ".png"
    np.testing.assert_array_equal(Image.open(tmp_path / "back" / name), image)
  assert {p.name for p in tmp_path.iterdir()} == {"in", "back", "out.prnn"}


def test_images_without_names_are_numbered(tmp_path):
  images = pictures(11)
  np.savez("images.npz", images=images)
  compress("images.npz")
  paths = compression.decompress_images("run", "out.prnn", "back")
  assert [os.path.basename(p) for p in paths] == [f"{n:02d}.png" for n in range(11)]
  for path, image in zip(paths, images, strict=True):
    np.testing.assert_array_equal(Image.open(path), image)


def test_files_that_would_not_come_back_are_refused_or_converted(tmp_path):
  write(tmp_path / "in", ["good.png", "better.png"], pictures(2))
  write(tmp_path / "in", ["large.png"], pictures(1, (6, 9, 3)))
  before = contents(tmp_path)
  with pytest.raises(prnn.InputError, match=r"1 of 3 images .*large\.png.*--convert"):
    compress("in")
  assert contents(tmp_path) == before
  assert "1 of them converted" in compress("in", convert=True)
  paths = compression.decompress_images("run", "out.prnn", "back")
  np.testing.assert_array_equal(Image.open(paths[1]), pictures(2)[0])
  assert Image.open(paths[2]).size == (4, 3)


def test_grey_files_are_colours_to_a_colour_model(tmp_path):
  grey = pictures(2, (3, 4))
  write(tmp_path / "in", ["1.png", "2.png"], grey)
  compress("in")
  paths = compression.decompress_images("run", "out.prnn", "back")
  for path, image in zip(paths, grey, strict=True):
    np.testing.assert_array_equal(Image.open(path), np.stack([image] * 3, axis=-1))


@pytest.mark.parametrize("levels", [2, 3, 16, 200, 255, 256])
def test_what_is_written_is_read_as_the_same_values(levels):
  values = np.arange(levels, dtype=np.uint8).reshape(1, 1, -1, 1)
  pixels = compression.to_pixels(values, levels)
  assert pixels.dtype == np.uint8
  assert (np.diff(pixels.reshape(-1).astype(int)) > 0).all()
  np.testing.assert_array_equal(pixels.astype(int) * levels // 256, values)
  if levels == 2:
    assert pixels.max() == 255


def test_nothing_of_the_users_is_replaced(tmp_path):
  write(tmp_path / "in", ["a.png", "b.png"], pictures(2))
  (tmp_path / "out.prnn").write_text("thesis")
  (tmp_path / "back").mkdir()
  (tmp_path / "back" / "b.png").write_text("thesis")
  (tmp_path / "back" / "b.png.tmp").write_text("thesis")
  before = contents(tmp_path)
  with pytest.raises(prnn.InputError, match="there already.*--overwrite"):
    compress("in")
  assert contents(tmp_path) == before
  compress("in", overwrite=True)
  before = contents(tmp_path)
  with pytest.raises(prnn.InputError, match="1 of 2 files are there already"):
    compression.decompress_images("run", "out.prnn", "back")
  assert contents(tmp_path) == before
  compression.decompress_images("run", "out.prnn", "back", overwrite=True)
  np.testing.assert_array_equal(
      Image.open(tmp_path / "back" / "b.png"), pictures(2)[1])
  assert (tmp_path / "back" / "b.png.tmp").read_text() == "thesis"


@pytest.mark.parametrize("names", [
    ("a", "a.png"), ("a.png", "a.png/b"), ("A.png", "a.png")])
def test_names_that_meet_in_one_file(run, names, tmp_path):
  content = coding.compress(
      run.model, {"params": run.params}, pictures(2), 1, names=names)
  (tmp_path / "file").write_bytes(content)
  with pytest.raises(prnn.InputError, match="one file here"):
    compression.decompress_images("run", "file", "back")
  assert not (tmp_path / "back").exists()


def test_damage_and_bad_paths(tmp_path):
  write(tmp_path / "in", ["a.png", "b.png"], pictures(2))
  compress("in")
  content = (tmp_path / "out.prnn").read_bytes()
  (tmp_path / "cut").write_bytes(content[:-3])
  (tmp_path / "text").write_text("not one of ours")
  os.mkfifo("pipe")
  for path, message in [
      ("cut", "damaged"), ("text", "no file of compressed"), ("none", "cannot be read"),
      ("in", "cannot be read"), ("pipe", "cannot be read")]:
    with pytest.raises(prnn.InputError, match=message):
      compression.decompress_images("run", path, "back")
  with pytest.raises(prnn.InputError, match="not a directory"):
    compression.decompress_images("run", "out.prnn", "text")
  with pytest.raises(prnn.InputError, match="is a directory"):
    compress("in", output="in")
  with pytest.raises(prnn.InputError, match="not a directory"):
    compress("in", output="text/file")
  with pytest.raises(prnn.InputError, match="there are 2"):
    compress("in", num=3, overwrite=True)
  with pytest.raises(prnn.InputError, match="given twice"):
    compress("in", "in/a.png", overwrite=True)
  assert not (tmp_path / "back").exists()


def test_the_table_is_of_the_same_images(run):
  images = pictures(5)
  sizes = compression.measure_codecs(images, 256)
  assert sizes["PNG"].each > sizes["PNG"].together > 0
  text = compression.format_sizes(
      images.size, 8 * 1000, run.config.model, {"ours": compression.Sizes(1234)})
  assert "1,000" in text and "1,234" in text
  assert f"{8 * 1234 / 180:.4f}" in text


def test_the_program(tmp_path):
  """The program compresses digits with the packaged model and restores them."""
  images = np.zeros((2, 28, 28), np.uint8)
  images[0, 5:20, 14], images[1, 8:12, 6:20] = 255, 255
  write(tmp_path / "digits", ["one.png", "minus.png"], images)
  before = contents(tmp_path)
  done = run_program(
      "compress.py", "--images=digits/*.png", "--output=out.prnn", cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  for text in ("the model's NLL", "PNG", "WebP", "Written to out.prnn"):
    assert text in done.stdout
  assert (tmp_path / "out.prnn").stat().st_size < 250
  back = run_program(
      "compress.py", "--decompress=out.prnn", "--output=back", cwd=tmp_path)
  assert back.returncode == 0, back.stderr
  for name, image in zip(["one", "minus"], images, strict=True):
    np.testing.assert_array_equal(
        Image.open(tmp_path / "back" / f"{name}.png").convert("L"), image)
  bad = run_program("compress.py", "--images=digits", cwd=tmp_path)
  assert bad.returncode == 1 and "--output is required" in bad.stderr
  assert before.items() <= contents(tmp_path).items()
