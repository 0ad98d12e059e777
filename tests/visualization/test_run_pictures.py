"""Pictures of a run, made from Python and from the command line."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import pixelrnn_jax as prnn
from helpers.folders import contents
from helpers.pictures import assert_same_above_the_caption
from helpers.programs import run_program
from pixelrnn_jax import data
from pixelrnn_jax.configs.json_text import to_json
from pixelrnn_jax.inference.receptive_field import receptive_field
from pixelrnn_jax.runs import layout
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.metrics import MetricsWriter
from pixelrnn_jax.runs.optimizer import make_optimizer
from pixelrnn_jax.runs.restore import load_run
from pixelrnn_jax.runs.state import init_state
from pixelrnn_jax.visualization import (
  figures,
  learning_curves,
  picture_requests,
  run_pictures,
)
from pixelrnn_jax.visualization.grids import HIDDEN, save_completions, save_grid


def make_run(workdir, name, **model):
  """Make a work directory with an untrained checkpoint of step 0; return its path."""
  config = prnn.load_config(f"{name}:smoke")
  config.model = dataclasses.replace(
      config.model, hidden=4, layers=1, head_features=4, **model)
  config.data = dataclasses.replace(
      config.data, validation_images=8, max_images=8)
  workdir.mkdir()
  (workdir / layout.CONFIG).write_text(to_json(config))
  model = prnn.build_model(config.model)
  optimizer = make_optimizer(config.optimizer, config.train.steps)
  state = jax.jit(
      lambda key: init_state(model, optimizer, key, config.model.image_shape)
  )(jax.random.key(1))
  iterator = data.train_iterator(config, data.load_source(config, "train"))
  with Checkpoints(str(workdir), write=True) as checkpoints:
    checkpoints.save(0, jax.device_get(state), iterator, 1.0)
  return workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Make runs on binary 28 x 28 images, on 5 x 7 ones in colour, and of two scales."""
  folder = tmp_path_factory.mktemp("runs")
  return {
      "binary": make_run(folder / "binary", "diagonal_bilstm_mnist"),
      "colour": make_run(folder / "colour", "pixel_cnn_cifar10", image_shape=(5, 7, 3)),
      "scales": make_run(folder / "scales", "multi_scale_mnist"),
  }


def restored(workdir):
  run = load_run(str(workdir))
  return run.config, run.model, {"params": run.params}


def first_images(config, split, num):
  source = data.load_source(config, split)
  return np.stack([source[i] for i in range(num)])


def test_samples(runs, tmp_path):
  config, model, variables = restored(runs["colour"])
  path = run_pictures.draw_samples(
      str(runs["colour"]), 3, 0.7, 5, output=str(tmp_path / "a" / "b.png"))
  images = prnn.sample(model, variables, jax.random.key(5), 3, 0.7)
  save_grid(images, str(tmp_path / "expected.png"), config.model.levels)
  assert path == str(tmp_path / "a" / "b.png")
  assert_same_above_the_caption(path, tmp_path / "expected.png")


def test_what_a_picture_shows_is_in_its_metadata(runs, tmp_path):
  path = str(tmp_path / "a.png")
  config, _, _ = restored(runs["colour"])
  expected = {
      "config": config.name, "step": "0",
      "Software": f"pixelrnn_jax {prnn.__version__}"}
  workdir, test = str(runs["colour"]), data.load_source(config, "test").description
  for draw, options, more in (
      (run_pictures.draw_samples, dict(num=2, temperature=0.5, seed=7),
       {"Title": "2 samples at temperature 0.5", "seed": "7"}),
      (run_pictures.draw_completions, dict(num=1, completions=2),
       {"Title": "hidden, 2 completions, original", "seed": "0", "data": test}),
      (run_pictures.draw_nll, dict(num=1), {"data": test})):
    draw(workdir=workdir, output=path, **options)
    with Image.open(path) as picture:
      assert (expected | more).items() <= picture.text.items()


@pytest.mark.parametrize("arguments, name", [
    (dict(), "samples_step_00000000_seed_0.png"),
    (dict(seed=3, temperature=0.5),
     "samples_step_00000000_seed_3_temperature_0.5.png")])
