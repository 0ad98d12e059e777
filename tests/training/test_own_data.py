"""Runs on the user's own images: paths, data that moves, and directories of others."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

import pixelrnn_jax as prnn
from helpers.folders import contents
from helpers.programs import run_program
from helpers.tiny_run import make_tiny_config
from pixelrnn_jax.configs.json_text import from_json, to_json
from pixelrnn_jax.data import load_source
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.metrics import read_metrics
from pixelrnn_jax.training import evaluate_run, train
from pixelrnn_jax.visualization import learning_curves, run_pictures


def make_photos(folder, seed=0, number=15):
  folder.mkdir(parents=True)
  for i, pixels in enumerate(
      np.random.default_rng(seed).integers(0, 256, (number, 9, 12, 3), np.uint8)):
    Image.fromarray(pixels).save(folder / f"{i}.png")
  return folder


def make_config():
  config = make_tiny_config()
  config.data = dataclasses.replace(
      config.data, source="folder:~/photos", data_dir="~/kept", validation_images=3,
      max_images=0)
  config.train = dataclasses.replace(
      config.train, batch_size=4, steps=2, log_every=1, eval_every=2,
      checkpoint_every=1, samples=1)
  return config


@pytest.fixture(scope="module")
def first_home(tmp_path_factory):
  """Make a home directory with photos, a run on them, and files of the user's."""
  home = tmp_path_factory.mktemp("home")
  make_photos(home / "photos")
  (home / "kept" / "partial").mkdir(parents=True)
  (home / "kept" / "partial" / "thesis").write_text("x")
  (home / "kept" / "lock").write_text("y")
  config = make_config()
  # JSON and the command line give a list.
  config.model.image_shape = [8, 8, 3]
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("HOME", str(home))
    patch.delenv("XDG_CACHE_HOME", raising=False)
    (home / "here").mkdir()
    patch.chdir(home / "here")
    train(config, "~/runs/own")
  return home


@pytest.fixture
def home(first_home, tmp_path, monkeypatch):
  """Return a copy of the home directory, in which the test runs.

  The test may change the copy.
  """
  home = pathlib.Path(shutil.copytree(first_home, tmp_path / "home"))
  monkeypatch.setenv("HOME", str(home))
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.chdir(home / "here")
  return home


def test_every_path_of_a_user_may_begin_with_home(home):
  assert not list((home / "here").iterdir())
  assert prnn.restore("~/runs/own")[0].model.image_shape == (8, 8, 3)
  evaluate_run("~/runs/own")
  for draw, options in (
      (run_pictures.draw_completions, dict(patterns=["~/photos/*.png"], num=1)),
      (run_pictures.draw_conditionals, {}), (run_pictures.draw_nll, {})):
    path = draw("~/runs/own", output=f"~/pictures/{draw.__name__}.png", **options)
    assert path == f"{home}/pictures/{draw.__name__}.png" and os.path.exists(path)
  learning_curves.draw_curves(["~/runs/own"])
  train(make_config(), "~/runs/own")
  assert not list((home / "here").iterdir())
  assert sorted(path.name for path in home.glob("[!.]*")) == [
      "here", "kept", "photos", "pictures", "runs"]


def test_files_of_others_in_the_cache_are_left_alone(home):
  assert (home / "kept" / "partial" / "thesis").read_text() == "x"
  assert (home / "kept" / "lock").read_text() == "y"
  names = sorted(path.name for path in (home / "kept").iterdir())
  assert names[1:] == ["lock", "partial", "pixelrnn_jax.lock"]
  assert names[0].startswith("images_") and len(names) == 4
  # They are left alone, too, when decoding fails.
  (home / "photos" / "0.png").write_bytes(b"no image")
  before = contents(home / "kept")
  with pytest.raises(InputError, match="'.*0.png' is not a PNG or JPEG file"):
    load_source(make_config(), "train")
  assert contents(home / "kept") == before
  # They are left alone inside an entry of the cache. The entry cannot be made again
  # then.
  shutil.copy(home / "photos" / "1.png", home / "photos" / "0.png")
  load_source(make_config(), "train")
  entry, = set((home / "kept").glob("images_*")) - {home / "kept" / names[0]}
  (entry / "thesis").write_text("z")
  (entry / "pixels").write_bytes(b"damaged")
  with pytest.raises(InputError, match="cannot be kept in .*kept: File exists"):
    load_source(make_config(), "train")
  assert (entry / "thesis").read_text() == "z"


def test_an_entry_that_is_a_link(home, tmp_path):
  """An entry of the cache that is a link is refused, and its target is not written."""
  victim = tmp_path / "victim"
  victim.mkdir()
  (victim / "pixels").write_text("precious")
  load_source(make_config(), "train")
  entry = max((home / "kept").glob("images_*"), key=os.path.getmtime)
  shutil.rmtree(entry)
  entry.symlink_to(victim)
  before = contents(victim)
  with pytest.raises(InputError, match="cannot be kept in .*kept: File exists"):
    load_source(make_config(), "train")
  assert contents(victim) == before and entry.is_symlink()


