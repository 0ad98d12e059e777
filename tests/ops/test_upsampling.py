"""Smaller scales and transposed convolutions, compared with loops.

Their gradients are checked in float64.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from helpers import reference
from helpers.arrays import as_jax
from pixelrnn_jax import ops


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_subsampling_picks_the_middle_of_each_block(factor, channels):
  images = np.random.default_rng(0).integers(
      0, 256, (2, 3 * factor, 2 * factor, channels), np.uint8)
  small = ops.subsample(images, factor)
  assert small.dtype == np.uint8
  for image, got in zip(images, small, strict=True):
    np.testing.assert_array_equal(got, reference.subsample(image, factor))
  np.testing.assert_array_equal(ops.subsample(jnp.asarray(images), factor), small)


def test_a_pyramid_is_subsampled_step_by_step():
  images = np.arange(2 * 12 * 24).reshape(2, 12, 24, 1)
  small, middle, large = ops.pyramid(images, (2, 3))
  np.testing.assert_array_equal(large, images)
  np.testing.assert_array_equal(middle, ops.subsample(images, 3))
  np.testing.assert_array_equal(small, ops.subsample(middle, 2))
  assert small.shape == (2, 2, 4, 1)
  assert len(ops.pyramid(images, ())) == 1
  masks = ops.pyramid(images[..., 0] % 2 == 0, (2, 3))
  np.testing.assert_array_equal(masks[0], small[..., 0] % 2 == 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 2), (4, 1, 3)])
@pytest.mark.parametrize("features", [1, 20])
def test_convolutions_equal_the_loops(factor, size, features):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(*size, features))
  kernel, bias = rng.normal(size=(factor, factor, features, 4)), rng.normal(size=4)
  spread = ops.transposed_conv2d(*as_jax(x, kernel, bias))
  around = rng.normal(size=(3, 5, features, 4))
  plain = ops.conv2d(*as_jax(x, around, bias))
  for b in range(size[2]):
    np.testing.assert_allclose(
        spread[:, :, b], reference.transposed_conv(x[:, :, b], kernel, bias),
        atol=1e-12)
    np.testing.assert_allclose(
        plain[:, :, b], reference.conv(x[:, :, b], around, bias), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_gradients():
  rng = np.random.default_rng(0)
  arguments = (rng.normal(size=(2, 3, 2, 5)), rng.normal(size=(2, 2, 5, 4)),
               rng.normal(size=4))
  check_grads(lambda *a: ops.transposed_conv2d(*as_jax(*a)), as_jax(*arguments),
              order=1, modes=("fwd", "rev"))
