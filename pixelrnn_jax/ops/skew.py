"""The skew of the Diagonal BiLSTM (paper, section 3.2).

The rows of a skewed map are the diagonals of the image, so one step of a scan takes
a whole diagonal.

    y[t, r] = x[r, t - r]

Half of a square image's skewed map lies outside the image. Where the amount of work
limits the speed, and not the number of steps, several images side by side waste less
(`to_strips`).

Shapes: H height, W width, T = H + W - 1 diagonals, B batch, F features, n images
side by side.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from pixelrnn_jax.ops.choices import BY_BACKEND, Choices


def skew(
    x: Shaped[Array, "H W *rest"], choices: Choices = BY_BACKEND
) -> Shaped[Array, "T H *rest"]:
  """Offset row r of the map by r positions, with the diagonals as leading axis.

      y[t, r] = x[r, t - r]   where 0 <= t - r < W, and zero elsewhere

  Args:
    x: [H, W, ...].
    choices: how to compute it; the backend's defaults if not given.

  Returns:
    [T, H, ...], T = H + W - 1.
  """
  if choices.resolve().skew == "concatenate":
    return _skew_rows(x)
  height, width, *rest = x.shape
  # Pad each row to length T + 1 and read the result as rows of length T. Each row
  # then starts one position later than the one above it.
  y = jnp.pad(x, [(0, 0), (0, height)] + [(0, 0)] * len(rest))
  y = y.reshape(height * (width + height), *rest)[:-height]
  y = y.reshape(height, height + width - 1, *rest)
  return jnp.swapaxes(y, 0, 1)


def unskew(
    y: Shaped[Array, "T H *rest"], choices: Choices = BY_BACKEND
) -> Shaped[Array, "H W *rest"]:
  """Undo `skew`: x[r, c] = y[r + c, r].

  Args:
    y: [T, H, ...]. Positions outside the image may hold anything.
    choices: how to compute it; the backend's defaults if not given.

  Returns:
    [H, W, ...], W = T - H + 1.
  """
  if choices.resolve().skew == "concatenate":
    return _unskew_rows(y)
  steps, height, *rest = y.shape
  x = jnp.swapaxes(y, 0, 1).reshape(height * steps, *rest)
  x = jnp.pad(x, [(0, height)] + [(0, 0)] * len(rest))
  return x.reshape(height, steps + 1, *rest)[:, : steps - height + 1]


@jax.custom_vjp
def _skew_rows(x: Shaped[Array, "H W *rest"]) -> Shaped[Array, "T H *rest"]:
  """Return `skew` as its padded rows side by side: one read and one write."""
  height = len(x)
  rest = [(0, 0)] * (x.ndim - 2)
  return jnp.stack(
      [jnp.pad(row, [(r, height - 1 - r)] + rest) for r, row in enumerate(x)], axis=1)


@jax.custom_vjp
def _unskew_rows(y: Shaped[Array, "T H *rest"]) -> Shaped[Array, "H W *rest"]:
  """Return `unskew` as the rows cut out one by one."""
  steps, height = y.shape[:2]
  return jnp.stack([y[r : r + steps - height + 1, r] for r in range(height)])


# Each is the transpose of the other. JAX's own would add up a map for each row.
_skew_rows.defvjp(
    lambda x: (_skew_rows(x), None), lambda _, gradient: (_unskew_rows(gradient),))
_unskew_rows.defvjp(
    lambda y: (_unskew_rows(y), None), lambda _, gradient: (_skew_rows(gradient),))


def to_strips(
    x: Shaped[Array, "H W B F"], images: int
) -> Shaped[Array, "H nW N F"]:
  """Put n images of the batch side by side.

  Args:
    x: [H, W, B, F].
    images: n, a divisor of B.

  Returns:
    [H, n W, B / n, F].
  """
  height, width, batch, features = x.shape
  x = x.reshape(height, width, images, batch // images, features)
  return jnp.swapaxes(x, 1, 2).reshape(height, images * width, -1, features)


def from_strips(
    x: Shaped[Array, "H nW N F"], images: int
) -> Shaped[Array, "H W B F"]:
  """Undo `to_strips`.

  Args:
    x: [H, n W, B / n, F].
    images: n.

  Returns:
    [H, W, B, F].
  """
  height, width, batch, features = x.shape
  x = x.reshape(height, images, width // images, batch, features)
  return jnp.swapaxes(x, 1, 2).reshape(height, width // images, -1, features)
