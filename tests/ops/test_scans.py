"""Both scans, compared with loops over the image. Gradients are in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from helpers import reference
from helpers.arrays import as_jax
from pixelrnn_jax import ops
from pixelrnn_jax.ops.choices import DEFAULTS

SIZES = [(1, 1, 1), (1, 5, 2), (5, 1, 2), (3, 4, 2), (5, 3, 1)]
IMPLEMENTATIONS = ["fused", "autodiff"]


def row_arguments(size, units=3, taps=3, dtype=np.float64):
  rng = np.random.default_rng(0)
  return tuple(
      rng.normal(size=shape).astype(dtype)
      for shape in ((*size, 4 * units), (taps, units, 4 * units), (units,), (units,))
  )


def diagonal_arguments(size, units=3, dtype=np.float64):
  """Return unskewed input maps of both directions, the kernel and initial states."""
  rng = np.random.default_rng(1)
  return tuple(
      rng.normal(size=shape).astype(dtype)
      for shape in ((2, *size, 4 * units), (2, 2, units, 4 * units), (2, units),
                    (2, units))
  )


def skewed_arguments(size):
  """Return arguments of `diagonal_scan`, with skewed input maps."""
  inputs, *rest = as_jax(*diagonal_arguments(size))
  return jnp.stack([ops.skew(x) for x in inputs], axis=1), *rest


def row(inputs, kernel, hidden, cell, implementation, choices):
  """Run `row_scan` with the given choices."""
  return ops.row_scan(
      inputs, kernel, hidden, cell, implementation, choices=choices)


def diagonal(inputs, kernel, hidden, cell, implementation, choices=ops.BY_BACKEND):
  """Run `diagonal_scan` on unskewed maps, and return unskewed states."""
  skewed = jnp.stack([ops.skew(x) for x in inputs], axis=1)
  states = ops.diagonal_scan(
      skewed, kernel, hidden, cell, implementation, choices=choices)
  return jnp.stack([ops.unskew(states[:, d]) for d in range(2)])


def diagonal_in_strips(images, inputs, kernel, hidden, cell):
  """Run `diagonal` with `images` images side by side."""
  width = inputs.shape[2]
  skewed = jnp.stack(
      [ops.skew(ops.to_strips(x, images)) for x in inputs], axis=1)
  states = ops.diagonal_scan(skewed, kernel, hidden, cell, width=width)
  return jnp.stack([
      ops.from_strips(ops.unskew(states[:, d]), images) for d in range(2)])


def test_cell():
  rng = np.random.default_rng(0)
  gates, memory = rng.normal(size=(5, 12)), rng.normal(size=(5, 3))
  state = ops.lstm_cell(jnp.asarray(gates), jnp.asarray(memory))
  for n in range(5):
    hidden, cell = reference.cell(gates[n], memory[n])
    np.testing.assert_allclose(state.hidden[n], hidden, atol=1e-6)
    np.testing.assert_allclose(state.cell[n], cell, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_row_scan_equals_the_loop(size, taps, implementation):
  inputs, kernel, hidden, cell = row_arguments(size, taps=taps)
  states = ops.row_scan(*as_jax(inputs, kernel, hidden, cell), implementation)
  for b in range(size[2]):
    expected = reference.row_lstm(inputs[:, :, b], kernel, hidden, cell)
    np.testing.assert_allclose(states[:, :, b], expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_diagonal_scan_equals_the_loop(size, implementation):
  inputs, kernel, hidden, cell = diagonal_arguments(size)
  states = diagonal(*as_jax(inputs, kernel, hidden, cell), implementation)
  for d in range(2):
    for b in range(size[2]):
      expected = reference.diagonal_lstm(
          inputs[d, :, :, b], kernel[d], hidden[d], cell[d])
      np.testing.assert_allclose(states[d, :, :, b], expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_nothing_at_offset_positions_enters_the_image():
  inputs, kernel, hidden, cell = diagonal_arguments((4, 3, 2))
  skewed = np.array(jnp.stack([ops.skew(x) for x in jnp.asarray(inputs)], axis=1))
  poisoned = skewed.copy()
  for t, _, r in np.ndindex(skewed.shape[:3]):
    if not 0 <= t - r < 3:
      poisoned[t, :, r] = 1e3
  clean, dirty = (
      np.stack([
          ops.unskew(ops.diagonal_scan(*as_jax(x, kernel, hidden, cell))[:, d])
          for d in range(2)
      ]) for x in (skewed, poisoned)
  )
  np.testing.assert_array_equal(clean, dirty)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape, images", [
    ((1, 1), 6), ((1, 4), 3), ((2, 3), 2), ((2, 3), 6), ((3, 3), 1), ((3, 3), 3)])
def test_images_side_by_side_do_not_touch(shape, images):
  inputs, kernel, hidden, cell = (
      jnp.asarray(a) for a in diagonal_arguments((*shape, 6)))
  in_strips = jax.jit(functools.partial(diagonal_in_strips, images))
  got = in_strips(inputs, kernel, hidden, cell)
  expected = jax.jit(functools.partial(diagonal, implementation="autodiff"))(
      inputs, kernel, hidden, cell)
  np.testing.assert_allclose(got, expected, atol=1e-12)
  check_grads(
      jax.jit(lambda *a: jnp.sum(jnp.sin(in_strips(*a)))),
      (inputs, kernel, hidden, cell), order=1, modes=("rev",))


def test_widths_that_are_not_whole_images():
  inputs, kernel, hidden, cell = as_jax(*diagonal_arguments((4, 6, 2)))
  skewed = jnp.stack([ops.skew(x) for x in inputs], axis=1)
  for width in (3, 4, 5):  # less than the height, or not a divisor of 6
    with pytest.raises(ValueError, match="whole images"):
      ops.diagonal_scan(skewed, kernel, hidden, cell, width=width)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scan", ["row", "diagonal"])
def test_unrolling_changes_nothing(scan):
  function, arguments = (
      (ops.row_scan, as_jax(*row_arguments((5, 3, 2)))) if scan == "row"
      else (ops.diagonal_scan, skewed_arguments((5, 3, 2))))
  weights = np.random.default_rng(2).normal(size=function(*arguments).shape)

  def gradients(unroll):
    return jax.jit(jax.grad(
        lambda *a: jnp.sum(function(*a, unroll=unroll) * weights),
        argnums=(0, 1, 2, 3)))(*arguments)

  expected = gradients(1)
  for unroll in (2, 100):
    for a, b in zip(expected, gradients(unroll), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scan", ["row", "diagonal"])
def test_gradients(scan, size):
  if scan == "row":
    function = functools.partial(ops.row_scan, implementation="fused")
    arguments = row_arguments(size)
  else:
    function = functools.partial(diagonal, implementation="fused")
    arguments = diagonal_arguments(size)
  # The weights are fixed, so that errors of opposite sign cannot cancel.
  arguments = as_jax(*arguments)
  shape = jax.eval_shape(function, *arguments).shape
  weights = np.random.default_rng(2).normal(size=shape)
  check_grads(
      jax.jit(lambda *a: jnp.sum(function(*a) * weights)), arguments, order=1,
      modes=("rev",))


@pytest.mark.parametrize("scan", ["row", "diagonal"])
@pytest.mark.parametrize("dtype, tolerance, choices", [
    ("float64", 1e-12, DEFAULTS["cpu"]),
    ("float64", 1e-12, DEFAULTS["gpu"]),
    ("float64", 1e-12,
     dataclasses.replace(DEFAULTS["cpu"], state_to_state="multiply_first")),
    ("float32", 1e-5, DEFAULTS["cpu"]),
    ("float32", 1e-5, DEFAULTS["gpu"]),
    ("bfloat16", 5e-2, DEFAULTS["cpu"]),
    ("bfloat16", 5e-2, DEFAULTS["gpu"]),
    ("bfloat16", 5e-2, DEFAULTS["tpu"]),
    ("bfloat16", 5e-2, dataclasses.replace(DEFAULTS["tpu"], saved="wide")),
])
@pytest.mark.usefixtures("x64")
def test_fused_gradients_equal_autodiff(scan, dtype, tolerance, choices):
  if scan == "row":
    function, arguments = row, row_arguments((6, 7, 3), 16)
  else:
    function, arguments = diagonal, diagonal_arguments((6, 7, 3), 16)
  # Parameters have at least float32. The maps, and so the products, have the dtype.
  wide = jnp.promote_types(dtype, jnp.float32)
  inputs, *params = (jnp.asarray(a, wide) for a in arguments)
  inputs = inputs.astype(dtype)
  shape = (*inputs.shape[:-1], inputs.shape[-1] // ops.GATES)
  weights = np.random.default_rng(3).normal(size=shape).astype(wide)
  gradients = [
      jax.jit(jax.grad(
          lambda *a, i=i, c=c: jnp.sum(function(*a, i, c).astype(wide) * weights),
          argnums=(0, 1, 2, 3)))(inputs, *params)
      for i, c in (("fused", choices), ("autodiff", DEFAULTS["cpu"]))
  ]
  for fused, autodiff in zip(*gradients, strict=True):
    assert fused.dtype == autodiff.dtype
    fused, autodiff = np.float64(fused), np.float64(autodiff)
    scale = np.abs(autodiff).max()
    np.testing.assert_allclose(fused / scale, autodiff / scale, atol=tolerance)


def test_unknown_implementation():
  with pytest.raises(ValueError, match="fused, autodiff"):
    ops.row_scan(*as_jax(*row_arguments((2, 2, 1))), implementation="magic")
