"""The receptive field: which inputs a pixel sees, and how strongly.

The inputs are compared with those of a derivation, and the strengths with the
documented equation.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.causality import HEIGHT, WIDTH, make, values_seen
from helpers.parameters import random_variables
from pixelrnn_jax.configs.schema import KINDS, ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference.receptive_field import receptive_field
from pixelrnn_jax.models import build_model


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_is_what_the_model_sees(kind, channels):
  model = make(kind, channels, residual=True, skip=True)
  variables = random_variables(model, np.random.default_rng(1), 0.1)
  seen = values_seen(kind, channels).reshape(HEIGHT, WIDTH, channels, HEIGHT, WIDTH, -1)
  for row, column in [(0, 0), (1, 1), (2, 2), (2, WIDTH - 1)]:
    field = receptive_field(
        model, variables, (row, column), jax.random.key(0), num=32)
    # The inputs that at least one channel of the pixel sees.
    np.testing.assert_array_equal(field > 0, seen[row, column].any(axis=0))


class Linear(nn.Module):
  """A model whose logits are linear in the image."""

  config: ModelConfig

  def setup(self):
    self.weights = self.param(
        "weights", nn.initializers.zeros, (2, 3, 2, 2, 2, 3, 2))

  def make_parameters(self):
    return self.weights

  def __call__(self, x):
    return jnp.einsum("rckljst,bjst->brckl", self.weights, x)


def test_strength_and_no_cancelling():
  """The strengths in a linear model tend to the value of the documented equation.

  Inputs are seen even if their effects on the logits cancel in the sum.
  """
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(2, 3, 2, 2, 2, 3, 2))  # pixel, channel, level, inputs
  weights[1, 1, :, 1] = -weights[1, 1, :, 0]  # the sum of both levels sees nothing
  weights[1, 1, ..., 0, 0, 0] = 0
  model = Linear(ModelConfig("pixel_cnn", (2, 3, 2), levels=2))
  variables = {"params": {"weights": weights}}
  field = receptive_field(model, variables, (1, 1), jax.random.key(0), num=20_000)
  expected = np.sqrt(2 / np.pi) * np.sqrt((weights[1, 1] ** 2).sum(axis=(0, 1)))
  np.testing.assert_allclose(field, expected, rtol=0.03)
  assert (np.asarray(field) == 0).sum() == 1


def test_bad_arguments():
  model = build_model(ModelConfig("row_lstm", (4, 6, 1), levels=2))
  for pixel in [(4, 0), (0, 6), (-1, 0)]:
    with pytest.raises(InputError, match="rows are 0 to 3, columns 0 to 5"):
      receptive_field(model, {}, pixel, jax.random.key(0))
  with pytest.raises(InputError, match="num=0"):
    receptive_field(model, {}, (0, 0), jax.random.key(0), num=0)
  model = build_model(ModelConfig("row_lstm", (4, 6, 1), levels=2, multi_scale=(2,)))
  with pytest.raises(InputError, match="single scale"):
    receptive_field(model, {}, (0, 0), jax.random.key(0))
