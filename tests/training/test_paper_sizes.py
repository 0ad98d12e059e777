"""The paper's CIFAR-10 models at full size: their training steps compile and run.

    pytest -m slow -s tests/training/test_paper_sizes.py

prints the times. Compilation does not grow with depth, as the layers go through one
`lax.scan`. XLA_FLAGS= compiles with optimisation, as users do.
"""

import os
import time

import jax
import numpy as np
import pytest

from pixelrnn_jax.config import load_config
from pixelrnn_jax.models import build_model
from pixelrnn_jax.training import parallel
from pixelrnn_jax.training.state import init_state, make_optimizer


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "pixel_cnn_cifar10", "row_lstm_cifar10", "diagonal_bilstm_cifar10"])
def test_step_compiles_within_30_seconds_and_runs(name):
  config = load_config(name)
  model, optimizer = build_model(config.model), make_optimizer(config.optimizer)
  shape = config.model.image_shape

  def init(key):
    return init_state(model, optimizer, key, shape)

  state = parallel.replicate(jax.jit(init)(jax.random.key(0)))
  images = np.random.default_rng(0).integers(
      0, 256, (config.train.batch_size, *shape), np.uint8)
  step = parallel.make_train_step(model, optimizer)
  start = time.perf_counter()
  step.lower(state, parallel.shard(images)).compile()
  compiling = time.perf_counter() - start
  state, metrics = jax.block_until_ready(step(state, parallel.shard(images)))
  start = time.perf_counter()
  state, metrics = jax.block_until_ready(step(state, parallel.shard(images)))
  seconds = time.perf_counter() - start
  nats = float(metrics["nats"].sum()) / config.train.batch_size
  bits = nats / np.log(2) / np.prod(shape)
  print(
      f"\n{name}: compiled in {compiling:.1f} s, a step in {seconds:.1f} s,"
      f" {bits:.2f} bits/dim ({os.cpu_count()} cores)")
  assert compiling < 30
  assert 6 < bits < 12  # near the uniform model's 8