def test_reading_a_run_writes_nowhere_that_its_config_chooses(home, tmp_path):
  victim = tmp_path / "victim"
  (victim / "partial").mkdir(parents=True)
  (victim / "partial" / "thesis").write_text("x")
  (victim / "lock").write_text("y")
  (victim / "images_0").mkdir()
  before = contents(victim)
  config = from_json((home / "runs" / "own" / "config.json").read_text())
  config.data.data_dir = str(victim)
  (home / "runs" / "own" / "config.json").write_text(to_json(config))
  evaluate_run("~/runs/own")
  run_pictures.draw_completions("~/runs/own", num=1, completions=1)
  assert contents(victim) == before
  assert len(list((home / ".cache" / "pixelrnn_jax").glob("images_*"))) == 1
  # A directory that the user names is written to.
  evaluate_run("~/runs/own", moved={"data_dir": str(victim)})
  assert len(list(victim.glob("images_*"))) == 2
  assert before.items() <= contents(victim).items()


def test_no_standard_error_of_one_image(home, capsys):
  record = json.loads((home / "runs" / "own" / "evaluation.json").read_text())
  assert record["images"] == 1
  assert record["nats_standard_error"] is None is record["bits_standard_error"]
  evaluate_run("~/runs/own")
  assert "+/-" not in capsys.readouterr().out
  evaluate_run("~/runs/own", "validation")
  assert "+/-" in capsys.readouterr().out
  assert any("validation/nats_standard_error" in x for x in read_metrics("~/runs/own"))


def test_a_folder_that_has_moved(home, capsys):
  figures = evaluate_run("~/runs/own")
  (home / "photos").rename(home / "elsewhere")
  with pytest.raises(InputError, match="does not exist.*--config.data.source=folder:"):
    evaluate_run("~/runs/own")
  moved = {"source": "folder:~/elsewhere"}
  capsys.readouterr()
  again = evaluate_run("~/runs/own", moved=moved)
  assert again["nats_per_image"] == figures["nats_per_image"]
  assert "other images" not in capsys.readouterr().err
  run_pictures.draw_completions("~/runs/own", num=1, completions=1, moved=moved)
  # The run continues, because its pixels are the same.
  config = make_config()
  config.data.source, config.train.steps = "folder:~/elsewhere", 3
  train(config, "~/runs/own")
  with Checkpoints(str(home / "runs" / "own")) as checkpoints:
    assert checkpoints.steps() == [2, 3]
  evaluate_run("~/runs/own")  # the run now knows the new place
  # Other images can be evaluated, with a note. A run cannot be trained on them.
  make_photos(home / "others", seed=1)
  evaluate_run("~/runs/own", moved={"source": "folder:~/others"})
  assert "note: the run was trained on other images" in capsys.readouterr().err
  config.data.source = "folder:~/others"
  with pytest.raises(InputError, match="was trained on .*, and now data.source is"):
    train(config, "~/runs/own")


def test_parts_that_are_divided_otherwise(home):
  """A run is not continued on the same images in other parts.

  The pixels and their order are the same. One image of `train` is now in `validation`.
  """
  parts = home / "parts"
  for part, numbers in (("test", range(3)), ("train", range(3, 12)),
                        ("validation", range(12, 15))):
    (parts / part).mkdir(parents=True)
    for i in numbers:
      shutil.copy(home / "photos" / f"{i}.png", parts / part / f"{i:02}.png")
  config = make_config()
  config.data.source = "folder:~/parts"
  train(config, "~/runs/parts")
  (parts / "train" / "11.png").rename(parts / "validation" / "11.png")
  with pytest.raises(InputError, match="was trained on"):
    train(config, "~/runs/parts")


def test_a_batch_that_the_images_do_not_fill(home):
  config = make_config()
  config.train.batch_size = 12
  with pytest.raises(InputError, match="batch_size=12, .* only 11 images to train on"):
    train(config, "~/runs/other")
  config.train.batch_size = 10**9
  with pytest.raises(InputError, match="batch_size=1,000,000,000"):
    train(config, "~/runs/other")
  assert not (home / "runs" / "other").exists()


def test_a_directory_with_figures_of_others(home):
  (home / "mine").mkdir()
  (home / "mine" / "evaluation.json").write_text("mine")
  with pytest.raises(InputError, match="holds evaluation.json but no config.json"):
    train(make_config(), "~/mine")
  assert (home / "mine" / "evaluation.json").read_text() == "mine"


def test_the_programs(home):
  """The programs find moved data, and names that stdout cannot encode.

  They also expand a `~` inside an argument.
  """
  (home / "photos").rename(home / "vögel")

  def run(program, *arguments):
    done = run_program(program, "--workdir=~/runs/own", *arguments, encoding="ascii")
    assert "Traceback" not in done.stderr, done.stderr
    return done

  done = run("evaluate.py")
  assert done.returncode == 1
  assert "--config.data.source=folder:PATH says where it is now" in done.stderr
  moved = "--config.data.source=folder:~/vögel"
  done = run("evaluate.py", moved)
  assert done.returncode == 0 and "test: " in done.stdout, done.stderr
  assert r"v\xf6gel" in done.stdout
  done = run("sample.py", "--complete", "--num=1", "--completions=1", moved)
  assert done.returncode == 0, done.stderr
  done = run("plot.py", "--what=nll", "--num=1", moved, "--output=~/nll.png")
  assert done.returncode == 0 and (home / "nll.png").exists(), done.stderr
  assert not list((home / "here").iterdir())
