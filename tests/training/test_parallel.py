import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from helpers.precision import enable_x64
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import TrainConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs.state import init_state
from pixelrnn_jax.training import parallel, step


def make_images(config, number, seed=0):
  rng = np.random.default_rng(seed)
  shape = (number, *config.model.image_shape)
  return rng.integers(0, config.model.levels, shape, dtype=np.uint8)


def test_gradient_and_metrics_are_those_of_the_whole_batch(tiny_config):
  config = tiny_config
  model = build_model(config.model)
  optimizer = optax.sgd(1.0)  # the update is the gradient
  state = init_state(model, optimizer, jax.random.key(0), config.model.image_shape)
  images = make_images(config, 4)

  def loss(params):
    nats = -likelihood.log_prob(model, {"params": params}, jnp.asarray(images))
    return nats.mean() / images[0].size, nats.sum()

  (_, nats), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.params)
  before = jax.device_get(state.params)
  train_step = parallel.make_train_step(model, optimizer)
  state, metrics = train_step(parallel.replicate(state), parallel.shard(images))
  moved = jax.tree.map(np.subtract, before, jax.device_get(state.params))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=3e-7), moved, grads)
  np.testing.assert_allclose(metrics["nats"], nats, rtol=1e-5)
  np.testing.assert_allclose(
      metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-4)
  assert int(metrics["images"]) == 4
  assert int(state.step) == 1


def test_the_step_is_compiled_once(tiny_config):
  model = build_model(tiny_config.model)
  optimizer = optax.sgd(0.1)
  state = init_state(
      model, optimizer, jax.random.key(0), tiny_config.model.image_shape)
  state = parallel.replicate(jax.device_get(state))
  train_step = parallel.make_train_step(model, optimizer)
  images = parallel.shard(make_images(tiny_config, 2))
  layouts = []
  for _ in range(2):
    layouts.append(jax.tree.map(lambda x: x.sharding, state))
    state, metrics = train_step(state, images)
    jax.block_until_ready(metrics)
  assert layouts[0] == layouts[1]


def test_shard_map_takes_the_same_step(tiny_config):
  """A step mapped by `shard_map` gives the same result as one mapped by `pmap`."""
  model, optimizer = build_model(tiny_config.model), optax.sgd(0.1)
  images = make_images(tiny_config, 4)
  mesh = Mesh(np.array(jax.devices()), (step.AXIS,))
  mapped = jax.jit(jax.shard_map(
      functools.partial(step.train_step, model, optimizer, 1, -1), mesh=mesh,
      in_specs=(P(), P(step.AXIS)), out_specs=(P(), P()), check_vma=False),
      donate_argnums=0)
  results = []
  for train_step, batch in (
      (parallel.make_train_step(model, optimizer), parallel.shard(images)),
      (mapped, images)):
    state = init_state(
        model, optimizer, jax.random.key(0), tiny_config.model.image_shape)
    state = parallel.replicate(state)
    for _ in range(2):
      state, metrics = jax.block_until_ready(train_step(state, batch))
    results.append(jax.device_get((state.params, metrics)))
  jax.tree.map(np.testing.assert_array_equal, *results)


def test_evaluation_gathers_every_image_in_order(tiny_config):
  model = build_model(tiny_config.model)
  state = init_state(
      model, optax.sgd(0.1), jax.random.key(0), tiny_config.model.image_shape)
  images = make_images(tiny_config, 3)
  padded = parallel.pad(images)
  mask = parallel.pad(np.ones(3, bool))
  assert len(padded) == 4 and mask.tolist() == [True] * 3 + [False]
  nats, gathered = parallel.make_eval_step(model)(
      parallel.replicate(state.params), parallel.shard(padded),
      parallel.shard(mask))
  expected = -likelihood.log_prob(
      model, {"params": state.params}, jnp.asarray(images))
  np.testing.assert_array_equal(gathered, mask)
  assert nats.shape == (4, 1)
  np.testing.assert_allclose(np.asarray(nats)[:3, 0], expected, rtol=1e-5)


