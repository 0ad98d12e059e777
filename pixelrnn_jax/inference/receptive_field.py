"""The receptive field of a pixel, measured with gradients (paper, Figure 4).

Shapes: H height, W width, C channels, K logits of a pixel (C times the levels).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models import Model, MultiScalePixelRNN, PixelRNN


def receptive_field(
    model: Model,
    variables: PyTree,
    pixel: tuple[int, int],
    key: PRNGKeyArray,
    num: int = 8,
) -> Float[Array, "H W C"]:
  """Measure how the logits of a pixel depend on each value of the image.

      field_j = mean_n | sum_k u_nk d logit_k(x_n) / d x_j |

  The sum runs over all K logits of the pixel's channels. The mean runs over `num`
  images x_n of uniform real values in 0 to levels - 1. Each image has its own weights
  u_nk from a standard normal distribution. The mean tends to sqrt(2 / pi) times that
  of (sum_k (d logit_k / d x_j)^2)^(1/2), so dependencies do not cancel.

  A value that masks and shape hide from the pixel is exactly 0, because it is in no
  product. Another value is 0 only where its gradient is 0 at all images (behind a ReLU
  that is closed for all of them) or below the smallest number of the dtype (1e-38 in
  float32: an LSTM may forget that much over a hundred steps).

  Args:
    model: from `build_model`, of a single scale.
    variables: from `model.init`, or trained.
    pixel: (row, column) from 0.
    key: draws the images and the weights.
    num: how many images are averaged. They run one after another, so the memory is
      that of one.

  Returns:
    [H, W, C], float32 (float64 for that dtype), not negative. Values are kept apart,
    as a pixel's G sees its R. `field.sum(axis=-1)` is the picture.

  Raises:
    InputError: the model has several scales, the variables are another model's, the
      pixel is outside the image, or num is below 1.
  """
  model = arguments.unbound(model)
  config = model.config
  if isinstance(model, MultiScalePixelRNN):
    raise InputError(
        "Receptive fields are shown of models of a single scale: the smaller image"
        " of a multi-scale model also tells of what is to come. For the network of"
        " the largest scale alone give --config.model.multi_scale='()'."
    )
  height, width, _ = config.image_shape
  row, column = arguments.pixel(pixel, height, width)
  num = arguments.whole("num", num, most=arguments.MOST_IMAGES)
  arguments.check_variables(model, variables)
  keys = jax.random.split(arguments.random_key(key), num)
  return _mean_gradient(model, variables, row, column, keys)


@functools.partial(jax.jit, static_argnums=0)
def _mean_gradient(
    model: PixelRNN,
    variables: PyTree,
    row: int | Int[Array, ""],
    column: int | Int[Array, ""],
    keys: Key[Array, " num"],
) -> Float[Array, "H W C"]:
  """Return the mean of `receptive_field`, with one key for each image."""
  config = model.config
  dtype = ops.at_least_float32(config.dtype)

  def weighted_logits(image, key):
    all_logits: Any = model.apply(variables, image[None])
    logits = all_logits[0, row, column]
    return jnp.sum(logits * jax.random.normal(key, logits.shape, dtype))

  def one_image(key):
    image_key, weights_key = jax.random.split(key)
    image = jax.random.uniform(
        image_key, config.image_shape, dtype, maxval=config.levels - 1)
    return jnp.abs(jax.grad(weighted_logits)(image, weights_key))

  return jax.lax.map(one_image, keys).mean(axis=0)
