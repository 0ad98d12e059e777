import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixelrnn_jax.configs.schema import OptimizerConfig
from pixelrnn_jax.runs.state import make_optimizer, make_schedule


def reference(config, rates, params, gradients):
  """The docstring of `make_optimizer`, in NumPy."""
  v = m = 0.0
  for t, (rate, g) in enumerate(zip(rates, gradients, strict=True)):
    norm = np.sqrt(np.sum(g**2))
    if config.clip_norm and norm > config.clip_norm:
      g = g * config.clip_norm / norm
    v = config.decay * v + (1 - config.decay) * g**2
    mean = v / (1 - config.decay ** (t + 1))
    m = config.momentum * m + rate * g / (np.sqrt(mean) + config.epsilon)
    params = params - m
  return params


@pytest.mark.parametrize("momentum, clip_norm", [(0.0, 0.0), (0.0, 1.0), (0.9, 1.0)])
def test_rmsprop(momentum, clip_norm):
  config = OptimizerConfig(
      learning_rate=0.1, decay=0.8, epsilon=1e-3, momentum=momentum,
      clip_norm=clip_norm, warmup_steps=2)
  rng = np.random.default_rng(0)
  gradients = rng.normal(size=(5, 3)) * np.array([[0.1], [5.0], [0.3], [0.01], [1.0]])
  params = rng.normal(size=3)
  optimizer = make_optimizer(config)
  tree = {"a": jnp.float32(params[:1]), "b": {"c": jnp.float32(params[1:])}}
  state = optimizer.init(tree)
  for g in gradients:
    tree_g = {"a": jnp.float32(g[:1]), "b": {"c": jnp.float32(g[1:])}}
    updates, state = optimizer.update(tree_g, state, tree)
    tree = jax.tree.map(jnp.add, tree, updates)
  expected = reference(config, [0.0, 0.05, 0.1, 0.1, 0.1], params, gradients)
  got = np.concatenate([tree["a"], tree["b"]["c"]])
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_the_first_step_has_the_length_of_the_rate():
  optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, decay=0.95))
  params = jnp.zeros(2)
  updates, _ = optimizer.update(jnp.array([1e-3, -0.5]), optimizer.init(params), params)
  np.testing.assert_allclose(updates, [-0.1, 0.1], rtol=1e-4)


@pytest.mark.parametrize("warmup, decay, steps, expected", [
    (0, 0, [0, 1, 1000], [2.0, 2.0, 2.0]),
    (4, 0, [0, 1, 3, 4, 1000], [0.0, 0.5, 1.5, 2.0, 2.0]),
    (0, 8, [0, 4, 6, 8, 1000], [2.0, 1.0, 1 + np.cos(np.pi * 0.75), 0.0, 0.0]),
    (4, 8, [2, 4, 6, 7, 8, 99],
     [1.0, 2.0, 1.0, 1 + np.cos(np.pi * 0.75), 0.0, 0.0]),
])
def test_schedule(warmup, decay, steps, expected):
  schedule = make_schedule(OptimizerConfig(
      learning_rate=2.0, warmup_steps=warmup, decay_steps=decay))
  got = [float(schedule(jnp.int32(step))) for step in steps]
  np.testing.assert_allclose(got, expected, atol=1e-6)
