import json

import numpy as np
import pytest

from pixelrnn_jax import data
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.runs.restore import restore
from pixelrnn_jax.training import evaluate_run, evaluation, parallel
from pixelrnn_jax.training.evaluation import (
  image_nats,
  standard_error,
  summarize,
)


def test_summary():
  nats = np.array([1.0, 2.0, 6.0])
  got = summarize(nats, (2, 2, 1))
  assert got.images == 3
  assert got.nats_per_image == 3.0
  np.testing.assert_allclose(got.nats_standard_error, np.sqrt(7 / 3))
  np.testing.assert_allclose(got.bits_per_dim, 3 / (4 * np.log(2)))
  np.testing.assert_allclose(
      got.bits_standard_error, np.sqrt(7 / 3) / (4 * np.log(2)))
  alone = summarize(nats[:1], (2, 2, 1))
  assert alone.nats_standard_error is alone.bits_standard_error is None
  assert str(alone).startswith("1.000 nats/image, ")
  json.loads(json.dumps(alone.record()))


def test_the_error_of_groups_is_that_of_their_means():
  """Copies of a value do not change the standard error of grouped values.

  It is that of one value of each group.
  """
  rng = np.random.default_rng(0)
  values = rng.normal(size=40)
  groups = np.repeat(rng.permutation(40), 5)
  np.testing.assert_allclose(
      standard_error(np.repeat(values, 5), groups), standard_error(values), rtol=1e-12)
  np.testing.assert_allclose(
      standard_error(values), values.std(ddof=1) / np.sqrt(40), rtol=1e-12)


def test_the_error_of_groups_is_the_spread_of_the_mean():
  """The standard error of groups is the spread of the mean over many draws.

  The groups have unequal sizes, and the values of a group share an offset.
  """
  rng = np.random.default_rng(1)
  sizes = rng.integers(1, 9, 60)
  groups = np.repeat(np.arange(60), sizes)
  means, errors = [], []
  for _ in range(2_000):
    values = rng.normal(size=60)[groups] + 0.5 * rng.normal(size=groups.size)
    means.append(values.mean())
    errors.append(standard_error(values, groups))
  spread = np.std(means)
  assert abs(np.sqrt(np.mean(np.square(errors))) / spread - 1) < 0.06
  # If all values were taken as independent, it would be half as large.
  assert standard_error(values) < 0.6 * spread


def test_the_output_says_what_the_error_is_over():
  nats = np.arange(40.0)
  got = summarize(nats, (2, 2, 1), np.arange(40) // 2, "pairs")
  assert got.over() == "40 images, the standard error over 20 pairs"
  assert got.record()["groups"] == "20 pairs"
  few = summarize(nats, (2, 2, 1), np.arange(40) // 5, "fives")
  assert few.nats_standard_error is few.bits_standard_error is None
  assert few.over() == "40 images of only 8 fives, too few for a standard error"
  assert "+/-" not in str(few)
  assert summarize(nats, (2, 2, 1)).over() == "40 images"
  assert "groups" not in summarize(nats, (2, 2, 1)).record()


def test_a_figure_that_is_not_finite_is_refused():
  with pytest.raises(InputError, match="2 of 3 images is not finite"):
    summarize(np.array([1.0, np.nan, np.inf]), (2, 2, 1))


@pytest.mark.parametrize("split, which", [("test", "last"), ("validation", "best")])
def test_the_figure_is_the_mean_over_every_image(
    copy_run, capsys, split, which):
  workdir = copy_run()
  config, model, variables = restore(str(workdir), which)
  source = data.load_source(config, split)
  images = np.stack([source[i] for i in range(len(source))])
  nats = -np.asarray(likelihood.log_prob(model, variables, images), np.float64)

  record = evaluate_run(str(workdir), split, which)
  np.testing.assert_allclose(record["nats_per_image"], nats.mean(), rtol=1e-5)
  np.testing.assert_allclose(
      record["nats_standard_error"], nats.std(ddof=1) / np.sqrt(len(nats)),
      rtol=1e-3)
  assert record["images"] == len(source)
  assert (record["split"], record["checkpoint"]) == (split, which)
  assert record["data"] == source.description
  assert json.loads((workdir / "evaluation.json").read_text()) == record
  printed = capsys.readouterr().out
  assert f"{record['nats_per_image']:.3f}" in printed
  assert f"{record['bits_per_dim']:.4f}" in printed
  assert source.description in printed


def test_each_image_has_its_own_figure(finished_run):
  """Each image has its own likelihood, in the order of the images.

  There are two devices, and the last batch is not full.
  """
  config, model, variables = restore(str(finished_run))
  images = data.load_source(config, "test").images[:13]
  nats = image_nats(
      parallel.make_eval_step(model), parallel.replicate(variables["params"]),
      data.ImageSource(images, "some"), config)
  expected = -np.asarray(likelihood.log_prob(model, variables, images))
  assert nats.shape == (13, 1) and len(set(nats[:, 0])) == 13
  np.testing.assert_allclose(nats[:, 0], expected, rtol=1e-5)


def test_a_model_in_bfloat16_is_evaluated_in_float32(copy_run):
  workdir = copy_run()
  exact = evaluate_run(str(workdir))
  path = workdir / "config.json"
  path.write_text(path.read_text().replace('"float32"', '"bfloat16"'))
  figures = {
      as_trained: evaluate_run(str(workdir), as_trained=as_trained)
      for as_trained in (True, False)}
  assert figures[False]["nats_per_image"] == exact["nats_per_image"]
  assert figures[True]["nats_per_image"] != exact["nats_per_image"]
  assert [figures[x]["dtype"] for x in (True, False)] == ["bfloat16", "float32"]


def test_figures_are_kept_if_nobody_reads_them(copy_run, monkeypatch, capsys):
  """The result is saved if it cannot be printed, and printed if it cannot be saved."""
  workdir = copy_run()
  (workdir / "evaluation.json").unlink()

  def broken(message):
    raise BrokenPipeError

  with monkeypatch.context() as patch, pytest.raises(BrokenPipeError):
    patch.setattr(evaluation.progress, "say", broken)
    evaluate_run(str(workdir))
  record = json.loads((workdir / "evaluation.json").read_text())
  (workdir / "evaluation.json").unlink()
  (workdir / "evaluation.json").mkdir()
  with pytest.raises(OSError):
    evaluate_run(str(workdir))
  assert f"{record['nats_per_image']:.3f}" in capsys.readouterr().out


def test_an_unknown_split(finished_run):
  with pytest.raises(InputError, match="must be one of train, validation, test"):
    evaluate_run(str(finished_run), "tset")

