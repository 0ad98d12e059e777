"""The Jacobian of all logits in all inputs: what each model sees.

Values are numbered in raster order, i = (r W + c) C + channel. Entry (i, j) is the
derivative of the logits of value i in input j. It must be exactly zero for j >= i. It
must not be zero where the model sees input j. Inputs are real numbers and everything is
float64, so that rounding cannot hide a small leak.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from helpers.causality import (
  HEIGHT,
  LEVELS,
  WIDTH,
  field,
  make,
  make_jacobian,
  make_step,
  values_seen,
)
from helpers.parameters import random_variables
from pixelrnn_jax.configs.schema import KINDS, OPTIMIZERS


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("skip", [True, False])
def test_sees_its_past_and_nothing_else(kind, channels, residual, skip):
  model = make(kind, channels, residual, skip)
  shape = model.config.image_shape
  rng = np.random.default_rng(1)
  # Each kind of model meets both optimisers, in different combinations.
  step = make_step(model, rng, OPTIMIZERS[(residual + skip) % len(OPTIMIZERS)])
  jacobian = make_jacobian(model)
  size = HEIGHT * WIDTH * channels
  future = ~np.tril(np.ones((size, size), bool), k=-1)
  # The result is the maximum over several parameters and images. For a single one, all
  # ReLUs on a path may be inactive.
  before, after = np.zeros((2, size, size))
  for _ in range(4):
    variables = random_variables(model, rng, 0.1)
    for found, params in ((before, variables), (after, step(variables))):
      for _ in range(2):
        image = jnp.asarray(rng.uniform(0, LEVELS - 1, shape))
        np.maximum(found, jacobian(params, image), out=found)
  for found in (before, after):
    assert np.isfinite(found).all()
    assert (found[future] == 0).all(), "a logit depends on its own value or later"
    np.testing.assert_array_equal(found != 0, values_seen(kind, channels))


def test_what_the_fields_are():
  """The receptive fields that tests derive have the expected shapes.

  They are drawn for the pixel (2, 2) of a 3 x 6 image.
  """
  rows, columns = np.mgrid[:HEIGHT, :WIDTH]
  def picture(kind):
    field_ = field(kind, 2, 2, rows, columns)
    return ["".join(".#"[int(x)] for x in row) for row in field_]
  assert picture("diagonal_bilstm") == [
      "######",
      "######",
      "###..."]
  # The Row LSTM sees a triangle. It never sees the pixels to the right of it.
  assert picture("row_lstm") == [
      "#####.",
      "####..",
      "###..."]
  # The PixelCNN has a blind spot at the upper right: pixels beyond one step to the
  # right for each row.
  assert picture("pixel_cnn") == [
      "#####.",
      "####..",
      "###..."]
