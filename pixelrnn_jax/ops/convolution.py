"""Masked convolutions (paper, section 3.4).

Shapes: H height, W width, B batch, F input features, G output features,
KH x KW the kernel's size. Maps are [H, W, B, F]. In this layout a shift in space is
a contiguous slice, and a row is ready for a scan without a transpose.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from pixelrnn_jax.ops.choices import BY_BACKEND, Choices

# With fewer input features than this, one product over all taps side by side is
# faster than one product for each tap. The first layer has 1 or 3 input features.
_NARROW = 32


def masked_conv2d(
    x: Float[Array, "H W B F"],
    kernel: Float[Array, "KH KW F G"],
    bias: Float[Array, " G"],
    mask: Bool[np.ndarray, "KH KW F G"],
    choices: Choices = BY_BACKEND,
) -> Float[Array, "H W B G"]:
  """Apply a convolution with a masked kernel; the map keeps its size.

      y[r, c] = bias + sum_ij x[r + i - KH // 2, c + j - KW // 2]
                              (kernel * mask)[i, j]

  The map is zero outside the image. A tap whose weights are all masked costs
  nothing.

  On a CPU the convolution is a sum of matrix products and not XLA's convolution,
  whose gradient inside `lax.scan` is about 40 times slower there; see `Choices`.

  Args:
    x: the map, [H, W, B, F].
    kernel: [KH, KW, F, G], of any float dtype. It is cast to x's dtype.
    bias: [G].
    mask: [KH, KW, F, G], from `masks.conv_mask`.
    choices: how to compute it; the backend's defaults if not given.

  Returns:
    [H, W, B, G], of x's dtype.
  """
  if choices.resolve().convolution == "xla":
    return _xla_convolution(x, kernel, bias, mask)
  height, width = x.shape[:2]
  rows, columns = kernel.shape[:2]
  above, left = rows // 2, columns // 2
  taps = [
      (i, j) for i in range(rows) for j in range(columns) if mask[i, j].any()
  ]

  def convolve(x, kernel, bias):
    padded = jnp.pad(x, ((above, above), (left, left), (0, 0), (0, 0)))
    windows = [padded[i : i + height, j : j + width] for i, j in taps]
    weights = [kernel[i, j] for i, j in taps]
    return _taps_product(windows, weights, x.shape, bias)

  # Inside `lax.scan` the gradient then saves the map, and not a window of it for
  # each tap.
  convolve = jax.checkpoint(convolve, prevent_cse=False)
  return convolve(x, (kernel * mask).astype(x.dtype), bias.astype(x.dtype))


def _xla_convolution(
    x: Float[Array, "H W B F"],
    kernel: Float[Array, "KH KW F G"],
    bias: Float[Array, " G"],
    mask: Bool[np.ndarray, "KH KW F G"],
) -> Float[Array, "H W B G"]:
  """Return `masked_conv2d` by XLA's convolution.

  The kernel is cut to the smallest rectangle that has all taps with a weight.
  """
  visible = [
      np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2, 3), (0, 2, 3))]
  if not mask.any():
    return jnp.broadcast_to(bias.astype(x.dtype), (*x.shape[:-1], len(bias)))
  cut = tuple(slice(v[0], v[-1] + 1) for v in visible)
  # The first tap is at - K // 2 from the pixel.
  padding = [
      (size // 2 - int(v[0]), int(v[-1]) - size // 2)
      for size, v in zip(mask.shape, visible, strict=False)]
  y = lax.conv_general_dilated(
      x, (kernel * mask)[cut].astype(x.dtype), (1, 1), padding,
      dimension_numbers=("HWNC", "HWIO", "HWNC"))
  return y + bias.astype(x.dtype)


def rows_above(
    x: Float[Array, "P W B F"],
    kernel: Float[Array, "KH KW F G"],
    bias: Float[Array, " G"],
    mask: Bool[np.ndarray, "KH KW F G"],
) -> Float[Array, "W B G"]:
  """Return what the rows above contribute to one row of `masked_conv2d`.

  Args:
    x: the P = KH // 2 rows above that row, [P, W, B, F].
    kernel: see `masked_conv2d`.
    bias: see `masked_conv2d`.
    mask: see `masked_conv2d`.

  Returns:
    The contribution with the bias, [W, B, G], of x's dtype.
  """
  rows, width = x.shape[:2]
  columns = kernel.shape[1]
  padded = jnp.pad(x, ((0, 0), (columns // 2, columns // 2), (0, 0), (0, 0)))
  kernel = (kernel * mask).astype(x.dtype)
  taps = [(i, j) for i in range(rows) for j in range(columns)]
  windows = [padded[i, j : j + width] for i, j in taps]
  weights = [kernel[i, j] for i, j in taps]
  return _taps_product(windows, weights, x.shape[1:], bias.astype(x.dtype))


def _taps_product(
    windows: Sequence[Float[Array, "*N F"]],
    weights: Sequence[Float[Array, "F G"]],
    shape: tuple[int, ...],
    bias: Float[Array, " G"],
) -> Float[Array, "*N G"]:
  """Return the bias plus the sum over the taps of window times weights.

  Args:
    windows: for each tap the map that it sees, [..., F].
    weights: for each tap its weights, [F, G].
    shape: the windows' shape, as there may be no tap.
    bias: [G].
  """
  if not windows:
    return jnp.broadcast_to(bias, (*shape[:-1], len(bias)))
  if shape[-1] < _NARROW:
    windows, weights = [jnp.concatenate(windows, -1)], [jnp.concatenate(weights, 0)]
  return sum(map(_product, windows, weights)) + bias


def _product(
    x: Float[Array, "*N F"], kernel: Float[Array, "F G"]
) -> Float[Array, "*N G"]:
  """Return the product x kernel.

  The product has a single axis of rows. With several, XLA would transpose the whole
  map for the gradient of the kernel.
  """
  rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
  return (rows @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def masked_conv1d(
    x: Float[Array, "H W B F"],
    kernel: Float[Array, "K F G"],
    bias: Float[Array, " G"],
    mask: Bool[np.ndarray, "K F G"],
    choices: Choices = BY_BACKEND,
) -> Float[Array, "H W B G"]:
  """Apply a masked K x 1 convolution along each row; see `masked_conv2d`."""
  return masked_conv2d(x, kernel[None], bias, mask[None], choices)


def masked_dense(
    x: Float[Array, "*N F"],
    kernel: Float[Array, "F G"],
    bias: Float[Array, " G"],
    mask: Bool[np.ndarray, "F G"],
) -> Float[Array, "*N G"]:
  """Apply a masked 1 x 1 convolution, the same product at every position.

      y = x (kernel * mask) + bias

  Args:
    x: [..., F].
    kernel: [F, G], of any float dtype. It is cast to x's dtype.
    bias: [G].
    mask: [F, G], from `masks.conv_mask`.

  Returns:
    [..., G], of x's dtype.
  """
  return _product(x, (kernel * mask).astype(x.dtype)) + bias.astype(x.dtype)
