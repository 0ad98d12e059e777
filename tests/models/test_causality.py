"""The Jacobian of all logits in all inputs: what each model sees, and nothing else.

Values are numbered in raster order, i = (r W + c) C + channel. The entry
(i, j), how the logits of value i move with input j, must be exactly zero for
j >= i. Where a model claims to see, it must not be zero. Inputs are real values
and everything is float64, so that a small leak cannot hide in rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from parameters import random_variables
from pixelrnn_jax.configs.schema import KINDS, ModelConfig
from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.models import build_model

HEIGHT, WIDTH, LEVELS, LAYERS = 3, 6, 3, 2
FIRST, KERNEL = 3, 3


def make(kind, channels, residual, skip):
  return build_model(ModelConfig(
      kind, (HEIGHT, WIDTH, channels), levels=LEVELS, hidden=12, layers=LAYERS,
      head_features=24, kernel_size=KERNEL, first_kernel_size=FIRST,
      residual=residual, skip=skip, dtype="float64"))


def make_gradient(model, rng):
  """Of the mean loss of some images."""
  images = rng.integers(0, LEVELS, (4, *model.config.image_shape), np.uint8)
  return jax.jit(jax.grad(
      lambda variables: -likelihood.log_prob(model, variables, images).mean()))


def after_a_step(variables, gradient):
  """The parameters after one large step of RMSProp."""
  optimizer = optax.rmsprop(1e-2)
  updates, _ = optimizer.update(gradient(variables), optimizer.init(variables))
  return optax.apply_updates(variables, updates)


def make_jacobian(model):
  """(variables, image) to |d logits of value i / d input j|, the largest [i, j]."""
  size = int(np.prod(model.config.image_shape))

  @jax.jit
  def jacobian(variables, image):
    values = jax.jacrev(
        lambda x: model.apply(variables, x[None]).reshape(size, LEVELS))(image)
    return jnp.abs(values).max(axis=1).reshape(size, size)

  return jacobian


def pixels_seen(kind):
  """bool [H, W, H, W]: pixel (r, c) sees pixel (r', c') or part of it.

  The own pixel is true: with several channels, earlier channels are seen.
  """
  seen = np.zeros((HEIGHT, WIDTH, HEIGHT, WIDTH), bool)
  rows, columns = np.mgrid[:HEIGHT, :WIDTH]
  for r in range(HEIGHT):
    for c in range(WIDTH):
      seen[r, c] = field(kind, r, c, rows, columns)
  return seen


def field(kind, r, c, rows, columns):
  """The receptive field of (r, c) as a mask over the image, by reasoning.

  Each layer adds its own reach to that of the layers below it.
  """
  own_row = (rows == r) & (columns <= c)
  if kind == "diagonal_bilstm":
    return (rows < r) | own_row  # the whole past
  if kind == "row_lstm":
    # In its own row: the first layer's reach and each layer's. A row up costs a
    # step of a recurrence, KERNEL // 2 to either side; to the right the first
    # layer adds its own reach, but only on its way up (mask A).
    up = r - rows
    left = FIRST // 2 + LAYERS * (KERNEL // 2)
    triangle = (
        (up > 0)
        & (columns >= c - left - up * (KERNEL // 2))
        & (columns <= c + FIRST // 2 + (up - 1) * (KERNEL // 2))
    )
    return triangle | (own_row & (columns >= c - left))
  # PixelCNN: positions reachable by LAYERS + 1 masked 3x3 steps.
  reach = np.zeros((HEIGHT, WIDTH), bool)
  reach[r, c] = True
  for _ in range(LAYERS + 1):
    grown = reach.copy()
    for rr, cc in zip(*np.nonzero(reach), strict=True):
      for dr, dc in [(-1, -1), (-1, 0), (-1, 1), (0, -1)]:
        if 0 <= rr + dr < HEIGHT and 0 <= cc + dc < WIDTH:
          grown[rr + dr, cc + dc] = True
    reach = grown
  return reach


def values_seen(kind, channels):
  """bool [i, j]: value i sees value j, both in the order row, column, channel."""
  size = HEIGHT * WIDTH * channels
  pixels = pixels_seen(kind).reshape(HEIGHT * WIDTH, -1)
  seen = np.kron(pixels, np.ones((channels, channels), bool))
  seen &= np.tril(np.ones((size, size), bool), k=-1)
  if kind == "diagonal_bilstm":
    # The one hole in the paper's 'entire past': mask A keeps a pixel's last
    # channel out of all features of its own row up to its column, so the last
    # value of a row is in no feature of that row, and the right-to-left states,
    # which come from the row above, do not have it. The first layer sees it
    # from near by.
    order = seen.reshape(HEIGHT, WIDTH, channels, HEIGHT, WIDTH, channels)
    for r in range(1, HEIGHT):
      for c in range(WIDTH - 1 - FIRST // 2):
        order[r, c, :, r - 1, WIDTH - 1, channels - 1] = False
  return seen


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("skip", [True, False])
def test_sees_its_past_and_nothing_else(kind, channels, residual, skip):
  model = make(kind, channels, residual, skip)
  shape = model.config.image_shape
  rng = np.random.default_rng(1)
  gradient, jacobian = make_gradient(model, rng), make_jacobian(model)
  size = HEIGHT * WIDTH * channels
  future = ~np.tril(np.ones((size, size), bool), k=-1)
  # Over several parameters and images: at any one, ReLUs may all be shut.
  before, after = np.zeros((2, size, size))
  for _ in range(4):
    variables = random_variables(model, rng, 0.1)
    for found, params in (
        (before, variables), (after, after_a_step(variables, gradient))):
      for _ in range(2):
        image = jnp.asarray(rng.uniform(0, LEVELS - 1, shape))
        np.maximum(found, jacobian(params, image), out=found)
  for found in (before, after):
    assert np.isfinite(found).all()
    assert (found[future] == 0).all(), "a logit depends on its own value or later"
    np.testing.assert_array_equal(found != 0, values_seen(kind, channels))


def test_what_the_fields_are():
  """The fields above in words, at the pixel (2, 2) of a 3 x 6 image."""
  rows, columns = np.mgrid[:HEIGHT, :WIDTH]
  def picture(kind):
    field_ = field(kind, 2, 2, rows, columns)
    return ["".join(".#"[int(x)] for x in row) for row in field_]
  assert picture("diagonal_bilstm") == [
      "######",
      "######",
      "###..."]
  # The Row LSTM's triangle; what is right of it is never seen.
  assert picture("row_lstm") == [
      "#####.",
      "####..",
      "###..."]
  # The PixelCNN's blind spot: to the right above, beyond one step a row.
  assert picture("pixel_cnn") == [
      "#####.",
      "####..",
      "###..."]
