"""Smaller scales of an image, and the way back up (paper, section 3.6).

Shapes: N images, H height, W width, C channels, B batch, F input features, G output
features, f a whole factor. Images are [N, H, W, C], maps [H, W, B, F].
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax.ops.convolution import masked_conv2d


def subsample(images, factor: int):
  """Every f-th pixel of every f-th row: that in the middle of its f x f block.

      y[n, r, c] = x[n, f r + f // 2, f c + f // 2]

  Where f is even, the lower right one of the four in the middle. Pixels are picked
  and not averaged, so that values of any number of levels stay such values, with
  nothing to round; and so that what the small image says is said of the large one
  too, of whose likelihood then nothing need be lost.

  Args:
    images: [N, H, W, ...], an array of NumPy or JAX; H and W multiples of f.
    factor: f.

  Returns:
    [N, H / f, W / f, ...], of the same kind and dtype.
  """
  return images[:, factor // 2 :: factor, factor // 2 :: factor]


def pyramid(images, factors: Sequence[int]) -> tuple:
  """All scales of images, the coarsest first, the images themselves last.

  Args:
    images: see `subsample`.
    factors: from the coarsest scale up; () gives the images alone.
  """
  scales = [images]
  for factor in reversed(factors):
    scales.append(subsample(scales[-1], factor))
  return tuple(reversed(scales))


def conv2d(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """A convolution without a mask: each position sees all those around it.

  Args and result: see `masked_conv2d`.
  """
  return masked_conv2d(x, kernel, bias, np.ones(kernel.shape, bool))


def transposed_conv2d(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """Each position becomes a block of f x f, a transposed convolution with stride f.

      y[f r + i, f c + j] = bias + x[r, c] K[i, j]        0 <= i, j < f

  The blocks do not overlap, so it is one matrix product and a transpose.

  Args:
    x: [H, W, B, F].
    kernel: K, [f, f, F, G], of any float dtype; cast to that of x.
    bias: [G].

  Returns:
    [f H, f W, B, G], of x's dtype.
  """
  factor, _, _, outputs = kernel.shape
  height, width, batch, _ = x.shape
  y = jnp.einsum("hwbf,ijfg->hiwjbg", x, kernel.astype(x.dtype))
  y = y.reshape(factor * height, factor * width, batch, outputs)
  return y + bias.astype(x.dtype)
