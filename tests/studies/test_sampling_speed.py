"""Timing with known times, and the comparison of the samplers."""

import time

import jax
import pytest

from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.studies import sampling_speed

TINY = dict(image_shape=(2, 3, 1), levels=2, hidden=3, layers=1, head_features=3)


def test_the_first_call_compiles_and_the_median_counts(monkeypatch):
  clock = iter([0, 10, 20, 21, 30, 35, 40, 42])  # calls take 10, 1, 5 and 2 s
  monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
  calls = []
  timing = sampling_speed.time_calls(lambda: calls.append(1), 3)
  assert len(calls) == 4
  assert (timing.seconds, timing.compile_seconds) == (2, 8)


def test_the_plain_sampler_is_extrapolated():
  result = sampling_speed.Comparison(
      sampling_speed.Timing(0.5, 9.0),
      sampling_speed.Timing(0.25, 9.0), 784, sampling_speed.Timing(0.6, 9.0),
      sampling_speed.Timing(0.7, 0.0))
  assert result.plain_seconds == 196
  assert result.ratio == 392


def test_both_samplers_and_the_coder_are_timed(monkeypatch):
  monkeypatch.setattr(jax, "local_device_count", lambda: 1)
  config = ModelConfig("pixel_cnn", **TINY)
  result = sampling_speed.compare_samplers(config, batch=2, calls=1)
  assert result.values == 6
  assert result.cached.seconds > 0 and result.plain_pass.seconds > 0
  assert result.compress.seconds > 0 and result.decompress.seconds > 0


@pytest.mark.parametrize("batch, calls, message", [
    (0, 1, "batch=0"), (1, 0, "calls=0"), (1, 1, "2 devices, and the comparison")])
def test_bad_comparisons(batch, calls, message):
  with pytest.raises(InputError, match=message):
    sampling_speed.compare_samplers(ModelConfig("pixel_cnn", **TINY), batch, calls)


def test_a_multi_scale_model_is_refused(monkeypatch):
  monkeypatch.setattr(jax, "local_device_count", lambda: 1)
  changes = dict(image_shape=(2, 4, 1), multi_scale=(2,))
  config = ModelConfig("pixel_cnn", **TINY | changes)
  with pytest.raises(InputError, match="models of a single scale"):
    sampling_speed.compare_samplers(config, batch=2, calls=1)
