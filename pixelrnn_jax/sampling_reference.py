"""The plain sampler: the whole network once for each value.

Correct by construction, and H W C times too much work. The tests hold the cached
sampler to it, and `experiments/benchmark_sampling.py` compares their speed.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixelrnn_jax.sampling import draw


@functools.partial(jax.jit, static_argnums=0)
def complete(
    model: nn.Module, variables, keys: jax.Array, images: jax.Array,
    known: jax.Array, temperature: float,
) -> jax.Array:
  """The images that `pixelrnn_jax.complete` draws.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    keys: [B], one for each image; `pixelrnn_jax.complete(..., key, ...)` gives
      image n the key fold_in(key, n).
    images: integers [B, H, W, C], raw values 0 .. levels - 1.
    known: bool [B, H, W]; true where a pixel's values are kept.
    temperature: positive.

  Returns:
    Of the images' dtype, [B, H, W, C].
  """
  height, width, channels = model.config.image_shape
  images = jnp.where(known[..., None], images, 0)

  def one_value(index, images):
    return draw_value(model, variables, keys, images, known, temperature, index)

  return jax.lax.fori_loop(0, height * width * channels, one_value, images)


@functools.partial(jax.jit, static_argnums=0)
def draw_value(
    model: nn.Module, variables, keys: jax.Array, images: jax.Array,
    known: jax.Array, temperature: float, index: jax.Array,
) -> jax.Array:
  """One pass: draws value `index` = (row W + column) C + channel of all images.

  Args and result: see `complete`.
  """
  _, width, channels = model.config.image_shape
  row, rest = index // (width * channels), index % (width * channels)
  column, channel = rest // channels, rest % channels
  logits = model.apply(variables, images)[:, row, column, channel]
  value = draw(logits, keys, index, temperature).astype(images.dtype)
  value = jnp.where(known[:, row, column], images[:, row, column, channel], value)
  return images.at[:, row, column, channel].set(value)
