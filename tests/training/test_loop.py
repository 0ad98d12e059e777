import dataclasses
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from helpers.folders import contents
from helpers.pictures import assert_same_above_the_caption
from pixelrnn_jax import data
from pixelrnn_jax.configs.json_text import from_json
from pixelrnn_jax.configs.schema import OptimizerConfig
from pixelrnn_jax.errors import InputError, Interrupted
from pixelrnn_jax.inference import sampling
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.optimizer import make_schedule
from pixelrnn_jax.runs.restore import load_run
from pixelrnn_jax.training import loop, train


def read_metrics(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  for line in lines:
    line.pop("train/images_per_second", None)
  return lines


def params_of(workdir):
  return jax.device_get(load_run(str(workdir)).params)


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_a_run_leaves(finished_run, tiny_config):
  assert from_json((finished_run / "config.json").read_text()) == tiny_config
  metrics = read_metrics(finished_run)
  steps = [line["step"] for line in metrics if "train/nats_per_image" in line]
  assert steps == [2, 3, 4, 6, 8, 9, 10, 12]  # every 2, 3 and 4 steps
  steps = [line["step"] for line in metrics if "validation/nats_per_image" in line]
  assert steps == [4, 8, 12]
  for line in metrics:
    assert "coloured MNIST" in line["data"]
  grids = sorted((finished_run / "samples").iterdir())
  assert [grid.name for grid in grids] == [
      f"step_{step:08d}.png" for step in (4, 8, 12)]
  assert {Image.open(grid).mode for grid in grids} == {"RGB"}
  record = json.loads((finished_run / "evaluation.json").read_text())
  assert record["images"] == 24 and record["step"] == 12
  assert record["split"] == "test" and record["checkpoint"] == "last"
  assert not list(finished_run.rglob("*tmp*"))


def test_on_metrics_sees_each_line_once_it_is_written(
    finished_run, tiny_config, tmp_path):
  workdir, lines = tmp_path / "run", []

  def on_metrics(line):
    lines.append(line)
    written = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(text) for text in written] == lines

  train(tiny_config, str(workdir), on_metrics)
  assert len(lines) == 11  # 8 lines of training, 3 of validation
  assert read_metrics(workdir) == read_metrics(finished_run)
  assert_same(params_of(workdir), params_of(finished_run))
  train(tiny_config, str(workdir), on_metrics)  # the run is complete: nothing to report
  assert len(lines) == 11


def test_what_on_metrics_raises_ends_the_run_which_can_go_on(
    finished_run, tiny_config, tmp_path):
  workdir = tmp_path / "run"

  def on_metrics(line):
    if line["step"] == 8:
      raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    train(tiny_config, str(workdir), on_metrics)
  train(tiny_config, str(workdir))
  assert read_metrics(workdir) == read_metrics(finished_run)
  assert_same(params_of(workdir), params_of(finished_run))


def test_a_finished_run_is_left_alone(copy_run, tiny_config, capsys):
  workdir = copy_run()
  before = contents(workdir)
  train(tiny_config, str(workdir))
  assert "is complete: 12 steps" in capsys.readouterr().out
  assert contents(workdir) == before

  (workdir / "evaluation.json").unlink()
  (workdir / "samples" / "step_00000012.png").unlink()
  train(tiny_config, str(workdir))
  assert contents(workdir) == before

  for damaged in (b"[]", b"\xff\xfe", b"{"):
    (workdir / "evaluation.json").write_bytes(damaged)
    train(tiny_config, str(workdir))
    assert contents(workdir) == before


def test_more_steps_continue_the_run(copy_run, tiny_config):
  workdir = copy_run()
  tiny_config.train.steps = 14
  tiny_config.train.log_every = 1
  tiny_config.train.samples = 0
  train(tiny_config, str(workdir))
  steps = [line["step"] for line in read_metrics(workdir)]
  assert steps[-3:] == [13, 14, 14]
  assert json.loads((workdir / "evaluation.json").read_text())["step"] == 14
  assert json.loads((workdir / "config.json").read_text())["train"]["steps"] == 14


