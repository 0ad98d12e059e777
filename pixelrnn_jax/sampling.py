"""Samples and completions, value by value in raster order.

Shapes: B batch, H height, W width, C channels.

Value i = (r W + c) C + channel of image n is drawn with the key
fold_in(fold_in(key, n), i), so that a sample depends on the key and its own
index alone, not on how many are drawn together.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax.errors import InputError
from pixelrnn_jax.likelihood import check_range


def sample(
    model: nn.Module, variables, key: jax.Array, num: int = 16,
    temperature: float = 1.0,
) -> np.ndarray:
  """Draws images from the model, ancestral sampling (paper, section 2.1).

      x_i ~ softmax(logits(x_<i) / temperature)

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    key: a `jax.random` key.
    num: how many images, at least 1.
    temperature: positive; 1 is the model's distribution, less is safer.

  Returns:
    uint8 [num, H, W, C], raw values 0 .. levels - 1.

  Raises:
    InputError: `num` is below 1 or the temperature not positive.
  """
  if num < 1:
    raise InputError(f"num={num}: ask for at least 1 sample.")
  shape = model.config.image_shape
  images = np.zeros((num, *shape), np.uint8)
  return complete(
      model, variables, key, images, np.zeros(shape[:2], bool), temperature)


def complete(
    model: nn.Module, variables, key: jax.Array, images, known,
    temperature: float = 1.0,
) -> np.ndarray:
  """Fills in the unknown pixels, each drawn given all values before it.

  Known values are kept exactly, also where they come after unknown ones; those
  do not see them, as the model's order is fixed.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    key: a `jax.random` key.
    images: integers [B, H, W, C], raw values 0 .. levels - 1.
    known: bool [H, W] or [B, H, W]; true where a pixel's values are kept.
    temperature: positive; 1 is the model's distribution, less is safer.

  Returns:
    uint8 [B, H, W, C].

  Raises:
    InputError: images or mask of another shape, dtype or range, or a
      temperature that is not positive.
  """
  shape = tuple(model.config.image_shape)
  images, known = np.asarray(images), np.asarray(known)
  if images.ndim != 4 or images.shape[1:] != shape or len(images) < 1:
    raise InputError(
        f"Images of shape {images.shape}: this model completes [B, H, W, C] ="
        f" [B, {', '.join(map(str, shape))}], with B at least 1."
    )
  if not np.issubdtype(images.dtype, np.integer):
    raise InputError(
        f"Images of dtype {images.dtype}: raw integer values are needed (uint8)."
    )
  check_range(images, model.config.levels)
  if known.dtype != bool or known.shape not in (shape[:2], images.shape[:3]):
    raise InputError(
        f"A mask of shape {known.shape} and dtype {known.dtype}: known must be"
        f" bool, [H, W] = {list(shape[:2])} or [B, H, W] ="
        f" {list(images.shape[:3])}."
    )
  if not 0 < temperature < np.inf:
    raise InputError(f"temperature={temperature}: must be positive and finite.")
  known = np.broadcast_to(known, images.shape[:3])
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(images)))
  drawn = _complete(model, variables, keys, images, known, float(temperature))
  return np.asarray(drawn)


def draw(logits: jax.Array, keys: jax.Array, index, temperature) -> jax.Array:
  """One value for each image: logits [B, levels], keys [B] to int32 [B]."""
  keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
  return jax.vmap(jax.random.categorical)(keys, logits / temperature)


@functools.partial(jax.jit, static_argnums=0)
def _complete(model, variables, keys, images, known, temperature):
  """The whole network once for each value: simple, and H W C times too slow."""
  height, width, channels = model.config.image_shape

  def one_value(index, images):
    row, rest = index // (width * channels), index % (width * channels)
    column, channel = rest // channels, rest % channels
    logits = model.apply(variables, images)[:, row, column, channel]
    value = draw(logits, keys, index, temperature).astype(images.dtype)
    value = jnp.where(known[:, row, column], images[:, row, column, channel], value)
    return images.at[:, row, column, channel].set(value)

  images = images.astype(jnp.uint8)
  # An unknown value is 0 until it is drawn.
  images = jnp.where(known[..., None], images, 0)
  return jax.lax.fori_loop(0, height * width * channels, one_value, images)
