"""Receptive fields: computed from the Jacobian of the logits, and derived.

Values are numbered in raster order, i = (r W + c) C + channel.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pixelrnn_jax.configs.schema import ModelConfig, OptimizerConfig
from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs.optimizer import make_optimizer

HEIGHT, WIDTH, LEVELS, LAYERS = 3, 6, 3, 2
FIRST, KERNEL = 3, 3


def make(kind, channels, residual, skip):
  return build_model(ModelConfig(
      kind, (HEIGHT, WIDTH, channels), levels=LEVELS, hidden=12, layers=LAYERS,
      head_features=24, kernel_size=KERNEL, first_kernel_size=FIRST,
      residual=residual, skip=skip, dtype="float64"))


def make_step(model, rng, optimizer):
  """Return a function that takes one large step of the named optimiser.

  The function maps variables to variables.
  """
  images = rng.integers(0, LEVELS, (4, *model.config.image_shape), np.uint8)
  optimizer = make_optimizer(
      OptimizerConfig(name=optimizer, learning_rate=1e-2, clip_norm=0.0), steps=1)

  @jax.jit
  def step(variables):
    params = variables["params"]
    gradient = jax.grad(
        lambda p: -likelihood.log_prob(model, {"params": p}, images).mean())(params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    return {"params": optax.apply_updates(params, updates)}

  return step


def make_jacobian(model):
  """Return a function from (variables, image) to the Jacobian, [i, j].

  Entry (i, j) is the largest |d logit / d input j| over the logits of value i.
  """
  size = int(np.prod(model.config.image_shape))

  @jax.jit
  def jacobian(variables, image):
    values = jax.jacrev(
        lambda x: model.apply(variables, x[None]).reshape(size, LEVELS))(image)
    return jnp.abs(values).max(axis=1).reshape(size, size)

  return jacobian


def pixels_seen(kind):
  """Return whether pixel (r, c) sees a value of pixel (r', c'), bool [H, W, H, W].

  Each pixel sees itself: with several channels, later channels see earlier ones.
  """
  seen = np.zeros((HEIGHT, WIDTH, HEIGHT, WIDTH), bool)
  rows, columns = np.mgrid[:HEIGHT, :WIDTH]
  for r in range(HEIGHT):
    for c in range(WIDTH):
      seen[r, c] = field(kind, r, c, rows, columns)
  return seen


def field(kind, r, c, rows, columns):
  """Return the receptive field of (r, c) as a mask over the image, by derivation.

  Each layer adds its own reach to that of the layers below it.
  """
  own_row = (rows == r) & (columns <= c)
  if kind == "diagonal_bilstm":
    return (rows < r) | own_row  # the entire past
  if kind == "row_lstm":
    # In its own row, the pixel sees to the left as far as the first layer and all other
    # layers reach together. Each step of the recurrence goes up one row, and KERNEL //
    # 2 to either side. To the right the first layer adds its own reach, but only in the
    # rows above (mask A). The first layer makes the first step up, so the recurrence
    # makes one step fewer.
    up = r - rows
    left = FIRST // 2 + LAYERS * (KERNEL // 2)
    triangle = (
        (up > 0)
        & (columns >= c - left - up * (KERNEL // 2))
        & (columns <= c + FIRST // 2 + (up - 1) * (KERNEL // 2))
    )
    return triangle | (own_row & (columns >= c - left))
  # The PixelCNN sees the positions that LAYERS + 1 masked 3x3 steps reach.
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
  """Return whether value i sees value j, bool [i, j].

  Values are in the order row, column, channel.
  """
  size = HEIGHT * WIDTH * channels
  pixels = pixels_seen(kind).reshape(HEIGHT * WIDTH, -1)
  seen = np.kron(pixels, np.ones((channels, channels), bool))
  seen &= np.tril(np.ones((size, size), bool), k=-1)
  if kind == "diagonal_bilstm":
    # The paper's 'entire past' has one hole. Mask A keeps a pixel's last channel out of
    # all features of its own row up to its column. So the last value of a row is in no
    # feature of that row. The right-to-left states come from the row above, so they do
    # not have it either. Only the first layer sees this value, from nearby pixels.
    order = seen.reshape(HEIGHT, WIDTH, channels, HEIGHT, WIDTH, channels)
    for r in range(1, HEIGHT):
      for c in range(WIDTH - 1 - FIRST // 2):
        order[r, c, :, r - 1, WIDTH - 1, channels - 1] = False
  return seen
