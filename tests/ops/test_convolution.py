"""Masked convolutions, compared with loops. Their gradients are checked in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from helpers import reference
from helpers.arrays import as_jax
from pixelrnn_jax import ops

SIZES = [(1, 1, 1), (3, 5, 2), (4, 2, 1), (1, 6, 3)]


def arrays(size, features, kernel_shape, outputs, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(*size, features))
  kernel = rng.normal(size=(*kernel_shape, features, outputs))
  return x, kernel, rng.normal(size=outputs)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel_shape", [(1, 1), (1, 3), (3, 3), (7, 7)])
@pytest.mark.parametrize("kind, channels, features", [
    ("A", 1, 1), ("A", 3, 3), ("B", 3, 5), ("B", 1, 33), ("B", 3, 40)])
def test_equals_the_loop(size, kernel_shape, kind, channels, features):
  x, kernel, bias = arrays(size, features, kernel_shape, 8)
  mask = ops.conv_mask(kind, kernel_shape, features, 4, channels, blocks=2)
  y = ops.masked_conv2d(*as_jax(x, kernel, bias), mask)
  by_xla = ops.masked_conv2d(
      *as_jax(x, kernel, bias), mask, ops.Choices(convolution="xla"))
  np.testing.assert_allclose(by_xla, y, atol=1e-12)
  for b in range(size[2]):
    expected = reference.masked_conv(x[:, :, b], kernel, bias, kind, channels, 2)
    np.testing.assert_allclose(y[:, :, b], expected, atol=1e-12)
  if kernel_shape[0] == 1:
    row = ops.masked_conv1d(*as_jax(x, kernel[0], bias), mask[0])
    np.testing.assert_array_equal(row, y)
  if kernel_shape == (1, 1):
    dense = ops.masked_dense(*as_jax(x, kernel[0, 0], bias), mask[0, 0])
    np.testing.assert_allclose(dense, y, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("features", [3, 40])
@pytest.mark.parametrize("way", ["products", "xla"])
def test_gradients(features, way):
  choices = ops.Choices(convolution=way)
  x, kernel, bias = as_jax(*arrays((3, 4, 2), features, (3, 3), 6))
  mask = ops.conv_mask("B", (3, 3), features, 6, 3)
  check_grads(
      lambda *a: ops.masked_conv2d(*as_jax(*a), mask, choices), (x, kernel, bias),
      order=1, modes=("fwd", "rev"))
  gradient = jax.grad(lambda k: ops.masked_conv2d(x, k, bias, mask, choices).sum())
  np.testing.assert_array_equal(np.asarray(gradient(kernel))[~mask], 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("features", [3, 40])
def test_rows_above_and_the_own_row_are_the_whole(size, features):
  x, kernel, bias = arrays((5, 4, 2), features, (size, size), 6)
  mask = ops.conv_mask("B", (size, size), features, 6, 3)
  own_row = np.zeros_like(mask)
  own_row[size // 2] = mask[size // 2]
  padded = np.pad(x, ((size // 2, 0), (0, 0), (0, 0), (0, 0)))
  x, kernel, bias = as_jax(x, kernel, bias)
  whole = ops.masked_conv2d(x, kernel, bias, mask)
  own = ops.masked_conv2d(x, kernel, 0 * bias, own_row)
  for r in range(5):
    rows = jnp.asarray(padded[r : r + size // 2])
    above = ops.rows_above(rows, kernel, bias, mask)
    np.testing.assert_allclose(above + own[r], whole[r], atol=1e-12)
