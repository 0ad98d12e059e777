"""The skewed map, whose rows are the image's diagonals (paper, section 3.2).

Half of a square image's skewed map is offset. Where work is the limit, not the
number of steps, several images side by side waste less: `to_strips`.

Shapes: H height, W width, T = H + W - 1 diagonals, B batch, n images of a strip.
"""

import jax
import jax.numpy as jnp


def skew(x: jax.Array) -> jax.Array:
  """Offsets row r of the map by r positions and puts the diagonals first.

      y[t, r] = x[r, t - r]   where 0 <= t - r < W, zero elsewhere

  Args:
    x: [H, W, ...].

  Returns:
    [T, H, ...].
  """
  height, width, *rest = x.shape
  # Rows of length T + 1 read as rows of length T: each starts one later.
  y = jnp.pad(x, [(0, 0), (0, height)] + [(0, 0)] * len(rest))
  y = y.reshape(height * (width + height), *rest)[:-height]
  y = y.reshape(height, height + width - 1, *rest)
  return jnp.swapaxes(y, 0, 1)


def unskew(y: jax.Array) -> jax.Array:
  """The inverse of `skew`, x[r, c] = y[r + c, r]; offset positions are dropped.

  Args:
    y: [T, H, ...].

  Returns:
    [H, W, ...] with W = T - H + 1.
  """
  steps, height, *rest = y.shape
  x = jnp.swapaxes(y, 0, 1).reshape(height * steps, *rest)
  x = jnp.pad(x, [(0, height)] + [(0, 0)] * len(rest))
  return x.reshape(height, steps + 1, *rest)[:, : steps - height + 1]


def to_strips(x: jax.Array, images: int) -> jax.Array:
  """Puts n images of the batch side by side: [H, W, B, F] to [H, n W, B / n, F]."""
  height, width, batch, features = x.shape
  x = x.reshape(height, width, images, batch // images, features)
  return jnp.swapaxes(x, 1, 2).reshape(height, images * width, -1, features)


def from_strips(x: jax.Array, images: int) -> jax.Array:
  """The inverse of `to_strips`: [H, n W, B / n, F] to [H, W, B, F]."""
  height, width, batch, features = x.shape
  x = x.reshape(height, images, width // images, batch, features)
  return jnp.swapaxes(x, 1, 2).reshape(height, width // images, -1, features)
