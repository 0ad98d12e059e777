"""The smaller scales of an image, and the way back up (paper, section 3.6).

Shapes: N images, H height, W width, C channels, B batch, F input features, G output
features, f a whole factor. Images are [N, H, W, C], maps [H, W, B, F].
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pixelrnn_jax.ops.convolution import masked_conv2d

# Images of NumPy or JAX: the result is of the same kind.
Images = TypeVar("Images", bound=np.ndarray | jax.Array)


def subsample(images: Images, factor: int) -> Images:
  """Return every f-th pixel of every f-th row, the middle one of each f x f block.

      y[n, r, c] = x[n, f r + f // 2, f c + f // 2]

  For an even f the pixel is the lower right one of the four in the middle.

  Pixels are picked and not averaged, for two reasons. Values of any number of levels
  stay such values, with nothing to round. And the small image is part of the large
  one, so the joint likelihood of both need not be less than that of the large one.

  Args:
    images: [N, H, W, ...], an array of NumPy or JAX. H and W are multiples of f.
    factor: f.

  Returns:
    [N, H / f, W / f, ...], of the same kind and dtype.
  """
  picked = images[:, factor // 2 :: factor, factor // 2 :: factor]
  return picked  # pyright: ignore[reportReturnType]  # slicing keeps the kind


def pyramid(images: Images, factors: Sequence[int]) -> tuple[Images, ...]:
  """Return all scales of images, the coarsest first, the images themselves last.

  Args:
    images: see `subsample`.
    factors: from the coarsest scale up. () gives the images alone.
  """
  scales = [images]
  for factor in reversed(factors):
    scales.append(subsample(scales[-1], factor))
  return tuple(reversed(scales))


def conv2d(
    x: Float[Array, "H W B F"],
    kernel: Float[Array, "KH KW F G"],
    bias: Float[Array, " G"],
) -> Float[Array, "H W B G"]:
  """Apply a convolution without a mask; see `masked_conv2d`."""
  return masked_conv2d(x, kernel, bias, np.ones(kernel.shape, bool))


def transposed_conv2d(
    x: Float[Array, "H W B F"],
    kernel: Float[Array, "f f F G"],
    bias: Float[Array, " G"],
) -> Float[Array, "fH fW B G"]:
  """Apply a transposed convolution with stride f: each position becomes a block.

      y[f r + i, f c + j] = bias + x[r, c] K[i, j]        0 <= i, j < f

  The f x f blocks do not overlap, so it is one matrix product and a transpose.

  Args:
    x: [H, W, B, F].
    kernel: K, [f, f, F, G], of any float dtype. It is cast to x's dtype.
    bias: [G].

  Returns:
    [f H, f W, B, G], of x's dtype.
  """
  factor, _, _, outputs = kernel.shape
  height, width, batch, _ = x.shape
  y = jnp.einsum("hwbf,ijfg->hiwjbg", x, kernel.astype(x.dtype))
  y = y.reshape(factor * height, factor * width, batch, outputs)
  return y + bias.astype(x.dtype)
