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
_NARROW = 16


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
  height, width, _, features = x.shape
  rows, columns = kernel.shape[:2]
  kernel = (kernel * mask).astype(x.dtype)
  taps = [
      (i, j) for i in range(rows) for j in range(columns) if mask[i, j].any()
  ]
  above, left = rows // 2, columns // 2
  padded = jnp.pad(x, ((above, above), (left, left), (0, 0), (0, 0)))
  windows = [padded[i : i + height, j : j + width] for i, j in taps]
  weights = [kernel[i, j] for i, j in taps]
  if not taps:
    y = jnp.zeros((*x.shape[:-1], kernel.shape[-1]), x.dtype)
  elif features < _NARROW:
    y = jnp.concatenate(windows, -1) @ jnp.concatenate(weights, 0)
  else:
    y = sum(window @ weight for window, weight in zip(windows, weights, strict=True))
  return y + bias.astype(x.dtype)


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
  return x @ (kernel * mask).astype(x.dtype) + bias.astype(x.dtype)
