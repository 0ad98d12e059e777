"""Training of models of several scales, together and one scale at a time."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import pixelrnn_jax as prnn
from helpers.pictures import assert_same_above_the_caption
from pixelrnn_jax import data, ops
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.runs.optimizer import make_optimizer, make_schedule
from pixelrnn_jax.runs.state import init_state, updates_taken
from pixelrnn_jax.training import evaluate_run, parallel, train
from pixelrnn_jax.training.evaluation import summarize_scales
from pixelrnn_jax.visualization import grids, run_pictures


def make_config():
  """Return a config from 4x4 to 8x8 images, with a PixelCNN of one layer.

  Its data are coloured digits.
  """
  config = prnn.load_config("multi_scale_imagenet64:smoke")
  config.model = dataclasses.replace(
      config.model, kind="pixel_cnn", hidden=6, layers=1, head_features=12)
  config.data = dataclasses.replace(config.data, validation_images=10, max_images=24)
  config.optimizer = dataclasses.replace(
      config.optimizer, learning_rate=1e-3, warmup_steps=4, momentum=0.5)
  config.train = dataclasses.replace(
      config.train, batch_size=4, steps=6, log_every=2, eval_every=6,
      checkpoint_every=3, eval_batch_size=8, samples=0)
  config.validate()
  return config


def same(a, b):
  return all(
      np.array_equal(x, y) for x, y in zip(
          jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)),
          strict=True))


def test_scales_trained_one_by_one_are_those_trained_together():
  config = make_config()
  model = prnn.build_model(config.model)
  optimizer = make_optimizer(config.optimizer, config.train.steps)
  shape = config.model.image_shape
  start = init_state(model, optimizer, jax.random.key(0), shape)
  batches = np.random.default_rng(0).integers(0, 256, (3, 4, *shape), np.uint8)

  def steps(state, scale):
    train_step = parallel.make_train_step(model, optimizer, scale=scale)
    nats = []
    for batch in batches:
      state, metrics = train_step(parallel.replicate(state), parallel.shard(batch))
      nats.append(np.asarray(metrics["nats"]))
    return jax.device_get(state), np.stack(nats)

  start = jax.device_get(start)
  together, nats = steps(start, -1)
  small, small_nats = steps(start, 0)
  both, large_nats = steps(small, 1)
  # The other scale and its optimiser do not change in a single bit.
  for state, before, still in ((small, start, "scales_1"), (both, small, "scales_0")):
    for part in ("params", "opt_state"):
      assert same(getattr(state, part)[still], getattr(before, part)[still])
  assert not same(small.params["scales_0"], start.params["scales_0"])
  assert not same(both.params["scales_1"], start.params["scales_1"])
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      (both.params, both.opt_state), (together.params, together.opt_state))
  np.testing.assert_allclose(
      np.concatenate([small_nats, large_nats], axis=1), nats, rtol=1e-5)
  assert (int(both.step), int(together.step)) == (6, 3)
  assert updates_taken(both.opt_state["scales_1"]) == 3


def read_metrics(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Train six steps of the small scale, then six of the large one.

  Returns the work directory, and the parameters after each of them.
  """
  workdir = tmp_path_factory.mktemp("runs") / "run"
  config, params = make_config(), []
  for scale, steps in ((0, 6), (1, 12)):
    config.train.scale, config.train.steps = scale, steps
    train(config, str(workdir))
    params.append(prnn.restore(str(workdir))[2]["params"])
  return workdir, params


def test_one_work_directory_takes_one_scale_after_the_other(run):
  workdir, (first, second) = run
  assert same(first["scales_0"], second["scales_0"])
  assert not same(first["scales_1"], second["scales_1"])
  schedule = make_schedule(make_config().optimizer, steps=6)
  for line in read_metrics(workdir):
    assert "a lower bound of log p for the 8x8 image" in line["data"]
    step = line["step"]
    if "train/grad_norm" in line:
      size = "4x4" if step <= 6 else "8x8"
      names = {name for name in line if name.startswith("train/nats")}
      assert names == {f"train/nats_per_image_{size}"}  # one scale has no total
      dimensions = 48 if step <= 6 else 192
      assert line[f"train/bits_per_dim_{size}"] == pytest.approx(
          line[f"train/nats_per_image_{size}"] / dimensions / np.log(2))
      # Each scale has the whole schedule, with its warm-up.
      assert line[f"train/learning_rate_{size}"] == pytest.approx(
          float(schedule((step - 1) % 6)))
    else:
      total = line["validation/nats_per_image"]
      assert total == pytest.approx(
          line["validation/nats_per_image_4x4"] + line["validation/nats_per_image_8x8"])
      assert line["validation/bits_per_dim"] == pytest.approx(total / 192 / np.log(2))
  assert json.loads((workdir / "config.json").read_text())["train"]["scale"] == 1