def test_a_decay_that_ends_with_train_steps_goes_on_with_them(
    tiny_config, tmp_path, capsys):
  """A decay that ends with train.steps ends later when train.steps grows.

  The learning rate rises again instead of staying at 0, and a message says so.
  """
  workdir = tmp_path / "run"
  tiny_config.optimizer = OptimizerConfig(
      name="muon", learning_rate=1e-3, warmup_steps=2, decay_steps=-1)
  tiny_config.train = dataclasses.replace(
      tiny_config.train, steps=4, log_every=1, samples=0)
  train(tiny_config, str(workdir))
  tiny_config.train.steps = 8
  capsys.readouterr()
  train(tiny_config, str(workdir))
  printed = capsys.readouterr().out
  assert "at step 4 the learning rate goes from 0 to 0.00075" in printed
  assert "its decay ends at step 8" in printed
  rates = [
      line["train/learning_rate"] for line in read_metrics(workdir)
      if "train/learning_rate" in line]
  first, second = (
      make_schedule(tiny_config.optimizer, steps) for steps in (4, 8))
  assert rates == pytest.approx(
      [float(first(t)) for t in range(4)] + [float(second(t)) for t in range(4, 8)])
  train(tiny_config, str(workdir))  # the run is complete: same schedule
  assert "schedule" not in capsys.readouterr().out


def test_a_change_of_what_is_trained_is_told_with_its_step(
    copy_run, tiny_config, capsys):
  workdir = copy_run()
  tiny_config.data.augmentation = "colours"
  tiny_config.optimizer.decay_steps = 40
  tiny_config.train = dataclasses.replace(
      tiny_config.train, steps=14, scale=0, log_every=1, samples=0)
  train(tiny_config, str(workdir))
  printed = capsys.readouterr().out.splitlines()
  for line in (
      "data.augmentation: 'none' became 'colours' from step 12 on.",
      "optimizer.decay_steps: 0 became 40 from step 12 on.",
      "train.scale: -1 became 0 from step 12 on."):
    assert printed.count(line) == 1
  # Fields that change only rounding or reports are not among these lines.
  assert sum("from step 12 on" in line for line in printed) == 3
  train(tiny_config, str(workdir))
  assert "became" not in capsys.readouterr().out


def test_figures_of_training_say_how_images_are_augmented(
    copy_run, tiny_config, capsys):
  workdir = copy_run()
  before = len(read_metrics(workdir))
  tiny_config.data.augmentation = "mirror"
  tiny_config.train = dataclasses.replace(tiny_config.train, steps=14, samples=0)
  train(tiny_config, str(workdir))
  lines = read_metrics(workdir)
  assert not any("augmented" in line["data"] for line in lines[:before])
  described = {name: line["data"] for line in lines[before:] for name in line
               if name.endswith("/nats_per_image")}
  assert described["train/nats_per_image"].endswith(", augmented (mirror)")
  # The figures of other splits are for images without augmentation.
  assert "augmented" not in described["validation/nats_per_image"]
  assert "augmented" not in json.loads(
      (workdir / "evaluation.json").read_text())["data"]
  printed = capsys.readouterr().out
  start, = (line for line in printed.splitlines() if "training images (" in line)
  assert ", augmented (mirror)), products in" in start
  validation, = (line for line in printed.splitlines() if "14: validation" in line)
  assert "augmented" not in validation


def test_a_run_with_muon_resumes_exactly(tiny_config, tmp_path):
  tiny_config.optimizer = OptimizerConfig(name="muon", learning_rate=1e-3)
  tiny_config.train = dataclasses.replace(tiny_config.train, steps=6, samples=0)
  train(tiny_config, str(tmp_path / "whole"))
  short = dataclasses.replace(
      tiny_config, train=dataclasses.replace(tiny_config.train, steps=3))
  train(short, str(tmp_path / "parts"))
  train(tiny_config, str(tmp_path / "parts"))
  assert_same(params_of(tmp_path / "parts"), params_of(tmp_path / "whole"))


