"""The program that measures an accelerator: each kind of measurement, on a CPU."""

import dataclasses
import gc
import json
import types
import weakref

import pytest

from helpers.programs import run_program
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.studies import accelerator, training_speed


def test_the_program_measures_every_kind_of_part(tmp_path):
  output = tmp_path / "measured"
  done = run_program(
      "measure_accelerator.py", "--smoke", "--minutes=60", f"--output={output}")
  assert done.returncode == 0, done.stderr
  record = json.loads((output / "measurements.json").read_text())
  assert not any(part["problem"] for part in record["parts"])
  table = (output / "table.md").read_text()
  assert table in done.stdout
  assert table.startswith(record["machine"]) and "of peak" in table
  rows = {row["name"]: row for part in record["parts"] for row in part["rows"]}
  for start in ("pixel_cnn_cifar10:smoke, training step",
                "pixel_cnn_cifar10:smoke, largest batch, training step",
                "pixel_cnn_cifar10:smoke, sampling", "4 training steps of pixel_cnn",
                "row_lstm_cifar10:smoke, scan, fused: forward",
                "pixel_cnn_cifar10:smoke, layers=1, logits=together, training step"):
    assert any(name.startswith(start) for name in rows), start
    assert f"| {start}" in table
  own, largest = (
      rows[f"pixel_cnn_cifar10:smoke, {what}training step"]
      for what in ("", "largest batch, "))
  assert own["images"] == 16 < largest["images"]
  assert largest["memory"] < accelerator.SMOKE.memory
  assert own["fraction_of_peak"] == pytest.approx(
      own["flops_per_second"] / record["rates"]["operations"])


def test_what_fails_is_recorded_and_the_rest_goes_on(tmp_path, monkeypatch):
  monkeypatch.setattr(
      training_speed, "measure_rates", lambda *_: training_speed.Rates(1e12, 1, 1))
  written = []

  def fail():
    raise MemoryError("no room")

  def second():
    written.append(json.loads((tmp_path / "measurements.json").read_text()))
    return [accelerator.Row("it", 2, 0.5)]

  monkeypatch.setattr(accelerator, "_groups", lambda *_: [
      [("first", fail), ("second", lambda: second)], [("third", lambda: fail)]])
  said = []
  problems = accelerator.measure_all(
      accelerator.SMOKE, "float32", str(tmp_path), 1.0, said.append)
  assert problems == [
      f"{name} (MemoryError: no room)" for name in ("first", "third")]
  assert [part["name"] for part in written[0]["parts"]] == ["first"]
  table = (tmp_path / "table.md").read_text()
  assert "| it   | 2     | 500 | 4 " in table
  assert "Not measured: first (MemoryError: no room)." in table
  problems = accelerator.measure_all(
      accelerator.SMOKE, "float32", str(tmp_path), 0.0, said.append)
  assert problems == [
      f"{name} (left out: 0 minutes were over)" for name in
      ("first", "second", "third")]


def test_few_programs_are_prepared_at_a_time_and_none_after_the_time(
    tmp_path, monkeypatch):
  monkeypatch.setattr(
      training_speed, "measure_rates", lambda *_: training_speed.Rates(1e12, 1, 1))
  monkeypatch.setattr(accelerator.os, "cpu_count", lambda: 2)
  clock, events = [0.0], []
  monkeypatch.setattr(
      accelerator, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))

  def part(name):
    def prepare():
      events.append(f"prepare {name}")

      def timer():
        events.append(f"time {name}")
        clock[0] += 20
        return [accelerator.Row(name, 1, 1.0)]

      return timer
    return name, prepare

  monkeypatch.setattr(accelerator, "_groups", lambda *_: [
      [part(name) for name in "abcde"], [part("f")]])
  problems = accelerator.measure_all(
      accelerator.SMOKE, "float32", str(tmp_path), 1.0, lambda _: None)
  # The time limit is 60 s. After 80 s no further program is prepared.
  assert [sorted(events[i:i + 2]) for i in range(0, len(events), 2)] == [
      [f"{verb} {name}" for name in pair] for pair in ("ab", "cd")
      for verb in ("prepare", "time")]
  assert [problem[0] for problem in problems] == ["e", "f"]


