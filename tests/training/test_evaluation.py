import json

import numpy as np
import pytest

from pixelrnn_jax import data
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.runs.restore import restore
from pixelrnn_jax.training import evaluate_run
from pixelrnn_jax.training.evaluation import summarize


def test_summary():
  nats = np.array([1.0, 2.0, 6.0])
  got = summarize(nats, (2, 2, 1))
  assert got.images == 3
  assert got.nats_per_image == 3.0
  np.testing.assert_allclose(got.nats_standard_error, np.sqrt(7 / 3))
  np.testing.assert_allclose(got.bits_per_dim, 3 / (4 * np.log(2)))
  np.testing.assert_allclose(
      got.bits_standard_error, np.sqrt(7 / 3) / (4 * np.log(2)))
  assert summarize(nats[:1], (2, 2, 1)).nats_standard_error == 0.0


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


def test_an_unknown_split(finished_run):
  with pytest.raises(InputError, match="must be one of train, validation, test"):
    evaluate_run(str(finished_run), "tset")