def test_a_damaged_checkpoint_is_trained_again(copy_run, tiny_config, capsys):
  workdir = copy_run()
  expected, metrics = params_of(workdir), read_metrics(workdir)
  path = workdir / "checkpoints" / "12" / "params" / "manifest.ocdbt"
  path.write_bytes(path.read_bytes()[:20])
  (workdir / "evaluation.json").unlink()
  train(tiny_config, str(workdir))
  captured = capsys.readouterr()
  assert "checkpoint of step 12 is damaged: params/manifest.ocdbt" in captured.err
  assert "Resuming" in captured.out and "at step 9" in captured.out
  assert_same(params_of(workdir), expected)
  assert read_metrics(workdir) == metrics  # no step is there twice
  assert (workdir / "checkpoints" / "damaged_12").is_dir()
  with Checkpoints(str(workdir)) as checkpoints:
    assert checkpoints.steps()[-2:] == [9, 12]


@pytest.mark.parametrize("moment, number", [
    ("step 5", signal.SIGTERM), ("step 5", signal.SIGINT),
    ("validation at 8", signal.SIGTERM), ("validation at 12", signal.SIGINT)])
def test_a_signal_saves_and_the_run_ends_the_same(
    finished_run, tiny_config, tmp_path, monkeypatch, moment, number):
  handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
  workdir = tmp_path / "run"
  if moment == "step 5":
    method, when = "append", 5
    cls = loop.Window
  else:
    method, when = "validate", {"8": 2, "12": 3}[moment.split()[-1]]
    cls = loop._Run
  original, calls = getattr(cls, method), []

  def hooked(self, *args):
    calls.append(1)
    if len(calls) == when:
      os.kill(os.getpid(), number)
    return original(self, *args)

  monkeypatch.setattr(cls, method, hooked)
  with pytest.raises(Interrupted, match="checkpoint is saved") as stopped:
    train(tiny_config, str(workdir))
  assert stopped.value.exit_code == 128 + number
  assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
  step = load_run(str(workdir)).step
  assert step == int(moment.split()[-1])

  train(tiny_config, str(workdir))
  assert_same(params_of(workdir), params_of(finished_run))
  validations = [
      [line for line in read_metrics(d) if "validation/nats_per_image" in line]
      for d in (workdir, finished_run)
  ]
  assert validations[0] == validations[1]
  assert contents(workdir / "samples") == {
      workdir / "samples" / path.name: content
      for path, content in contents(finished_run / "samples").items()}
  with Checkpoints(str(workdir)) as a, Checkpoints(str(finished_run)) as b:
    assert a.ranking()[0] == b.ranking()[0]


def test_a_signal_during_the_last_save_stops_before_the_evaluation(
    finished_run, tiny_config, tmp_path, monkeypatch):
  workdir = tmp_path / "run"
  original = Checkpoints.save

  def save(self, step, *args, **kwargs):
    if step == 12:
      os.kill(os.getpid(), signal.SIGTERM)
    return original(self, step, *args, **kwargs)

  monkeypatch.setattr(Checkpoints, "save", save)
  with pytest.raises(Interrupted, match="after step 12") as stopped:
    train(tiny_config, str(workdir))
  assert stopped.value.exit_code == 143
  assert not (workdir / "evaluation.json").exists()
  train(tiny_config, str(workdir))
  assert (workdir / "evaluation.json").exists()
  assert read_metrics(workdir) == read_metrics(finished_run)
  assert_same(params_of(workdir), params_of(finished_run))


