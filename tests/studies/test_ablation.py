"""Ablations: what is trained and compared, and what stays untouched."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import pixelrnn_jax as prnn
from helpers.programs import EXPERIMENTS, PATHS, run_code, run_program
from pixelrnn_jax import configs
from pixelrnn_jax.errors import Diverged
from pixelrnn_jax.runs import layout
from pixelrnn_jax.studies import ablation
from pixelrnn_jax.visualization import figures

TINY = [
    "model.hidden=4", "model.head_features=8", "train.steps=4", "train.log_every=2",
    "train.eval_every=4", "train.checkpoint_every=2", "train.samples=0",
    "data.validation_images=16", "data.max_images=32",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """Run an ablation of three models on binary digits from the command line."""
  workdir = tmp_path_factory.mktemp("ablation") / "depth"
  arguments = [
      "--configs=pixel_cnn_mnist:smoke", "--vary=model.layers=1,2,3",
      f"--workdir={workdir}", *(f"--set={text}" for text in TINY)]
  result = run_program("ablate.py", *arguments)
  assert result.returncode == 0, result.stderr
  return workdir, arguments, result.stdout


def narrow(table):
  """Return a table without the spaces that align its columns."""
  return re.sub(" +", " ", table)


def test_the_table_holds_the_figures_of_the_runs(finished):
  workdir, _, printed = finished
  records = json.loads((workdir / "results.json").read_text())
  names = [f"pixel_cnn_mnist_smoke,layers={n}" for n in (1, 2, 3)]
  assert [record["run"] for record in records] == names
  table = (workdir / "results.md").read_text()
  assert table.strip() in printed
  assert "static binarisation, test" in table
  evaluations = [
      json.loads((workdir / name / layout.EVALUATION).read_text()) for name in names]
  best = min(evaluation["nats_per_image"] for evaluation in evaluations)
  parameters = []
  for name, record, evaluation in zip(names, records, evaluations, strict=True):
    row, = (line for line in narrow(table).splitlines() if f"`{name}`" in line)
    nats, error = evaluation["nats_per_image"], evaluation["nats_standard_error"]
    lines = (workdir / name / layout.METRICS).read_text().splitlines()
    validation = [x for x in map(json.loads, lines) if "validation/bits_per_dim" in x]
    assert f"| {validation[-1]['validation/nats_per_image']:.2f} |" in row
    assert f"| {nats:.2f} +/- {error:.2f} | {nats - best:.2f} |" in row
    parameters.append(record["parameters"])
    assert f"{parameters[-1]:,}" in row
  # All layers of the PixelCNN have the same number of parameters.
  assert parameters[2] - parameters[1] == parameters[1] - parameters[0] > 0
  assert Image.open(workdir / "results.png").format == "PNG"


def test_the_same_command_trains_what_is_missing_only(finished):
  workdir, arguments, _ = finished
  names = [f"pixel_cnn_mnist_smoke,layers={n}" for n in (1, 2, 3)]
  kept = {
      path: path.read_bytes() for path in (workdir / names[1]).rglob("*")
      if path.is_file() and path.name != layout.LOCK}
  assert len(kept) > 5
  before = [(workdir / name / layout.METRICS).read_bytes() for name in names]
  evaluation = (workdir / names[2] / layout.EVALUATION)
  expected = json.loads(evaluation.read_text())
  table = (workdir / "results.md").read_text()
  (workdir / "results.md").unlink()
  # All finished runs are in the results as soon as the first run is looked at.
  variants = ablation.make_variants(
      ["pixel_cnn_mnist:smoke"], ["model.layers=1,2,3"], TINY)
  with pytest.MonkeyPatch.context() as patch:
    def stop_at_the_second(config, folder):
      if config.model.layers == 2:
        raise KeyboardInterrupt

    patch.setattr(ablation, "train", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
      ablation.ablate(variants, str(workdir))
  assert (workdir / "results.md").read_text() == table
  (workdir / "results.md").unlink()
  evaluation.unlink()  # as if the run had been killed
  result = run_program("ablate.py", *arguments)
  assert result.returncode == 0, result.stderr
  assert [(workdir / name / layout.METRICS).read_bytes() for name in names] == before
  assert json.loads(evaluation.read_text()) == expected
  assert (workdir / "results.md").read_text() == table
  assert {path: path.read_bytes() for path in kept} == kept


def test_every_combination():
  variants = ablation.make_variants(
      ["row_lstm_mnist", "pixel_cnn_mnist"],
      ["model.layers=1,2", "model.residual=True,False"], ["optimizer.beta=0.9"])
  found = [
      (v.config.name, v.config.model.layers, v.config.model.residual)
      for v in variants]
  assert found == [
      (name, layers, residual) for name in ("row_lstm_mnist", "pixel_cnn_mnist")
      for layers in (1, 2) for residual in (True, False)]
  assert {v.config.optimizer.beta for v in variants} == {0.9}
  assert variants[1].name == "row_lstm_mnist,layers=1,residual=False"
  pairs = ablation.make_variants(
      ["row_lstm_cifar10"], ["model.image_shape=(8,8,3),(16,16,3)"])
  assert [v.config.model.image_shape for v in pairs] == [(8, 8, 3), (16, 16, 3)]


def test_the_papers_tables():
  for table, function in (("depth", "depth1"), ("connections", "plain")):
    variants = ablation.make_variants(ablation.TABLES[table])
    assert any(v.name == f"row_lstm_cifar10_{function}" for v in variants)
    for variant in variants:
      # The paper's figure is also in the docstring of the config.
      assert f"Paper: {variant.paper:.2f} bits/dim" in (
          configs.CONFIGS[variant.name].__doc__)
  assert sum(map(len, ablation.TABLES.values())) == 10


@pytest.mark.parametrize("setting, paper", [
    ("train.steps=7", 3.20), ("model.hidden=64", None), ("data.max_images=9", None)])
def test_the_papers_figure_is_of_its_model_and_data(setting, paper):
  variant, = ablation.make_variants(["row_lstm_cifar10_depth2"], (), [setting])
  assert variant.paper == paper
  smoke, = ablation.make_variants(["row_lstm_cifar10_depth2:smoke"])
  assert smoke.paper is None


@pytest.mark.parametrize("configs, vary, settings, message", [
    (["row_lstm_minst"], [], [], "no config named 'row_lstm_minst'"),
    ([], [], [], "name a config"),
    (["row_lstm_mnist"] * 2, [], [], "is there more than once"),
    (["row_lstm_mnist"], ["model.layers=1,1"], [], "is there more than once"),
    (["row_lstm_mnist"], ["model.layer=1,2"], [], "no field 'layer'. Did you mean"),
    (["row_lstm_mnist"], ["model.layers"], [], "give a field and its value"),
    (["row_lstm_mnist"], ["model.layers=1,two"], [], "wrong type: it must be int"),
    (["row_lstm_mnist"], ["model.layers=1,0"], [], "layers=0: must be at least 1"),
    (["row_lstm_mnist"], ["model.layers=1"], ["model.layers=2"], "more than once"),
    (["row_lstm_mnist"], [], ["model=2"], "is a group of fields"),
    (["row_lstm_mnist"], [], ["train.steps=many"], "wrong type"),
    (["row_lstm_mnist"], [], ["model.layers={[]:1}"], "wrong type"),
    (["row_lstm_mnist"], [], ["name=other"], "give a part and its field"),
])
def test_what_cannot_be_compared(configs, vary, settings, message):
  with pytest.raises(prnn.InputError, match=message):
    ablation.make_variants(configs, vary, settings)


# ablate.py without the training.
PLANNED = f"""
import runpy, sys
sys.path[:0] = {PATHS}
from pixelrnn_jax.studies import ablation

