"""The plain sampler: the whole network once for each value (paper, section 2.1).

It is correct by construction and does H W C times too much work. The tests hold the
cached sampler to it, and `experiments/benchmark_sampling.py` compares their speed.

Shapes: B batch, H height, W width, C channels.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer, Key, PyTree, Real

from pixelrnn_jax import ops
from pixelrnn_jax.inference.sampling import draw, first_indices
from pixelrnn_jax.models import Model


@functools.partial(jax.jit, static_argnums=0)
def complete(
    model: Model,
    variables: PyTree,
    keys: Key[Array, " B"],
    images: Integer[Array, "B H W C"],
    known: Bool[Array, "B H W"],
    temperature: float | Real[Array, ""],
) -> Integer[Array, "B H W C"]:
  """Return the images that `pixelrnn_jax.complete` draws.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    keys: [B], one for each image. `pixelrnn_jax.complete(..., key, ...)` gives image n
      the key fold_in(key, n).
    images: integers [B, H, W, C], raw values 0 to levels - 1.
    known: bool [B, H, W], true where a pixel's values are kept.
    temperature: positive.

  Returns:
    [B, H, W, C], of the images' dtype.
  """
  factors = model.config.multi_scale
  scales = ops.pyramid(jnp.where(known[..., None], images, 0), factors)
  all_known = ops.pyramid(known, factors)
  for scale, shape in enumerate(model.config.scale_shapes()):

    def one_value(index, scales, scale=scale):
      return draw_value(
          model, variables, keys, scales, all_known, temperature, index, scale)

    scales = jax.lax.fori_loop(0, math.prod(shape), one_value, scales)
  return scales[-1]


@functools.partial(jax.jit, static_argnums=(0, 7))
def draw_value(
    model: Model,
    variables: PyTree,
    keys: Key[Array, " B"],
    scales: tuple[Integer[Array, "B _ _ C"], ...],
    known: tuple[Bool[Array, "B _ _"], ...],
    temperature: float | Real[Array, ""],
    index: int | Integer[Array, ""],
    scale: int = 0,
) -> tuple[Integer[Array, "B _ _ C"], ...]:
  """Draw value `index` = (row W + column) C + channel of all images, in one pass.

  Args:
    model: see `complete`.
    variables: see `complete`.
    keys: see `complete`.
    scales: the images of each scale, the coarsest first; (images,) of a single one.
    known: see `complete`, for each scale.
    temperature: see `complete`.
    index: the value's number in its scale.
    scale: the scale that it is drawn in.

  Returns:
    The scales with the value.
  """
  shapes = model.config.scale_shapes()
  _, width, channels = shapes[scale]
  row, rest = index // (width * channels), index % (width * channels)
  column, channel = rest // channels, rest % channels
  *smaller, largest = scales
  by_scale: Any = model.apply(
      variables, largest, smaller or None, method="logits_by_scale")
  logits = by_scale[scale]
  images, kept = scales[scale], known[scale]
  number = first_indices(shapes)[scale] + index
  value = draw(logits[:, row, column, channel], keys, number, temperature)
  value = value.astype(images.dtype)
  value = jnp.where(kept[:, row, column], images[:, row, column, channel], value)
  images = images.at[:, row, column, channel].set(value)
  return (*scales[:scale], images, *scales[scale + 1 :])
