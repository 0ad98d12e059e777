import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixelrnn_jax.configs import CONFIGS, load_config
from pixelrnn_jax.configs.schema import KINDS, ModelConfig, OptimizerConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs.optimizer import (
  check_schedule,
  kernel_axes,
  make_optimizer,
  make_schedule,
)


def reference(config, rates, params, gradients):
  """Compute in NumPy what the docstring of `_rmsprop` says."""
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
  optimizer = make_optimizer(config, steps=5)
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
  optimizer = make_optimizer(
      OptimizerConfig(learning_rate=0.1, decay=0.95), steps=5)
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
      learning_rate=2.0, warmup_steps=warmup, decay_steps=decay), steps=5)
  got = [float(schedule(jnp.int32(step))) for step in steps]
  np.testing.assert_allclose(got, expected, atol=1e-6)


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # from Jordan's Muon, as in Optax


def orthogonal(matrix):
  """Compute the five Newton-Schulz iterations in NumPy."""
  x = matrix / np.linalg.norm(matrix)
  transposed = x.shape[0] > x.shape[1]
  x = x.T if transposed else x
  a, b, c = NEWTON_SCHULZ
  for _ in range(5):
    s = x @ x.T
    x = a * x + (b * s + c * s @ s) @ x
  return x.T if transposed else x


def muon_reference(config, rates, adam_rates, kernel, bias, gradients):
  """Compute what the docstring of `_muon` says, for one matrix and one bias."""
  m, a, v = np.zeros_like(kernel), np.zeros_like(bias), np.zeros_like(bias)
  beta, b1, b2 = config.beta, 0.9, config.adam_b2
  for t, (g, gb) in enumerate(gradients):
    m = beta * m + (1 - beta) * g
    n = beta * m / (1 - beta ** (t + 2)) + (1 - beta) * g / (1 - beta ** (t + 1))
    update = 0.2 * np.sqrt(max(kernel.shape)) * orthogonal(n)
    kernel = kernel - rates[t] * (update + config.weight_decay * kernel)
    a = b1 * a + (1 - b1) * gb
    v = b2 * v + (1 - b2) * gb**2
    n = b1 * a / (1 - b1 ** (t + 2)) + (1 - b1) * gb / (1 - b1 ** (t + 1))
    bias = bias - adam_rates[t] * n / (np.sqrt(v / (1 - b2 ** (t + 1))) + 1e-8)
  return kernel, bias


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_muon(weight_decay):
  """Muon takes the kernel of each layer as a matrix of its own.

  The rows of the matrix are the taps and inputs.
  """
  layers, taps, inputs, outputs = 2, 3, 4, 5
  config = OptimizerConfig(
      name="muon", learning_rate=0.1, adam_learning_rate=0.03, beta=0.8, adam_b2=0.7,
      weight_decay=weight_decay, warmup_steps=2, clip_norm=0.0)
  rng = np.random.default_rng(0)

  def draw():
    return {"layers": {"conv": {
        "kernel": rng.normal(size=(layers, taps, inputs, outputs)),
        "bias": rng.normal(size=(layers, outputs))}}}

  params, gradients = draw(), [draw() for _ in range(4)]
  optimizer = make_optimizer(config, steps=4)
  tree = jax.tree.map(jnp.float32, params)
  state = optimizer.init(tree)
  for g in gradients:
    updates, state = optimizer.update(jax.tree.map(jnp.float32, g), state, tree)
    tree = jax.tree.map(jnp.add, tree, updates)
  got = tree["layers"]["conv"]
  for layer in range(layers):
    matrices = [
        (g["layers"]["conv"]["kernel"][layer].reshape(taps * inputs, outputs),
         g["layers"]["conv"]["bias"][layer]) for g in gradients]
    start = params["layers"]["conv"]
    kernel, bias = muon_reference(
        config, [0.0, 0.05, 0.1, 0.1], [0.0, 0.015, 0.03, 0.03],
        start["kernel"][layer].reshape(taps * inputs, outputs),
        start["bias"][layer], matrices)
    np.testing.assert_allclose(
        got["kernel"][layer].reshape(taps * inputs, outputs), kernel, rtol=2e-4,
        atol=2e-5)
    np.testing.assert_allclose(got["bias"][layer], bias, rtol=1e-4)