def test_the_evaluation_has_each_scale_and_says_that_it_is_a_bound(run, capsys):
  workdir, _ = run
  config, model, variables = prnn.restore(str(workdir))
  source = data.load_source(config, "test")
  x = np.stack([source[i] for i in range(len(source))])
  nats = -np.float64(likelihood.log_prob_by_scale(model, variables, x))
  record = evaluate_run(str(workdir))
  assert record["nats_per_image"] == pytest.approx(nats.sum(axis=1).mean(), rel=1e-5)
  for s, (size, dimensions) in enumerate((("4x4", 48), ("8x8", 192))):
    figures = record["scales"][size]
    assert figures["nats_per_image"] == pytest.approx(nats[:, s].mean(), rel=1e-5)
    assert figures["bits_per_dim"] == pytest.approx(
        nats[:, s].mean() / dimensions / np.log(2), rel=1e-5)
  assert record["bits_per_dim"] == pytest.approx(
      nats.sum(axis=1).mean() / 192 / np.log(2), rel=1e-5)
  assert "lower bound of log p" in record["bound"]
  assert json.loads((workdir / "evaluation.json").read_text()) == record
  printed = capsys.readouterr().out
  assert "test: <= " in printed and record["bound"] in printed
  assert f"8x8 given 4x4: {record['scales']['8x8']['nats_per_image']:.3f}" in printed


def test_standard_errors_are_those_of_the_sum():
  """The standard error is over images, and not over scales.

  The likelihoods of the scales of one image vary together.
  """
  nats = np.array([[1.0, 2.0], [3.0, 5.0], [2.0, 2.0]])
  total = summarize_scales(nats, make_config().model)
  assert total.nats_per_image == pytest.approx(5)
  assert total.nats_standard_error == pytest.approx(
      np.std([3, 8, 4], ddof=1) / np.sqrt(3))


def test_pictures(run, tmp_path):
  workdir, _ = run
  config, model, variables = prnn.restore(str(workdir))
  path = run_pictures.draw_grown(
      str(workdir), 3, 2, seed=4, output=str(tmp_path / "grown.png"))
  source = data.load_source(config, "test")
  originals = np.stack([source[i] for i in range(3)])
  small = ops.pyramid(originals, (2,))[0]
  grown = prnn.sample(
      model, variables, jax.random.key(4), small=small.repeat(2, axis=0))
  grids.save_grown(
      small, grown.reshape(3, 2, 8, 8, 3), str(tmp_path / "expected.png"), 256,
      originals)
  assert_same_above_the_caption(path, tmp_path / "expected.png")
  # With small images of the user's own, there are no originals.
  Image.fromarray(small[0]).save(tmp_path / "small.png")
  path = run_pictures.draw_grown(
      str(workdir), None, 2, patterns=[str(tmp_path / "small.png")],
      output=str(tmp_path / "own.png"))
  for draw in (run_pictures.draw_samples, run_pictures.draw_completions,
               run_pictures.draw_conditionals):
    assert Image.open(draw(str(workdir), 1, output=str(tmp_path / "a.png"))).size


def test_a_checkpoint_of_other_scales(run, tmp_path):
  workdir = shutil.copytree(run[0], tmp_path / "run")
  path = workdir / "config.json"
  tree = json.loads(path.read_text())
  for multi_scale in ([], [2, 2]):
    tree["model"]["multi_scale"] = multi_scale
    tree["train"]["scale"] = -1
    path.write_text(json.dumps(tree))
    with pytest.raises(InputError, match="does not belong to the config.json"):
      prnn.restore(str(workdir))


def test_what_is_refused(run, finished_run, tmp_path):
  workdir, _ = run
  with pytest.raises(InputError, match="has a single scale"):
    run_pictures.draw_grown(str(finished_run), output=str(tmp_path / "a.png"))
  config = make_config()
  config.model.multi_scale = (4,)
  with pytest.raises(InputError, match=r"multi_scale: \(2,\) became \(4,\)"):
    train(config, str(workdir))
  config = make_config()
  config.train.scale = 2
  with pytest.raises(InputError, match="scales are 0"):
    train(config, str(tmp_path / "run"))
  assert not list(tmp_path.iterdir())
