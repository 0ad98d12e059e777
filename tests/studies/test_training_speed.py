"""The benchmark of training: it counts the right work, and it runs."""

import dataclasses

import jax
import numpy as np
import pytest

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import KINDS, ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models import build_model
from pixelrnn_jax.studies import training_speed


@pytest.mark.parametrize("kind", KINDS)
def test_operations_of_a_network_counted_by_hand(kind):
  # With one channel, masks hide only future positions and, in the first 7x7 layer, the
  # centre.
  model = build_model(ModelConfig(
      kind, (2, 3, 1), levels=2, hidden=4, layers=5, head_features=6))
  h, first = 4, 24 * 8  # 24 visible taps, from 1 to 2h features
  head = 8 * 6 + 6 * 6 + 6 * 1
  layer = {
      "pixel_cnn": 8 * 4 + 5 * 4 * 4,  # a 1x1 layer, then 5 visible taps
      "row_lstm": 2 * 8 * 16 + 3 * 4 * 16,  # 2 visible taps, and 3 taps of the state
      "diagonal_bilstm": 2 * (8 * 16 + 2 * 4 * 16),
  }[kind] + h * 8
  expected = 2 * 6 * (first + 5 * layer + head)
  assert training_speed.model_operations(model) == expected


def test_a_measurement_is_of_the_function_that_was_run():
  config = load_config("row_lstm_cifar10:smoke")
  measured = training_speed.scan_measurements(config.model, 2, ["fused", "autodiff"], 2)
  assert [m.name for m in measured] == [
      f"scan, {i}{n}: {d}" for i in ("fused", "autodiff") for n in ("", ", 1 device")
      for d in ("forward", "forward + backward")]
  # An 8x8 image has 64 positions. The batch is 2 and h is 12. A product has 3 taps of
  # 12 by 48 weights.
  forward, both = measured[0].work, measured[1].work
  assert forward.operations == 2 * 64 * 2 * 3 * 12 * 48
  assert both.operations == 3 * forward.operations
  # The forward pass moves a value for each of the four gates and the state. The
  # backward pass moves six derivatives twice, and six more values.
  assert forward.bytes == 4 * 64 * 2 * 12 * 5
  assert both.bytes == 4 * 64 * 2 * 12 * (5 + 2 * 6 + 6)
  assert (forward.tanh, both.tanh) == (64 * 2 * 12 * 5, 64 * 2 * 12 * 5)
  # All loops do the same work. They differ only in what they copy.
  assert all(m.work in (forward, both) for m in measured)
  rates = training_speed.Rates(1e9, 1e8, 1e7)
  for m in measured:
    assert 0 < m.spread[0] <= m.seconds <= m.spread[1] and m.compile_seconds > 0
    record = m.record(rates)
    assert record["images_per_second"] == pytest.approx(2 / m.seconds)
    assert record["fraction_of_peak"] == m.work.operations / m.seconds / 1e9
    assert record["floor_seconds"] == {
        "products": m.work.operations / 1e9, "bytes": m.work.bytes / 1e8,
        "tanh": m.work.tanh / 1e7}
  forward, step = training_speed.step_measurements(config, 2)
  assert step.work.operations == pytest.approx(3 * forward.work.operations)
  assert step.work.tanh == step.work.bytes == 0
  assert np.isfinite(training_speed.product_peak("float32", 1, sizes=(64,)))


@pytest.mark.parametrize("choice, dtype, saved", [
    ("auto", "bfloat16", 4), ("wide", "bfloat16", 4), ("narrow", "bfloat16", 2),
    ("narrow", "float32", 4)])
def test_the_floor_of_memory_follows_the_choice_in_force(choice, dtype, saved):
  config = dataclasses.replace(
      load_config("row_lstm_cifar10:smoke").model, dtype=dtype, saved=choice)
  scans = training_speed.prepare_scans(config, 2, ["fused"])
  forward, both = (scan.work.bytes for scan in scans[:2])
  size = {"bfloat16": 2, "float32": 4}[dtype]
  units = 64 * 2 * 12  # 8x8 image, batch 2, h = 12
  assert forward == units * 5 * size
  assert both == forward + units * (2 * (4 * size + 2 * saved) + 6 * size)


def test_what_is_timed_copies_nothing_to_the_devices():
  config = load_config("pixel_cnn_cifar10:smoke")
  step = training_speed.prepare_training_step(config)
  with jax.transfer_guard_host_to_device("disallow"):
    jax.block_until_ready(step.run())
    jax.block_until_ready(step.run())


def test_models_of_several_scales_are_refused_in_one_line():
  config = load_config("multi_scale_mnist:smoke")
  for call in (
      lambda: training_speed.scan_measurements(config.model, 2, ["fused"], 1),
      lambda: training_speed.step_measurements(config, 1),
      lambda: training_speed.model_operations(build_model(config.model))):
    with pytest.raises(InputError, match=r"multi_scale=\(4,\): the figures are of one"):
      call()
