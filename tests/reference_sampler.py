"""The plain sampler: the whole network once for each value.

Correct by construction, and H W C times too slow: the cached one is held to it.
"""

import functools

import jax
import jax.numpy as jnp

from pixelrnn_jax.sampling import draw


@functools.partial(jax.jit, static_argnums=0)
def complete(model, variables, keys, images, known, temperature):
  """As `pixelrnn_jax.complete`, for keys [B] of the images and known [B, H, W]."""
  height, width, channels = model.config.image_shape
  images = jnp.where(known[..., None], images, 0)

  def one_value(index, images):
    row, rest = index // (width * channels), index % (width * channels)
    column, channel = rest // channels, rest % channels
    logits = model.apply(variables, images)[:, row, column, channel]
    value = draw(logits, keys, index, temperature).astype(images.dtype)
    value = jnp.where(known[:, row, column], images[:, row, column, channel], value)
    return images.at[:, row, column, channel].set(value)

  return jax.lax.fori_loop(0, height * width * channels, one_value, images)
