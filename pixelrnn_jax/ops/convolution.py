"""Masked convolutions as matrix products.

Shapes: H height, W width, B batch, F input features, G output features,
KH x KW the kernel. Maps are laid out [H, W, B, F]: a shift in space is then a
contiguous slice, and a row is ready for a scan without a transpose.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Below this many input features one product over gathered taps is faster than a
# product for each tap: the first layer has 1 or 3.
_NARROW = 32


def masked_conv2d(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, mask: np.ndarray
) -> jax.Array:
  """A convolution that keeps the image's size, with a masked kernel.

      y[r, c] = bias + sum_ij x[r + i - KH // 2, c + j - KW // 2]
                              (kernel * mask)[i, j]

  with zeros outside the image. Taps that are masked as a whole cost nothing.

  A sum of products instead of XLA's convolution, because the gradient of the
  latter inside `lax.scan` is some 40 times slower on a CPU.

  Args:
    x: [H, W, B, F].
    kernel: [KH, KW, F, G], of any float dtype; cast to that of x.
    bias: [G].
    mask: [KH, KW, F, G], see `masks.conv_mask`.

  Returns:
    [H, W, B, G], of x's dtype.
  """
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

  # Inside `lax.scan` its gradient keeps the map, not a window of it for each tap.
  convolve = jax.checkpoint(convolve, prevent_cse=False)
  return convolve(x, (kernel * mask).astype(x.dtype), bias.astype(x.dtype))


def rows_above(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, mask: np.ndarray
) -> jax.Array:
  """What `masked_conv2d` takes from the rows above, bias included, for one row.

  Args:
    x: the KH // 2 rows above it, [KH // 2, W, B, F].
    kernel, bias, mask: see `masked_conv2d`.

  Returns:
    [W, B, G], of x's dtype.
  """
  rows, width = x.shape[:2]
  columns = kernel.shape[1]
  padded = jnp.pad(x, ((0, 0), (columns // 2, columns // 2), (0, 0), (0, 0)))
  kernel = (kernel * mask).astype(x.dtype)
  taps = [(i, j) for i in range(rows) for j in range(columns)]
  windows = [padded[i, j : j + width] for i, j in taps]
  weights = [kernel[i, j] for i, j in taps]
  return _taps_product(windows, weights, x.shape[1:], bias.astype(x.dtype))


def _taps_product(windows, weights, shape, bias: jax.Array) -> jax.Array:
  """bias + sum of windows times weights; maps of that shape, [..., F] to [..., G]."""
  if not windows:
    return jnp.broadcast_to(bias, (*shape[:-1], len(bias)))
  if shape[-1] < _NARROW:
    windows, weights = [jnp.concatenate(windows, -1)], [jnp.concatenate(weights, 0)]
  return sum(map(_product, windows, weights)) + bias


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x kernel, [..., F] and [F, G] to [..., G].

  With one axis of rows: of a product with several, XLA transposes the whole map for
  the kernel's gradient.
  """
  rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
  return (rows @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def masked_conv1d(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, mask: np.ndarray
) -> jax.Array:
  """`masked_conv2d` along the row: kernel and mask are [K, F, G]."""
  return masked_conv2d(x, kernel[None], bias, mask[None])


def masked_dense(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, mask: np.ndarray
) -> jax.Array:
  """A 1x1 convolution, y = x (kernel * mask) + bias, at every position.

  Args:
    x: [..., F].
    kernel: [F, G].
    bias: [G].
    mask: [F, G].

  Returns:
    [..., G], of x's dtype.
  """
  return _product(x, (kernel * mask).astype(x.dtype)) + bias.astype(x.dtype)