def test_the_name_says_what_was_drawn(runs, arguments, name):
  path = pathlib.Path(run_pictures.draw_samples(str(runs["colour"]), 1, **arguments))
  assert path == runs["colour"] / "samples" / name
  path.unlink()


@pytest.mark.parametrize("known_rows, kept", [(None, 2), (0, 0), (4, 4)])
def test_completions(runs, tmp_path, known_rows, kept):
  config, model, variables = restored(runs["colour"])
  path = run_pictures.draw_completions(
      str(runs["colour"]), 2, 3, known_rows, "train", seed=5,
      output=str(tmp_path / "a.png"))
  images = first_images(config, "train", 2)
  known = np.arange(5)[:, None] < np.full(7, kept)
  completions = prnn.complete(
      model, variables, jax.random.key(5), images.repeat(3, axis=0), known)
  completions = completions.reshape(2, 3, 5, 7, 3)
  assert (completions[:, :, kept:] != images[:, None, kept:]).any()
  save_completions(images, known, completions, str(tmp_path / "b.png"), levels=256)
  assert_same_above_the_caption(path, tmp_path / "b.png")


def test_completions_of_the_users_files(runs, tmp_path):
  rng = np.random.default_rng(0)
  for name in "ab":
    image = rng.integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / f"{name}.png")
  path = run_pictures.draw_completions(
      str(runs["colour"]), completions=1, patterns=[str(tmp_path / "*.png")],
      output=str(tmp_path / "out.png"))
  # Two strips of three images. A value takes 27 x 27 pixels.
  scale = 192 // 7
  gap = scale * 7 // 16
  picture = np.asarray(Image.open(path))[:2 * 5 * scale + 3 * gap]
  assert picture.shape[1] == 3 * 7 * scale + 8 * gap
  # The image in the lower right corner is the last one that was read.
  corner = picture[-5 * scale - gap:-gap, -7 * scale - gap:-gap]
  np.testing.assert_array_equal(corner[::scale, ::scale], image)
  left = picture[-5 * scale - gap:-gap, gap:7 * scale + gap]
  np.testing.assert_array_equal(left[::scale, ::scale][:2], image[:2])
  assert {tuple(x) for x in left[2 * scale:].reshape(-1, 3)} == set(HIDDEN)


@pytest.mark.parametrize("kind, pixels, expected", [
    ("colour", None, [(1, 1), (1, 5), (3, 1), (3, 5)]),
    ("colour", [(4, 6)], [(4, 6)]), ("binary", None, None)])
def test_conditionals(runs, tmp_path, monkeypatch, kind, pixels, expected):
  name = "probabilities_figure" if kind == "binary" else "conditionals_figure"
  original, calls = getattr(figures, name), []

  def spy(*arguments):
    calls.append(arguments)
    return original(*arguments)

  monkeypatch.setattr(figures, name, spy)
  path = run_pictures.draw_conditionals(
      str(runs[kind]), 2, pixels, "validation", output=str(tmp_path / "a.png"))
  assert Image.open(path).format == "PNG"
  config, model, variables = restored(runs[kind])
  images = first_images(config, "validation", 2)
  logits = np.float64(model.apply(variables, images))
  probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_array_equal(calls[0][0], images)
  if kind == "binary":
    np.testing.assert_allclose(calls[0][1], probabilities[..., 1], atol=1e-6)
  else:
    assert calls[0][2] == expected
    for p, (row, column) in enumerate(expected):
      np.testing.assert_allclose(
          calls[0][1][:, p], probabilities[:, row, column], atol=1e-6)


def test_chosen_images_of_a_split(runs):
  run = load_run(str(runs["colour"]))
  chosen, description = picture_requests.chosen_images(
      run, "test", None, None, None, 2, examples=[5, np.int32(0), 5])
  first = first_images(run.config, "test", 6)
  np.testing.assert_array_equal(chosen, first[[5, 0, 5]])
  assert description == data.load_source(run.config, "test").description


