"""The plain sampler: the whole network once for each value.

Correct by construction, and H W C times too much work. The tests hold the cached
sampler to it, and `experiments/benchmark_sampling.py` compares their speed.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixelrnn_jax import ops
from pixelrnn_jax.inference.sampling import draw, first_indices


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
  factors = model.config.multi_scale
  scales = ops.pyramid(jnp.where(known[..., None], images, 0), factors)
  known = ops.pyramid(known, factors)
  for scale, shape in enumerate(model.config.scale_shapes()):

    def one_value(index, scales, scale=scale):
      return draw_value(
          model, variables, keys, scales, known, temperature, index, scale)

    scales = jax.lax.fori_loop(0, math.prod(shape), one_value, scales)
  return scales[-1]


@functools.partial(jax.jit, static_argnums=(0, 7))
def draw_value(
    model: nn.Module, variables, keys: jax.Array, scales: tuple[jax.Array, ...],
    known: tuple[jax.Array, ...], temperature: float, index: jax.Array,
    scale: int = 0,
) -> tuple[jax.Array, ...]:
  """One pass: draws value `index` = (row W + column) C + channel of all images.

  Args:
    scales: images of each scale, the coarsest first; (images,) of a single one.
    known: of each scale.
    index: of the value in its scale.
    scale: which one is drawn.
    The others: see `complete`.

  Returns:
    The scales with the value.
  """
  shapes = model.config.scale_shapes()
  _, width, channels = shapes[scale]
  row, rest = index // (width * channels), index % (width * channels)
  column, channel = rest // channels, rest % channels
  *smaller, images = scales
  if smaller:
    logits = model.apply(variables, images, smaller)[scale]
  else:
    logits = model.apply(variables, images)
  images, known = scales[scale], known[scale]
  number = first_indices(shapes)[scale] + index
  value = draw(logits[:, row, column, channel], keys, number, temperature)
  value = value.astype(images.dtype)
  value = jnp.where(known[:, row, column], images[:, row, column, channel], value)
  images = images.at[:, row, column, channel].set(value)
  return (*scales[:scale], images, *scales[scale + 1 :])