def test_batch_size_must_be_divisible():
  parallel.check_batch_size(TrainConfig(batch_size=16, eval_batch_size=5))
  with pytest.raises(InputError, match="batch_size=15 .* 2 devices.*14 or 16"):
    parallel.check_batch_size(TrainConfig(batch_size=15))
  with pytest.raises(InputError, match="accumulate=2 does not divide .* share"):
    parallel.check_batch_size(TrainConfig(batch_size=4, accumulate=2), devices=4)


@pytest.mark.parametrize("cores, names, accumulate, expected", [
    (1, ["quickstart"], 1, 1),
    (3, ["quickstart"], 1, 2),  # a batch of 16 images
    (6, ["quickstart", "row_lstm_cifar10"], 4, 4),
    (64, ["quickstart"], 1, 16),
    (64, ["quickstart"], 3, 1),  # the training refuses it later
    (4, ["quickstart", "row_lstm_imagenet32"], 1, 1),  # h = 384
])
def test_as_many_cores_as_divide_the_batches(cores, names, accumulate, expected):
  configs = [load_config(name) for name in names]
  for config in configs:
    config.train.accumulate = accumulate
  assert parallel._count(cores, configs) == expected


def test_a_config_that_cannot_work_is_refused_first():
  config = load_config("quickstart")
  config.train.accumulate = 0
  with pytest.raises(InputError, match="accumulate=0"):
    parallel.use_cores(config)


CORES = """
import jax
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.training import parallel

parallel._cores = lambda: 4
for _ in range(2):  # a cell of a notebook may be run again
  parallel.use_cores(load_config("quickstart"))
  print(jax.local_device_count())
"""


@pytest.mark.parametrize("variables, expected", [
    ({}, 4), ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
    ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5)])
def test_cores_are_devices_unless_the_user_says_otherwise(variables, expected):
  environment = {
      name: value for name, value in os.environ.items()
      if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
  printed = subprocess.run(
      [sys.executable, "-c", CORES], check=True, capture_output=True, text=True,
      env=environment | variables | {"JAX_PLATFORMS": "cpu"}).stdout
  assert printed.split() == [str(expected)] * 2


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(tiny_config, accumulate):
  """Gradients of several parts of a batch sum to that of the whole batch.

  The test uses float64, so that only the order of sums differs. It uses two devices.
  """
  with enable_x64(True):
    tiny_config.model.dtype = "float64"
    model = build_model(tiny_config.model)
    optimizer = optax.sgd(1.0)  # the update is the gradient
    state = jax.device_get(init_state(
        model, optimizer, jax.random.key(0), tiny_config.model.image_shape))
    images = parallel.shard(make_images(tiny_config, 8))
    (whole, metrics), (parts, metrics_of_parts) = (
        jax.device_get(parallel.make_train_step(model, optimizer, number)(
            parallel.replicate(state), images))
        for number in (1, accumulate))
    moved = jax.tree.map(np.subtract, state.params, whole.params)
    assert all(np.abs(x).max() > 1e-7 for x in jax.tree.leaves(moved))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12),
        whole.params, parts.params)
    for name in metrics:
      np.testing.assert_allclose(metrics_of_parts[name], metrics[name], rtol=1e-6)


def test_accumulation_takes_less_memory(tiny_config):
  model = build_model(tiny_config.model)
  optimizer = optax.sgd(1.0)
  state = jax.eval_shape(
      lambda key: init_state(model, optimizer, key, tiny_config.model.image_shape),
      jax.random.key(0))
  images = parallel.shard(make_images(tiny_config, 64))
  sizes = [
      parallel.make_train_step(model, optimizer, number).lower(state, images)
      .compile().memory_analysis().temp_size_in_bytes for number in (1, 8)]
  assert sizes[1] < sizes[0] / 3


def test_accumulation_must_divide_a_devices_share():
  parallel.check_batch_size(TrainConfig(batch_size=16, accumulate=4))
  for accumulate in (3, 16):
    with pytest.raises(InputError, match=f"accumulate={accumulate} .* share .*, 8 of"):
      parallel.check_batch_size(TrainConfig(batch_size=16, accumulate=accumulate))