@pytest.fixture
def drawn(monkeypatch):
  """Return a list that records the arguments of every figure."""
  calls = []

  def spy(original):
    def figure(*arguments):
      calls.append(arguments)
      return original(*arguments)
    return figure

  for name in ("nll_figure", "receptive_field_figure", "curves_figure"):
    monkeypatch.setattr(figures, name, spy(getattr(figures, name)))
  return calls


@pytest.mark.parametrize("kind, figure", [
    ("binary", "bits"), ("colour", "bits/dim"), ("scales", "bits")])
def test_likelihoods(runs, tmp_path, drawn, kind, figure):
  path = run_pictures.draw_nll(str(runs[kind]), 2, output=str(tmp_path / "a.png"))
  assert Image.open(path).format == "PNG"
  config, model, variables = restored(runs[kind])
  expected = first_images(config, "test", 2)
  images, bits, levels, titles, title = drawn[0]
  np.testing.assert_array_equal(images, expected)
  nats = -np.float64(jax.tree.leaves(prnn.log_probs(model, variables, expected))[-1])
  np.testing.assert_allclose(bits, nats / np.log(2), rtol=1e-4, atol=1e-6)
  assert levels == config.model.levels
  for nats_map, said in zip(nats, titles, strict=True):
    per = np.log(2) * (nats_map.size if figure == "bits/dim" else 1)
    first, second = said.split(", ")
    assert float(first.removesuffix(" nats")) == pytest.approx(nats_map.sum(), abs=0.1)
    assert float(second.removesuffix(f" {figure}")) == pytest.approx(
        nats_map.sum() / per, abs=0.1 if figure == "bits" else 1e-3)
  assert data.load_source(config, "test").description in title
  assert ("28x28 given 7x7" in title) == (kind == "scales")


