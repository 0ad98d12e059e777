"""Skew and unskew on rectangles of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixelrnn_jax import ops

RECTANGLES = [(1, 1), (1, 5), (5, 1), (2, 7), (7, 2), (4, 4)]


@pytest.mark.parametrize("height, width", RECTANGLES)
def test_places_every_pixel_on_its_diagonal(height, width):
  x = np.arange(1, height * width * 2 + 1).reshape(height, width, 2)
  y = np.asarray(ops.skew(jnp.asarray(x)))
  assert y.shape == (height + width - 1, height, 2)
  for t in range(height + width - 1):
    for r in range(height):
      inside = 0 <= t - r < width
      np.testing.assert_array_equal(y[t, r], x[r, t - r] if inside else 0)


@pytest.mark.parametrize("height, width", RECTANGLES)
def test_unskew_is_the_inverse_and_drops_offsets(height, width):
  x = np.arange(height * width * 3).reshape(height, width, 3)
  y = np.array(ops.skew(jnp.asarray(x)))
  for t, r in np.ndindex(y.shape[:2]):
    if not 0 <= t - r < width:
      y[t, r] = -1
  np.testing.assert_array_equal(ops.unskew(jnp.asarray(y)), x)


@pytest.mark.parametrize("height, width", RECTANGLES)
@pytest.mark.parametrize("images", [1, 2, 3, 6])
def test_strips_hold_whole_images_side_by_side(height, width, images):
  x = np.arange(height * width * 12).reshape(height, width, 6, 2)
  y = ops.to_strips(jnp.asarray(x), images)
  assert y.shape == (height, images * width, 6 // images, 2)
  for n, b in np.ndindex(images, 6 // images):
    np.testing.assert_array_equal(
        y[:, n * width : (n + 1) * width, b], x[:, :, n * (6 // images) + b])
  np.testing.assert_array_equal(ops.from_strips(y, images), x)


@pytest.mark.parametrize("height, width", RECTANGLES)
def test_rows_side_by_side_are_the_same_map(height, width):
  rng = np.random.default_rng(0)
  shapes = {ops.skew: (height, width, 2), ops.unskew: (height + width - 1, height, 2)}
  for function, shape in shapes.items():
    x = jnp.asarray(rng.normal(size=shape))
    results = []
    for way in ("reshape", "concatenate"):
      y, transpose = jax.vjp(
          lambda x, f=function, w=way: f(x, ops.Choices(skew=w)), x)
      results.append((y, *transpose(jnp.cos(y))))
    jax.tree.map(np.testing.assert_array_equal, *results)
