"""What the logits of a pixel see, measured with gradients (the paper's Figure 4).

Shapes: H height, W width, C channels, K logits of a pixel (C times the levels).
"""

import functools

import jax
import jax.numpy as jnp

from pixelrnn_jax import arguments
from pixelrnn_jax.errors import InputError


def receptive_field(
    model, variables, pixel: tuple[int, int], key: jax.Array, num: int = 8
) -> jax.Array:
  """How the logits of a pixel move with each value of the image.

      field_j = mean_n | sum_k u_nk d logit_k(x_n) / d x_j |

  over all K logits of the pixel's channels, at `num` images x_n of uniform real
  values in 0 .. levels - 1, each with weights u_nk of its own from a standard normal
  distribution. The mean tends to sqrt(2 / pi) times that of
  (sum_k (d logit_k / d x_j)^2)^(1/2), so dependencies do not cancel.

  What masks and shape keep from the pixel is exactly 0: it is in no product.
  The rest is not 0, unless its gradient is 0 at all images (a ReLU that is shut
  for all of them) or below the smallest number of the dtype (in float32 1e-38:
  an LSTM may forget that much over a hundred steps).

  Args:
    model: from `build_model`, of a single scale.
    variables: from `model.init`, or trained.
    pixel: (row, column) from 0.
    key: of images and weights.
    num: images that are averaged, one after another, so memory is that of one.

  Returns:
    [H, W, C], float32 (float64 for that dtype), not negative. Values are apart, as
    a pixel's G sees its R. `field.sum(axis=-1)` is the picture.

  Raises:
    InputError: a multi-scale model, variables of another model, a pixel outside the
      image, or num below 1.
  """
  model = arguments.unbound(model)
  config = model.config
  if config.multi_scale:
    raise InputError(
        "Receptive fields are shown of models of a single scale: the smaller image"
        " of a multi-scale model also tells of what is to come. For the network of"
        " the largest scale alone give --config.model.multi_scale='()'."
    )
  height, width, _ = config.image_shape
  try:
    row, column = pixel
  except (TypeError, ValueError) as error:
    raise InputError(
        f"pixel={pixel!r}: give a row and a column, (row, column)."
    ) from error
  row = arguments.whole("the row of pixel", row, least=None)
  column = arguments.whole("the column of pixel", column, least=None)
  if not (0 <= row < height and 0 <= column < width):
    raise InputError(
        f"There is no pixel {row},{column}: rows are 0 to {height - 1}, columns 0 to"
        f" {width - 1}."
    )
  num = arguments.whole("num", num)
  arguments.check_variables(model, variables)
  keys = jax.random.split(arguments.random_key(key), num)
  return _mean_gradient(model, variables, row, column, keys)


@functools.partial(jax.jit, static_argnums=0)
def _mean_gradient(model, variables, row, column, keys) -> jax.Array:
  """The equation of `receptive_field`, one key an image."""
  config = model.config
  dtype = jnp.promote_types(config.dtype, jnp.float32)

  def weighted(image, key):
    logits = model.apply(variables, image[None])[0, row, column]
    return jnp.sum(logits * jax.random.normal(key, logits.shape, dtype))

  def one(key):
    of_image, of_weights = jax.random.split(key)
    image = jax.random.uniform(
        of_image, config.image_shape, dtype, maxval=config.levels - 1)
    return jnp.abs(jax.grad(weighted)(image, of_weights))

  return jax.lax.map(one, keys).mean(axis=0)
