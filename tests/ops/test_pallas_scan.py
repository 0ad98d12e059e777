"""The Pallas kernels for TPUs, compared with the reference in the interpreter.

`experiments/compile_kernels.py` checks that the compiler for TPUs accepts them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.arrays import as_jax
from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import build_model
from pixelrnn_jax.ops import pallas_scan

UNITS = 128  # the smallest number of units


def draw(*shape):
  return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def row(size, taps, dtype):
  """Return `row_scan` and its arguments but for the implementation."""
  arguments = as_jax(
      draw(*size, 4 * UNITS), draw(taps, UNITS, 4 * UNITS) * (taps * UNITS) ** -0.5,
      draw(UNITS), draw(UNITS))
  return ops.row_scan, (arguments[0].astype(dtype), *arguments[1:])


def diagonal(size, images, dtype):
  """Return `diagonal_scan` between unskewed maps, and its arguments.

  `images` images are side by side in one map.
  """
  height, width, batch = size

  def scan(inputs, kernel, hidden, cell, implementation):
    skewed = jnp.stack([ops.skew(x) for x in inputs], axis=1)
    states = ops.diagonal_scan(
        skewed, kernel, hidden, cell, implementation,
        width=width if images > 1 else None)
    return jnp.stack([ops.unskew(states[:, d]) for d in range(2)])

  arguments = as_jax(
      draw(2, height, images * width, batch, 4 * UNITS),
      draw(2, 2, UNITS, 4 * UNITS) * (2 * UNITS) ** -0.5, draw(2, UNITS),
      draw(2, UNITS))
  return scan, (arguments[0].astype(dtype), *arguments[1:])


# All positions of a step fit into VMEM, or they are split into two or four blocks.
@pytest.mark.parametrize("scan, arguments, blocks", [
    (row, ((3, 4, 2), 3, "float32"), 4), (row, ((2, 3, 9), 5, "bfloat16"), 1),
    (diagonal, ((3, 3, 2), 2, "bfloat16"), 1),
    (diagonal, ((2, 3, 1), 2, "float32"), 2),
    # Taps that reach past both edges of a row; an image that is higher than wide.
    (row, ((2, 2, 1), 7, "float32"), 1), (diagonal, ((3, 1, 1), 1, "float32"), 1)])
def test_values_and_gradients_equal_autodiff(scan, arguments, blocks, monkeypatch):
  taken = []
  choose = pallas_scan._blocks
  monkeypatch.setattr(
      pallas_scan, "_blocks", lambda *a: taken.append(choose(*a)) or blocks)
  dtype = arguments[-1]
  scan, arguments = scan(*arguments)
  weights = draw(*jax.eval_shape(lambda *a: scan(*a, "fused"), *arguments).shape)

  def loss(implementation, *arguments):
    states = scan(*arguments, implementation).astype(jnp.float32)
    return jnp.sum(states * weights), states

  (_, states), gradients = jax.jit(jax.value_and_grad(
      loss, argnums=(1, 2, 3, 4), has_aux=True), static_argnums=0)(
          "pallas", *arguments)
  (_, expected), expected_gradients = jax.jit(jax.value_and_grad(
      loss, argnums=(1, 2, 3, 4), has_aux=True), static_argnums=0)(
          "autodiff", *arguments)
  assert taken == [1]  # so little fits into one block
  tolerance = 1e-5 if dtype == "float32" else 2e-2
  np.testing.assert_allclose(states, expected, atol=tolerance)
  for got, wanted in zip(gradients, expected_gradients, strict=True):
    assert got.dtype == wanted.dtype
    got, wanted = np.float64(got), np.float64(wanted)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(got / scale, wanted / scale, atol=tolerance)


def test_blocks_until_they_fit():
  taps = pallas_scan._Taps(64, 1, ((0, -1), (2, 1)), 1, False, 0)
  # The widths of CIFAR-10 and ImageNet, in bfloat16.
  assert pallas_scan._blocks(taps, 32, 128, 2) == 1
  blocks = pallas_scan._blocks(taps, 64, 512, 2)
  assert blocks > 1
  assert pallas_scan._bytes(taps, 64, blocks, 512, 2) <= pallas_scan._VMEM
  with pytest.raises(ValueError, match="MiB of a TPU's VMEM, of which it takes at mos"):
    pallas_scan._blocks(taps, 64, 4096, 2)


@pytest.mark.parametrize("units, dtype, message", [
    (16, "float32", "multiple of 128 hidden units, not 16"),
    (128, "float16", "float32 and bfloat16, not float16")])
def test_what_the_kernels_do_not_take_is_refused(units, dtype, message):
  arguments = (
      jnp.zeros((2, 2, 1, 4 * units), dtype), jnp.zeros((3, units, 4 * units)),
      jnp.zeros(units), jnp.zeros(units))
  with pytest.raises(ValueError, match=message):
    ops.row_scan(*arguments, "pallas")


def test_a_gpu_is_told_to_take_another(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  scan, arguments = row((1, 1, 1), 3, "float32")
  with pytest.raises(ValueError, match="made for TPUs, and this is a gpu"):
    scan(*arguments, "pallas")


def test_a_whole_model():
  config = ModelConfig(
      "row_lstm", (2, 3, 1), levels=2, hidden=UNITS, layers=2, head_features=2,
      first_kernel_size=3)
  images = np.arange(12).reshape(2, 2, 3, 1).astype(np.uint8) % 2
  model = build_model(config)
  variables = model.init(jax.random.key(0), images)
  with_kernels = dataclasses.replace(config, implementation="pallas")
  with_kernels.validate()
  np.testing.assert_allclose(
      build_model(with_kernels).apply(variables, images),
      model.apply(variables, images), atol=1e-5)