def ablate(variants, workdir):
  for variant in variants:
    print(variant.config.name, variant.config.train.steps)
  print(workdir)

ablation.ablate = ablate
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def test_a_table_in_small():
  result = run_code(
      PLANNED, str(EXPERIMENTS / "ablate.py"), "--table=connections", "--smoke",
      "--set=train.steps=7")
  assert result.stdout.splitlines() == [
      *(f"row_lstm_cifar10_{name}:smoke 7"
        for name in ("plain", "skip", "residual", "both")),
      "runs/ablation_connections_smoke"], result.stderr


def test_nothing_is_trained_if_one_of_them_cannot_be(tmp_path, finished):
  workdir, arguments, _ = finished
  before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
  result = run_program("ablate.py", *arguments, "--set=optimizer.learning_rate=0.5")
  assert result.returncode == 1 and "belongs to another config" in result.stderr
  assert {path: path.read_bytes() for path in before} == before

  variants = ablation.make_variants(["pixel_cnn_mnist:smoke"], (), TINY)
  run = workdir / "pixel_cnn_mnist_smoke,layers=1"
  with pytest.raises(prnn.InputError, match="work directory of a single run"):
    ablation.ablate(variants, str(run))
  other, = ablation.make_variants(
      ["pixel_cnn_cifar10:smoke"], (), ["data.source=folder:nowhere"])
  with pytest.raises(prnn.InputError, match="nowhere"):
    ablation.ablate([*variants, other], str(tmp_path / "new"))
  assert not list(tmp_path.iterdir())
  result = run_program("ablate.py", "--configs=quickstart", "--table=depth")
  assert result.returncode == 1 and "Give one of --table" in result.stderr