def test_receptive_field_of_a_run_and_of_a_config(runs, tmp_path, drawn, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = run_pictures.draw_receptive_field(workdir=str(runs["colour"]), num=2, seed=3)
  assert path == str(
      runs["colour"] / "samples" / "receptive_field_2_3_step_00000000.png")
  config, model, variables = restored(runs["colour"])
  key = jax.random.split(jax.random.key(3))[1]
  field = receptive_field(model, variables, (2, 3), key, 2)
  (shown,), names, pixel = drawn[0]
  np.testing.assert_array_equal(shown, np.asarray(field).sum(axis=-1))
  assert pixel == (2, 3) and "step 0" in names[0]

  # Figures are drawn in float32, so they show the same pixels.
  config.model.dtype = "bfloat16"
  path = run_pictures.draw_receptive_field(config, pixel=(2, 3))
  assert path == "runs/pictures/pixel_cnn_cifar10_smoke_receptive_field_2_3.png"
  assert Image.open(path).format == "PNG"
  (untrained,), names, _ = drawn[1]
  assert untrained.dtype == np.float32 and "untrained" in names[0]
  np.testing.assert_array_equal(untrained > 0, shown > 0)
  with pytest.raises(prnn.InputError, match="give one of them"):
    run_pictures.draw_receptive_field(config, str(runs["colour"]))


def write_metrics(workdir, description):
  with MetricsWriter(str(workdir), 0) as metrics:
    for step in (5, 10):
      figures = {"nats_per_image": 100.0 - step, "bits_per_dim": 2.0 - step / 10}
      for part in ("train", "validation")[:step // 5]:
        metrics.write(
            step, {f"{part}/{name}": value for name, value in figures.items()},
            f"{description}, {part}")
  with open(workdir / layout.METRICS, "a") as file:
    file.write('{"step": 15, "train/nats_per')  # a writer that was killed


def test_curves(runs, tmp_path, drawn, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("a", "b", "c"):
    kind = "binary" if name < "c" else "colour"
    (tmp_path / name).mkdir()
    shutil.copy(runs[kind] / layout.CONFIG, tmp_path / name)
    write_metrics(tmp_path / name, "digits" if name == "a" else "letters")
  assert learning_curves.draw_curves(["a"]) == "a/samples/curves.png"
  assert learning_curves.draw_curves(["a", "b/"]) == "runs/pictures/curves.png"
  assert learning_curves.draw_curves(["a", "c"], output="d.png") == "d.png"
  assert Image.open("d.png").format == "PNG"
  nats = ([(5, 95.0), (10, 90.0)], [(10, 90.0)])
  bits = ([(5, 1.5), (10, 1.0)], [(10, 1.0)])
  assert drawn[0] == (
      [("a", *nats)], "NLL, nats per image",
      "train: digits, train; validation: digits, validation", "steps")
  assert drawn[1][:2] == ([("a", *nats), ("b", *nats)], "NLL, nats per image")
  # Figures on different data name the data of each run.
  assert "a: train: digits, train;" in drawn[1][2]
  assert "b: train: letters, train;" in drawn[1][2]
  (tmp_path / "e").mkdir()
  shutil.copy(runs["binary"] / layout.CONFIG, tmp_path / "e")
  write_metrics(tmp_path / "e", "letters")
  learning_curves.draw_curves(["a", "b", "e"])
  assert drawn.pop()[2].count("train: letters, train;") == 1
  assert drawn[2][:2] == ([("a", *bits), ("c", *bits)], "NLL, bits per dimension")
  write_metrics(tmp_path / "a", "digits")
  with MetricsWriter(str(tmp_path / "a"), 10) as metrics:
    metrics.write(15, {"train/nats_per_image": 80.0,
                       "train/images_per_second": 8.0}, "digits, train")
  learning_curves.draw_curves(["a"], against="minutes")
  batch_size = prnn.load_config("diagonal_bilstm_mnist:smoke").train.batch_size
  assert drawn[3][0][0][1][-1] == (15 * batch_size / 8 / 60, 80.0)
  assert drawn[3][3] == "minutes of training, without validations"


@pytest.mark.parametrize("workdirs, arguments, message", [
    ([], {}, "give a --workdir"),
    (["{run}", "{run}/"], {}, "given twice"),
    (["{run}", "nowhere"], {}, "no work directory 'nowhere'"),
    (["{run}"], {}, "holds no figures yet"),
    (["{run}"], dict(unit="bits"), "must be one of nats, bits/dim"),
    (["{run}"], dict(against="days"), "must be one of steps, minutes"),
    (["{run}"], dict(output="a.jpg"), "end it in .png"),
])
def test_bad_curves(runs, workdirs, arguments, message):
  with pytest.raises(prnn.InputError, match=message):
    learning_curves.draw_curves(
        [name.format(run=runs["colour"]) for name in workdirs], **arguments)


def test_one_path_is_a_list_of_one(runs, tmp_path):
  """A single path is a list of one, and not a list of its letters.

  The first letter would be the root folder.
  """
  path = tmp_path / "a.png"
  Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(path)
  for name in (str(path), path):
    run_pictures.draw_nll(
        str(runs["colour"]), patterns=name, output=str(tmp_path / "out.png"))
  with pytest.raises(prnn.InputError, match="holds no figures yet"):
    learning_curves.draw_curves(str(runs["colour"]))


def test_pixels_of_small_images_and_of_text():
  assert picture_requests.choose_pixels(None, 1, 1) == [(0, 0)]
  assert picture_requests.choose_pixels(None, 1, 8) == [(0, 2), (0, 6)]
  assert picture_requests.parse_pixels("0,0;5,12") == [(0, 0), (5, 12)]
  for text in ("", "1", "1,2;", "1,-2", "1,2,3", "a,b", "9" * 5000 + ",1"):
    with pytest.raises(prnn.InputError, match="as in '0,0;5,12'"):
      picture_requests.parse_pixels(text)


@pytest.mark.parametrize("function, arguments, message", [
    ("draw_samples", dict(num=0), "num=0: must be at least 1"),
    ("draw_samples", dict(batch_size=0), "batch_size=0"),
    ("draw_samples", dict(temperature=0.0), "positive and finite"),
    ("draw_samples", dict(output="a.jpg"), "end it in .png"),
    ("draw_samples", dict(output="config.json/a.png"), "not a directory that can be"),
    ("draw_samples", dict(which="first"), "must be 'last' or 'best'"),
    ("draw_completions", dict(num=0), "num=0: must be at least 1"),
    ("draw_completions", dict(num=9), "only 8 images are in the test split"),
    ("draw_completions", dict(completions=0), "completions=0"),
    ("draw_completions", dict(known_rows=5), r"from 0 \(all is hidden\) to 4"),
    ("draw_completions", dict(known_rows=-1), "known_rows=-1"),
    ("draw_completions", dict(split="all"), "must be one of train"),
    ("draw_completions", dict(patterns=["*.jpg"]), "No file fits"),
    ("draw_completions", dict(patterns=[]), "at least one PNG or JPEG file"),
    ("draw_completions", dict(patterns=["a.png"], num=2), "only 1 images are given"),
    ("draw_completions", dict(patterns=["a.png"]), "cannot be read: No such file"),
    ("draw_completions", dict(temperature=-1.0), "positive and finite"),
    ("draw_samples", dict(num=10**30), "num=.*must be at most"),
    ("draw_samples", dict(seed=-1), "seed=-1: must be at least 0"),
    ("draw_samples", dict(seed=1.5), "seed=1.5: must be a whole number"),
    ("draw_samples", dict(seed=2**70), "seed=.*must be at most 4,294,967,295"),
    ("draw_completions", dict(completions=10**30), "completions=.*must be at most"),
    ("draw_completions", dict(known_rows=2.5), "known_rows=2.5: must be a whole"),
    ("draw_completions", dict(patterns=[5]), "images=5: must be a path"),
    ("draw_conditionals", dict(pixels=5), "pixels=5: give a list"),
    ("draw_conditionals", dict(pixels=[5]), "pixel=5: give a row and a column"),
    ("draw_conditionals", dict(pixels=[(1, 2, 3)]), "give a row and a column"),
    ("draw_conditionals", dict(pixels=[(1.5, 2)]), "row of pixel=1.5: must be a whole"),
    ("draw_conditionals", dict(pixels=[(5, 0)]), "no pixel 5,0: rows are 0 to 4"),
    ("draw_conditionals", dict(pixels=[(0, -1)]), "no pixel 0,-1"),
    ("draw_conditionals", dict(pixels=[]), "holds 1 to 12"),
    ("draw_conditionals", dict(pixels=[(0, 0)] * 13), "holds 1 to 12"),
    ("draw_conditionals", dict(patterns=["a.png"] * 25), "at most 24"),
    ("draw_conditionals", dict(examples=[0, 8]), "from 0 to 7; 8 images are in"),
    ("draw_grown", dict(examples=[0], num=1), "single scale"),
    ("draw_completions", dict(examples=[0], num=1), "without num"),
    ("draw_completions", dict(examples=[0], patterns=["a.png"]), "without own"),
    ("draw_completions", dict(examples=[]), "from 0 to 7"),
    ("draw_completions", dict(examples=[-1]), "examples=-1: must be at least 0"),
    ("draw_nll", dict(num=0), "num=0: must be at least 1"),
    ("draw_nll", dict(examples=[1.5]), "examples=1.5: must be a whole number"),
    ("draw_nll", dict(examples=range(25), split="train"), "at most 24|from 0 to"),
    ("draw_nll", dict(patterns=["a.png"] * 25), "at most 24"),
    ("draw_receptive_field", dict(pixel=(5, 0)), "no pixel 5,0: rows are 0 to 4"),
    ("draw_receptive_field", dict(num=0), "num=0: must be at least 1"),
    ("draw_receptive_field", dict(output="a.jpg"), "end it in .png"),
])
def test_bad_arguments_write_nothing(runs, monkeypatch, function, arguments, message):
  before = contents(runs["colour"])
  monkeypatch.chdir(runs["colour"])
  with pytest.raises(prnn.InputError, match=message):
    getattr(run_pictures, function)(workdir=str(runs["colour"]), **arguments)
  assert contents(runs["colour"]) == before


def test_a_binary_model_takes_no_pixels(runs):
  with pytest.raises(prnn.InputError, match="every pixel's probability is shown"):
    run_pictures.draw_conditionals(str(runs["binary"]), pixels=[(0, 0)])


# Rows of the command line: the flags, and what the program prints. The program is
# sample.py if no other is named. {run} is a work directory of `runs`.

GOOD = {
    "samples": (["--workdir={binary}", "--num=5"], "samples_step_00000000_seed_0.png"),
    "completions": (
        ["--workdir={colour}", "--complete", "--images={good}", "--completions=2",
         "--seed=1", "--checkpoint=best"],
        "completions_step_00000000_seed_1.png"),
    "conditionals": (
        ["--workdir={colour}", "--conditionals", "--examples=3,0",
         "--pixels=0,0;4,6"],
        "conditionals_step_00000000.png"),
    "grown": (
        ["--workdir={scales}", "--grow", "--num=2", "--completions=3", "--seed=2"],
        "grown_step_00000000_seed_2.png"),
    "likelihoods": (
        ["plot.py", "--workdir={colour}", "--what=nll", "--images={good}"],
        "nll_step_00000000.png"),
    "a receptive field": (
        ["plot.py", "--workdir={colour}", "--what=receptive_field", "--pixel=4,6"],
        "receptive_field_4_6_step_00000000.png"),
}
BAD = {
    "no checkpoint": (["--workdir={empty}"], "There is no checkpoint in"),
    "none": (["--workdir={colour}", "--num=0"], "num=0: must be at least 1"),
    "no number": (
        ["plot.py", "--what=nll", "--workdir={colour}", "--examples=1,"],
        "examples='1,': give numbers of images from 0, as in '0,7'"),
    "two kinds": (
        ["--workdir={colour}", "--complete", "--conditionals"], "give one"),
    "a single scale": (["--workdir={colour}", "--grow"], "has a single scale"),
    "another kind's flag": (
        ["--workdir={colour}", "--known_rows=2"],
        "--known_rows goes with --complete, not with samples"),
    "no kind of diagram": (["plot.py", "--workdir={colour}"], "--what is required"),
    "another diagram's flag": (
        ["plot.py", "--what=nll", "--workdir={colour}", "--config=quickstart"],
        "--config goes with --what=receptive_field, not with nll"),
    "a field of nothing": (
        ["plot.py", "--what=receptive_field"], "give one of them, --config or"),
    "a field of two scales": (
        ["plot.py", "--what=receptive_field", "--config=multi_scale_mnist:smoke"],
        "--config.model.multi_scale='()'"),
    "no metrics": (
        ["plot.py", "--what=curves", "--workdir={colour}"], "holds no figures yet"),
}


@pytest.fixture
def answer(runs, tmp_path):
  """Return a function that runs the program in an empty directory.

  It asserts that the program leaves no files there.
  """

  def call(arguments):
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / layout.CONFIG).write_bytes(
        (runs["colour"] / layout.CONFIG).read_bytes())
    (tmp_path / "here").mkdir()
    names = dict(**runs, good=tmp_path / "good.png", empty=tmp_path / "empty")
    arguments = [x.format(**names) for x in arguments]
    program = arguments.pop(0) if arguments[0] == "plot.py" else "sample.py"
    before = contents(tmp_path)
    result = run_program(program, *arguments, cwd=tmp_path / "here")
    assert contents(tmp_path) == before
    return result

  return call


@pytest.mark.parametrize("name", GOOD)
def test_a_good_command_prints_the_path(runs, answer, name):
  arguments, file = GOOD[name]
  result = answer(arguments)
  assert result.returncode == 0, result.stderr
  workdir, = (runs[x.split("{")[1].rstrip("}")] for x in arguments
              if x.startswith("--workdir"))
  path = pathlib.Path(result.stdout.strip())
  assert path == workdir / "samples" / file
  assert Image.open(path).format == "PNG"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_command_prints_one_line(answer, name):
  result = answer(BAD[name][0])
  assert result.returncode == 1 and result.stdout == ""
  assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
  assert BAD[name][1] in result.stderr
