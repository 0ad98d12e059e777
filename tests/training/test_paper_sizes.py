"""The paper's models at full size: their training steps compile and run.

This command prints memory and times of one CPU device. Programs are optimised, as for
users:

    XLA_FLAGS= pytest -m slow -s tests/training/test_paper_sizes.py

The time of compilation does not grow with depth, because the layers run in one
`lax.scan`. The memory is what the compiler plans. It grows linearly with the batch. So
two compiled batches tell the largest one that fits, without filling the memory.
"""

import os
import resource
import time

import jax
import numpy as np
import pytest

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs.optimizer import make_optimizer
from pixelrnn_jax.runs.state import init_state
from pixelrnn_jax.studies import training_speed
from pixelrnn_jax.training import parallel

GIB = 2**30
MEMORY = 24 * GIB
# The batch size and the number of its parts, for steps of tens of seconds.
RUNS = {
    "pixel_cnn_cifar10": (16, 1),
    "row_lstm_cifar10": (16, 1),
    "diagonal_bilstm_cifar10": (16, 1),
    "row_lstm_imagenet32": (8, 2),
    "row_lstm_imagenet64": (4, 2),
}


class Step:
  """The compiled training step of a config on one device."""

  def __init__(self, name, batch=None, accumulate=1, rematerialize=False):
    config = load_config(name)
    config.model.rematerialize = rematerialize
    self.batch = batch or config.train.batch_size
    self.shape = config.model.image_shape
    model = build_model(config.model)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    self.init = jax.jit(
        lambda key: init_state(model, optimizer, key, self.shape))
    step = parallel.make_train_step(
        model, optimizer, accumulate, devices=jax.devices()[:1])
    start = time.perf_counter()
    self.compiled = step.lower(
        jax.eval_shape(self.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((1, self.batch, *self.shape), np.uint8)).compile()
    self.seconds = time.perf_counter() - start
    self.memory = training_speed.memory(self.compiled)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_memory(name):
  paper = load_config(name).train.batch_size
  print(f"\n{name}, the paper's batch {paper}:")
  largest = {}
  for rematerialize in (False, True):
    small, large = (Step(name, n, rematerialize=rematerialize) for n in (4, 8))
    slope = (large.memory - small.memory) / 4
    fixed = small.memory - 4 * slope
    largest[rematerialize] = int((MEMORY - fixed) // slope)
    what = "rematerialized" if rematerialize else "as it is"
    print(
        f"  {what}: {(fixed + paper * slope) / GIB:.2f} GiB, largest batch in"
        f" {MEMORY // GIB} GiB: {largest[rematerialize]}, compiled in"
        f" {large.seconds:.1f} s")
    assert fixed + paper * slope > 0 and large.seconds < 60
  parts = Step(name, accumulate=paper // 4)
  print(
      f"  accumulate={paper // 4}, four images at a time: {parts.memory / GIB:.2f} GiB"
      " and no more for any batch but its pixels")
  assert largest[True] > largest[False] >= 1
  assert parts.memory < MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_few_real_steps(name):
  batch, accumulate = RUNS[name]
  step = Step(name, batch, accumulate)
  assert step.memory < 10 * GIB
  state = jax.device_get(step.init(jax.random.key(0)))
  images = np.random.default_rng(0).integers(
      0, 256, (1, batch, *step.shape), np.uint8)
  seconds, bits = [], []
  for _ in range(2):
    start = time.perf_counter()
    state, metrics = jax.block_until_ready(step.compiled(state, images))
    seconds.append(time.perf_counter() - start)
    bits.append(float(metrics["nats"].sum()) / batch / np.log(2) / np.prod(step.shape))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  print(
      f"\n{name}: batch {batch}, accumulate={accumulate}: compiled in"
      f" {step.seconds:.1f} s, a step in {seconds[-1]:.1f} s, {step.memory / GIB:.2f}"
      f" GiB planned, the process's peak so far {peak / GIB:.2f} GiB,"
      f" {bits[0]:.2f} bits/dim ({os.cpu_count()} cores)")
  assert step.seconds < 30
  assert all(6 < b < 12 for b in bits)  # the uniform model has 8