@pytest.mark.parametrize("every, message", [
    (4, "became nan"),  # in a training step
    (1, "Validation at step 2: .* not finite")])
def test_a_run_that_diverges_does_not_stop_the_others(
    tmp_path, capsys, every, message):
  variants = ablation.make_variants(
      ["pixel_cnn_mnist:smoke"], ["optimizer.learning_rate=1e38,1e-3"],
      [*TINY, "optimizer.clip_norm=0"])
  for variant in variants:
    variant.config.train.eval_every = every
    variant.config.train.log_every = min(every, 2)
  with pytest.raises(Diverged, match=f"learning_rate=1e.38: .*{message}"):
    ablation.ablate(variants, str(tmp_path))
  record, = json.loads((tmp_path / "results.json").read_text())
  assert record["run"] == "pixel_cnn_mnist_smoke,learning_rate=0.001"
  results = (tmp_path / "results.md").read_text()
  assert "\nDiverged: pixel_cnn_mnist_smoke,learning_rate=1e+38: " in results
  assert f"{record['nats_per_image']:.2f}" in capsys.readouterr().out


def test_bounds_are_called_bounds():
  record = {
      "run": "a", "parameters": 5, "step": 3, "images": 9, "data": "some",
      "nats_per_image": 2.0, "nats_standard_error": 0.5, "bits_per_dim": 1.25,
      "bits_standard_error": 0.25, "validation_nats_per_image": 3.0,
      "validation_bits_per_dim": 1.5, "binary": False, "paper": 3.2, "device": "1 cpu",
      "versions": {"jax": "1"}, "date": "2026-01-01", "minutes": 2.0}
  bound = record | {"run": "b", "bits_per_dim": 1.0, "bound": "an upper bound"}
  worse = record | {"run": "c", "bits_per_dim": 1.5, "device": "1 gpu"}
  other = record | {"run": "d", "bits_per_dim": 1.125, "data": "other"}
  table = narrow(ablation.format_results([record, bound, worse]))
  assert "| 2.0 | 1.5000 | 1.2500 +/- 0.2500 | 0.0000 | 3.20 |" in table
  assert "| <= 1.5000 | <= 1.0000 +/- 0.2500 | | 3.20 |" in table
  assert "| 1.5000 | 1.5000 +/- 0.2500 | 0.2500 | 3.20 |" in table
  assert "<=: an upper bound." in table and "1 cpu and 1 gpu, JAX 1," in table
  # Each run is compared with the runs on its own data.
  table = narrow(ablation.format_results([record, other]))
  assert "0.0000 | 3.20 | some |" in table and "0.0000 | 3.20 | other |" in table


def test_what_the_picture_shows():
  curves = [("a", [(1, 5.0), (2, 4.0)], [(2, 4.5)]), ("b", [], [(2, 3.5)])]
  figure = figures.ablation_figure(
      [4.4, 3.6], [0.1, 0.2], [False, True], [None, 3.3], curves, "bits", "title")
  runs, beside = figure.axes
  assert [text.get_text() for text in runs.texts] == ["4.4", "<= 3.6"]
  places = [bar.lines[0].get_xydata() for bar in runs.containers]
  np.testing.assert_allclose(np.concatenate(places), [[4.4, 0], [3.6, 1]])
  ends = [bar.lines[2][0].get_segments()[0][:, 0] for bar in runs.containers]
  np.testing.assert_allclose(ends, [[4.3, 4.5], [3.4, 3.8]])
  paper, = (line for line in runs.lines if line.get_label() == "paper")
  np.testing.assert_allclose(paper.get_xydata(), [[3.3, 1]])
  assert [text.get_text() for text in runs.get_yticklabels()] == ["a", "b"]
  drawn = [line.get_xydata().tolist() for line in beside.lines]
  assert drawn == [[[1, 5], [2, 4]], [[2, 4.5]], [[2, 3.5]]]