def test_a_reader_that_stops_early_stops_the_run(
    finished_run, tiny_config, tmp_path, monkeypatch):
  """A run whose reader stops early, as in `train.py | head`, saves a checkpoint.

  It can be resumed from there.
  """
  workdir = tmp_path / "run"

  def broken(message):
    if message.startswith("step 4: validation"):
      raise BrokenPipeError

  with monkeypatch.context() as patch:
    patch.setattr(loop.progress, "say", broken)
    with pytest.raises(Interrupted, match="SIGPIPE: stopped after step 5") as stopped:
      train(tiny_config, str(workdir))
  assert stopped.value.exit_code == 128 + signal.SIGPIPE
  train(tiny_config, str(workdir))
  assert_same(params_of(workdir), params_of(finished_run))


def test_a_good_checkpoint_is_there_at_every_moment(
    tiny_config, tmp_path, monkeypatch):
  """There is a good checkpoint at every moment of a resumed run.

  A signal has cut its first validation short. The only checkpoint is read before and
  after each call that renames or deletes files.
  """
  workdir = tmp_path / "run"
  tiny_config.train.checkpoint_every = 100
  tiny_config.train.steps = 5
  original = loop.evaluate

  def interrupted(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    return original(*args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(loop, "evaluate", interrupted)
    with pytest.raises(Interrupted, match="after step 4"):
      train(tiny_config, str(workdir))
  looked = []

  def watched(function):
    def call(*args, **kwargs):
      try:
        if looked and looked[-1] == "looking":
          return function(*args, **kwargs)
        looked.append("looking")
        assert load_run(str(workdir)).step >= 4
        looked[-1] = function.__name__
        result = function(*args, **kwargs)
        looked.append("looking")
        assert load_run(str(workdir)).step >= 4
      finally:
        looked.append("looked")
      return result
    return call

  for owner, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree")):
    monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
  train(tiny_config, str(workdir))
  monkeypatch.undo()
  assert {"rename", "replace"} <= set(looked)
  with Checkpoints(str(workdir)) as checkpoints:
    assert checkpoints.steps() == [4, 5]
    assert sorted(step for _, step in checkpoints.ranking()) == [4, 5]


@pytest.mark.parametrize("owner, name, error", [
    (loop._Run, "restore", Interrupted), (loop, "evaluate", KeyboardInterrupt)])
def test_a_signal_while_a_complete_run_is_evaluated(
    copy_run, tiny_config, monkeypatch, owner, name, error):
  """A signal during the evaluation of a complete run stops the program at once.

  There is no step left after which the run could stop.
  """
  workdir = copy_run()
  (workdir / "evaluation.json").unlink()
  original = getattr(owner, name)

  def hooked(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    return original(*args, **kwargs)

  monkeypatch.setattr(owner, name, hooked)
  with pytest.raises(error):
    train(tiny_config, str(workdir))
  assert not (workdir / "evaluation.json").exists()


def test_a_validation_made_again_is_there_once(
    finished_run, tiny_config, tmp_path, monkeypatch):
  """A validation that is made again after a kill is in the metrics once.

  The run is killed after the line of the validation is written, and before the figure
  is saved in the checkpoint.
  """
  workdir = tmp_path / "run"
  calls = []
  original = loop._Run.validate

  def validate(self):
    calls.append(1)
    if len(calls) == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return original(self)

  monkeypatch.setattr(loop._Run, "validate", validate)
  with pytest.raises(Interrupted, match="after step 8"):
    train(tiny_config, str(workdir))
  with monkeypatch.context() as patch:
    patch.setattr(
        Checkpoints, "set_validation", lambda *_: (_ for _ in ()).throw(KeyError))
    with pytest.raises(KeyError):
      train(tiny_config, str(workdir))
  train(tiny_config, str(workdir))
  assert read_metrics(workdir) == read_metrics(finished_run)


@pytest.mark.parametrize("name, what", [
    ("nats", "loss became nan"), ("grad_norm", "gradient became nan")])
def test_nan_stops_at_its_step(tiny_config, tmp_path, monkeypatch, name, what):
  original = loop.Window.append

  def poisoned(self, metrics):
    self.count = getattr(self, "count", 0) + 1
    if self.count == 5:
      metrics = {**metrics, name: metrics[name] * np.float32(np.nan)}
    original(self, metrics)

  monkeypatch.setattr(loop.Window, "append", poisoned)
  with pytest.raises(InputError, match=f"{what} at step 5") as error:
    train(tiny_config, str(tmp_path))
  assert "learning_rate" in str(error.value)
  with Checkpoints(str(tmp_path)) as checkpoints:
    assert checkpoints.steps() == [3, 4]
  assert max(line["step"] for line in read_metrics(tmp_path)) == 4


def test_a_diverged_run_keeps_its_good_checkpoint(tiny_config, tmp_path):
  tiny_config.optimizer.learning_rate = 1e30
  tiny_config.optimizer.warmup_steps = 0
  tiny_config.train.checkpoint_every = 1
  with pytest.raises(InputError, match="at step [123].*lower optimizer"):
    train(tiny_config, str(tmp_path))
  with Checkpoints(str(tmp_path)) as checkpoints:
    for step in checkpoints.steps():
      assert all(
          np.isfinite(x).all() for x in jax.tree.leaves(params_of(tmp_path))), step


def test_parameters_that_are_not_finite_are_not_saved(tiny_config, tmp_path):
  sources = {s: data.load_source(tiny_config, s) for s in ("train", "validation")}
  run = loop._Run(tiny_config, str(tmp_path), sources, loop.StopSignals())
  run.restore()
  run.state = run.state.replace(
      params=jax.tree.map(lambda x: x * np.inf, run.state.params))
  with pytest.raises(InputError, match="parameters are not finite at step 0"):
    run.save(None)


@pytest.mark.parametrize("change, message", [
    (lambda c: setattr(c.model, "hidden", 7), "model.hidden: 6 became 7"),
    (lambda c: setattr(c.train, "seed", 1), "train.seed: 0 became 1"),
    (lambda c: setattr(c.train, "steps", 6), "train.steps: 12 became 6"),
    (lambda c: setattr(c.data, "workers", 2), "data.workers: 0 became 2"),
    (lambda c: setattr(c.optimizer, "clip_norm", 2.0),
     r"optimizer.clip_norm: .*optimizer.decay_steps and fields that alter no"),
])
def test_another_config_is_refused(copy_run, tiny_config, change, message):
  workdir = copy_run()
  before = contents(workdir)
  change(tiny_config)
  with pytest.raises(InputError, match=message) as error:
    train(tiny_config, str(workdir))
  assert "belongs to another config" in str(error.value)
  assert "another --workdir" in str(error.value)
  assert contents(workdir) == before


def test_unusable_work_directories(tiny_config, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="not a directory that can be written"):
    train(tiny_config, str(tmp_path / "file" / "run"))
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "metrics.jsonl").write_text("")
  with pytest.raises(InputError, match="holds metrics.jsonl but no config.json"):
    train(tiny_config, str(tmp_path / "run"))
  assert len(contents(tmp_path)) == 2


@pytest.mark.parametrize("change, message", [
    (lambda c: setattr(c.train, "batch_size", 5), "multiple of 2"),
    (lambda c: setattr(c.model, "hidden", 2), "fewer features"),
    (lambda c: setattr(c.data, "validation_images", 60_000), "validation_images"),
])
def test_bad_input_writes_nothing(tiny_config, tmp_path, change, message):
  change(tiny_config)
  with pytest.raises(InputError, match=message):
    train(tiny_config, str(tmp_path / "run"))
  assert not list(tmp_path.iterdir())


def test_samples_follow_from_the_seed(finished_run, tiny_config, tmp_path):
  run = load_run(str(finished_run))
  key = jax.random.fold_in(jax.random.key(tiny_config.train.seed), run.step)
  images = sampling.sample(run.model, {"params": run.params}, key, 2)
  loop.save_grid(images, str(tmp_path / "grid.png"), levels=256)
  assert_same_above_the_caption(
      finished_run / "samples" / "step_00000012.png", tmp_path / "grid.png")