def test_what_was_timed_is_freed(tmp_path, monkeypatch):
  """The arrays of a measured program are freed before the next measurement.

  This includes the step that shows how much memory a batch takes.
  """

  class Arrays:
    """A stand-in for a program's arguments."""

  held = []

  def prepare(config):
    arrays = Arrays()
    held.append((config.train.batch_size, weakref.ref(arrays)))
    planned = state + 1000 * config.train.batch_size
    return training_speed.Prepared(
        lambda: arrays, "training step", 1.0, config.train.batch_size,
        training_speed.Work(1.0), planned)

  name = accelerator.SMOKE.largest
  state = accelerator._state_bytes(load_config(name))
  monkeypatch.setattr(
      training_speed, "measure_rates", lambda *_: training_speed.Rates(1e12, 1, 1))
  monkeypatch.setattr(training_speed, "_times", lambda *_: [1.0])
  monkeypatch.setattr(training_speed, "prepare_training_step", prepare)
  monkeypatch.setattr(accelerator.os, "cpu_count", lambda: 4)
  plan = dataclasses.replace(
      accelerator.SMOKE, memory=2**20 + 2 * state, batches=(), scans=())
  monkeypatch.setattr(accelerator, "_training", lambda *_: [])
  alive = []

  def look(_):
    gc.collect()
    alive.append([batch for batch, arrays in held if arrays() is not None])

  assert not accelerator.measure_all(plan, "float32", str(tmp_path), 60.0, look)
  (own, _), (largest, _), *choices = held
  assert own == 16 < largest and len(choices) == 2
  # The measurements in order: the rates, the two steps, the training and the two
  # choices.
  assert alive == [[], [largest], [], [], [16], []]


def test_the_largest_is_one_of_the_steps():
  plan = accelerator.SMOKE
  with pytest.raises(ValueError, match=r"largest='other' is 0 times in steps=\('pix"):
    dataclasses.replace(plan, largest="other")
  with pytest.raises(ValueError, match="is 2 times in steps=.*once"):
    dataclasses.replace(plan, steps=plan.steps * 2)


def test_a_training_without_figures_is_told(monkeypatch):
  monkeypatch.setattr(accelerator, "train", lambda *_, **__: None)
  with pytest.raises(InputError, match="pixel_cnn_mnist:smoke left no figures of the"):
    accelerator._training("pixel_cnn_mnist:smoke", 4)


def test_the_largest_batch():
  config = load_config("row_lstm_cifar10:smoke")
  state = accelerator._state_bytes(config)

  # Each of the two devices has 8 of 16 images. An image takes 1,000 bytes.
  memory = int((100_500 + state) / 0.9)
  assert accelerator.largest_batch(
      state + 8_000, config, 2, memory) == 2 * 96
  with pytest.raises(InputError, match="No larger batch"):
    accelerator.largest_batch(state + 8_000, config, 2, state)
  with pytest.raises(InputError, match="does not say"):
    accelerator.largest_batch(None, config, 2, memory)


def test_the_plan_is_of_what_there_is():
  """The full plan, which no test runs, names configs and fields that exist."""
  plan = accelerator.FULL
  for name in {*plan.steps, *plan.scans, plan.sampling, plan.training}:
    load_config(name)
  assert plan.largest in plan.steps
  for name, fields in plan.choices:
    assert name in plan.steps
    for field in fields:
      values = accelerator.other_values(field)
      assert values and getattr(load_config(name).model, field) not in values
      for value in values:
        accelerator._load(name, "bfloat16", {f"model.{field}": value})