def test_adam_learns_at_the_rate_of_muon_unless_it_has_its_own():
  def first_update(**fields):
    optimizer = make_optimizer(
        OptimizerConfig(name="muon", learning_rate=0.1, **fields), steps=1)
    params = {"first": {"bias": jnp.zeros(3)}}
    gradient = {"first": {"bias": jnp.array([1e-3, -1e-3, 1e-3])}}
    return optimizer.update(gradient, optimizer.init(params), params)[0]

  same, own = first_update(), first_update(adam_learning_rate=0.01)
  np.testing.assert_allclose(
      same["first"]["bias"], 10 * own["first"]["bias"], rtol=1e-5)
  # Because of Nesterov's momentum, the first step is longer than the learning rate.
  n = 0.9 / (1 - 0.9**2) * (1 - 0.9) + 1.0
  np.testing.assert_allclose(np.abs(same["first"]["bias"]), 0.1 * n, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrices_of_a_network(kind):
  """The rows of a matrix are what an output sees, and the columns are the outputs.

  There are as many rows as taps times inputs.
  """
  config = ModelConfig(
      kind, (8, 8, 3), hidden=6, layers=2, head_features=9, skip=True,
      multi_scale=(2,))
  model = build_model(config)
  params = jax.eval_shape(
      model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3), jnp.uint8))["params"]
  matrices = {}

  def matrix(path, x, axes):
    name = "/".join(key.key for key in path)
    if axes is None:
      assert not name.endswith("kernel") or name.endswith("head_2/kernel")
      return
    rows = math.prod(x.shape[axis] for axis in axes.reduction_axis)
    columns = math.prod(x.shape[axis] for axis in axes.output_axis)
    matrices[name] = (math.prod(x.shape) // (rows * columns), rows, columns)

  jax.tree.map_with_path(matrix, params, kernel_axes(params))
  h, trunk = 6, 12
  expected = {
      "first/kernel": (1, 49 * 3, trunk),
      "head_0/kernel": (1, trunk, 9), "head_1/kernel": (1, 9, 9),
      "layers/up/kernel": (2, h, trunk), "layers/skip/kernel": (2, h, trunk),
  } | {
      "pixel_cnn": {
          "layers/down/kernel": (2, trunk, h), "layers/conv/kernel": (2, 9 * h, h)},
      "row_lstm": {
          "layers/input_to_state/kernel": (2, 3 * trunk, 4 * h),
          "layers/state_to_state/kernel": (2, 3 * h, 4 * h)},
      "diagonal_bilstm": {
          "layers/input_to_state/kernel": (2, trunk, 8 * h),
          "layers/state_to_state/kernel": (4, 2 * h, 4 * h)},
  }[kind]
  conditional = {
      "upsampler/small/kernel": (1, 49 * 3, h), "upsampler/large/kernel": (1, 9 * h, h),
      "upsampler/transposed/kernel": (1, 4 * h, h),
      "layers/condition/kernel": (
          2, h, {"pixel_cnn": h, "row_lstm": 4 * h, "diagonal_bilstm": 8 * h}[kind]),
  }
  assert matrices == {
      f"scales_0/{name}": value for name, value in expected.items()} | {
      f"scales_1/{name}": value for name, value in (expected | conditional).items()}


@pytest.mark.parametrize("fields, message", [
    ({"momentum": 0.9}, r"optimizer.momentum=0.9 belongs to .*'rmsprop'.* Set it to 0"),
    ({"decay": 0.9}, "optimizer.decay=0.9 belongs to"),
    ({"name": "rmsprop"}, r"adam_learning_rate=0.003 belongs to .*NAME:rmsprop"),
    ({"name": "rmsprop", "adam_learning_rate": 0.0, "weight_decay": 0.1},
     "optimizer.weight_decay=0.1 belongs to"),
    ({"name": "sgd"}, "must be one of rmsprop, muon"),
    ({"decay_shape": "step"}, "must be one of cosine, linear"),
    ({"beta": 1.0}, r"optimizer.beta=1.0: must be in \[0, 1\)"),
    ({"adam_b2": -0.1}, r"optimizer.adam_b2=-0.1: must be in \[0, 1\)"),
    ({"weight_decay": float("inf")}, "optimizer.weight_decay=inf: must be 0 or more"),
    ({"decay_steps": -2}, "optimizer.decay_steps=-2: must be a step, or 0"),
])
def test_fields_that_do_not_go_with_the_optimiser(fields, message):
  config = load_config("row_lstm_mnist").optimizer
  with pytest.raises(InputError, match=message):
    dataclasses.replace(config, **fields).validate()


def test_a_decay_that_ends_with_the_training():
  config = OptimizerConfig(learning_rate=2.0, decay_steps=-1, warmup_steps=4)
  schedule = make_schedule(config, steps=8)
  assert [float(schedule(t)) for t in (4, 6, 8)] == pytest.approx([2, 1, 0], abs=1e-6)
  schedule = make_schedule(config, steps=12)
  assert [float(schedule(t)) for t in (4, 8, 12)] == pytest.approx([2, 1, 0], abs=1e-6)
  # With fewer steps than the warm-up, the rate only rises.
  make_schedule(config, steps=2)


def test_a_linear_decay():
  schedule = make_schedule(
      OptimizerConfig(
          learning_rate=2.0, warmup_steps=4, decay_steps=8, decay_shape="linear"),
      steps=5)
  got = [float(schedule(t)) for t in (0, 2, 4, 5, 6, 8, 99)]
  np.testing.assert_allclose(got, [0, 1, 2, 1.5, 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("decay_steps, scale, message", [
    (1_000, -1, "would be 0 from there to train.steps=6000. Use .*decay_steps=-1"),
    (-1, 0, "set optimizer.decay_steps to the steps of this scale"),
    (6_000, -1, None), (7_000, -1, None), (0, -1, None), (-1, -1, None), (5, 1, None),
])
def test_a_learning_rate_of_zero_is_refused(decay_steps, scale, message):
  config = load_config("multi_scale_mnist")
  config.train.scale, config.optimizer.decay_steps = scale, decay_steps
  if message is None:
    check_schedule(config)
  else:
    with pytest.raises(InputError, match=message):
      check_schedule(config)


def test_the_paper_s_optimiser_is_one_flag_away():
  for name in CONFIGS:
    config = load_config(f"{name}:rmsprop")
    assert config.optimizer.name == "rmsprop" and config.name == f"{name}:rmsprop"
    assert config.model == load_config(name).model
    make_optimizer(config.optimizer, config.train.steps)
  assert load_config("row_lstm_mnist:rmsprop:smoke").optimizer.name == "rmsprop"
