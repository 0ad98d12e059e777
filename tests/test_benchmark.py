"""What the benchmark counts, and that it runs."""

import numpy as np
import pytest

from pixelrnn_jax import benchmark
from pixelrnn_jax.config import KINDS, ModelConfig, load_config
from pixelrnn_jax.models import build_model


@pytest.mark.parametrize("kind", KINDS)
def test_operations_of_a_network_counted_by_hand(kind):
  # One channel: the only hidden weights are the 7x7's centre and the future.
  model = build_model(ModelConfig(
      kind, (2, 3, 1), levels=2, hidden=4, layers=5, head_features=6))
  h, first = 4, 24 * 8  # 24 visible taps, 1 to 2h
  head = 8 * 6 + 6 * 6 + 6 * 1
  layer = {
      "pixel_cnn": 8 * 4 + 5 * 4 * 4,  # 1x1, then 5 visible taps
      "row_lstm": 2 * 8 * 16 + 3 * 4 * 16,  # 2 visible taps; 3 state taps
      "diagonal_bilstm": 2 * (8 * 16 + 2 * 4 * 16),
  }[kind] + h * 8
  expected = 2 * 6 * (first + 5 * layer + head)
  assert benchmark.model_operations(model) == expected


def test_a_measurement_is_of_the_function_that_was_run():
  config = load_config("row_lstm_cifar10:smoke")
  measured = benchmark.scan_measurements(config.model, 2, ["fused", "autodiff"], 2)
  assert [m.name for m in measured] == [
      f"scan, {i}: {d}" for i in ("fused", "autodiff")
      for d in ("forward", "forward + backward")]
  # 8x8 image, h = 12: 64 positions, batch 2, 3 taps of 12 by 48.
  assert measured[0].operations == 2 * 64 * 2 * 3 * 12 * 48
  assert measured[1].operations == 3 * measured[0].operations
  for m in measured:
    assert 0 < m.spread[0] <= m.seconds <= m.spread[1] and m.compile_seconds > 0
    assert m.record(1e9)["images_per_second"] == pytest.approx(2 / m.seconds)
  forward, step = benchmark.step_measurements(config, 2)
  assert step.operations == pytest.approx(3 * forward.operations)
  assert np.isfinite(benchmark.product_peak("float32", 1, sizes=(64,)))
