"""Exact log-likelihoods: nats a value, nats an image, bits a dimension.

Of a multi-scale model what is exact is the joint of all scales, log p(small, large)
= log p(small) + log p(large | small). The small image follows from the large one, so
the joint is a lower bound of log p(large); nats and bits/dim are upper bounds.

Shapes: B batch, H height, W width, C channels, S scales (1 for most models).
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError


def nats_to_bits_per_dim(nats, image_shape: tuple[int, int, int]):
  """Bits per dimension of a negative log-likelihood in nats per image.

      bits/dim = nats / (H W C log 2)

  Args:
    nats: a number or array of -log p(x).
    image_shape: (H, W, C).
  """
  return nats / (math.prod(image_shape) * math.log(2))


def bound_note(config: ModelConfig) -> str:
  """What has to stand beside nats and bits/dim of a model; "" if they are exact."""
  if not config.multi_scale:
    return ""
  sizes = [scale_name(config, s) for s in range(len(config.multi_scale) + 1)]
  return (
      f"joint of {' and '.join(sizes)}: a lower bound of log p for the {sizes[-1]}"
      " image, so an upper bound of its nats and bits/dim"
  )


def scale_name(config: ModelConfig, scale: int) -> str:
  """The size of a scale, as in "28x28"."""
  height, width, _ = config.scale_shapes()[scale]
  return f"{height}x{width}"


def log_probs(
    model: nn.Module, variables, images: jax.Array,
    smaller: Sequence[jax.Array] | None = None,
) -> jax.Array | tuple[jax.Array, ...]:
  """log p(x_i | x_<i) of every value, in nats (paper, section 2.1).

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    images: integers [B, H, W, C], raw values 0 .. levels - 1.
    smaller: of a multi-scale model, the images of the smaller scales, the coarsest
      first; by default they are the subsampled images.

  Returns:
    [B, H, W, C], float32 (float64 for that dtype). Of a multi-scale model a tuple
    of them, one a scale, the coarsest first: those of each scale given the one
    before it.

  Raises:
    InputError: images of another shape or dtype, or values of `levels` and
      above; variables of another model. Under `jit` values cannot be looked at:
      there the log-probability of a value out of range is NaN. Forward-mode
      differentiation without `implementation="autodiff"`.
  """
  model = arguments.unbound(model)
  arguments.check_variables(model, variables)
  images = arguments.image_values(model.config, images)
  if not model.config.multi_scale:
    if smaller is not None:
      raise InputError("This model has a single scale: it takes no smaller images.")
  elif smaller is not None:
    smaller = [
        arguments.image_values(model.config, x, "Smaller images") for x in smaller]
  with arguments.forward_mode_explained():
    return _log_probs(model, variables, images, smaller)


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(model, variables, images, smaller):
  """`log_probs` of images that have been looked at."""
  if not model.config.multi_scale:
    return ops.categorical_log_probs(model.apply(variables, images), images)
  scales = model.all_scales(images, smaller)
  logits = model.apply(variables, images, scales[:-1])
  return tuple(
      ops.categorical_log_probs(*pair) for pair in zip(logits, scales, strict=True))


def log_prob_of_scales(
    model: nn.Module, variables, images: jax.Array,
    smaller: Sequence[jax.Array] | None = None,
) -> jax.Array:
  """log p(x_s | x_{s-1}) of each scale, nats per image, [B, S], the coarsest first.

  Args and errors: see `log_probs`.
  """
  of_scales = jax.tree.leaves(log_probs(model, variables, images, smaller))
  return jnp.stack([x.sum(axis=(1, 2, 3)) for x in of_scales], axis=-1)


def log_prob(
    model: nn.Module, variables, images: jax.Array,
    smaller: Sequence[jax.Array] | None = None,
) -> jax.Array:
  """log p(x) = sum_i log p(x_i | x_<i), nats per image, [B].

  Of a multi-scale model the sum over all scales, log p(small, large): a lower bound
  of log p(large).

  Args and errors: see `log_probs`.
  """
  return log_prob_of_scales(model, variables, images, smaller).sum(axis=-1)


def bits_per_dim(
    model: nn.Module, variables, images: jax.Array,
    smaller: Sequence[jax.Array] | None = None,
) -> jax.Array:
  """-log2 p(x) / (H W C) of each image, [B]; a uniform model has log2(levels).

  Of a multi-scale model, the bits of all scales over the H W C of the large image
  alone: an upper bound of its bits per dimension.

  Args and errors: see `log_probs`.
  """
  nats = -log_prob(model, variables, images, smaller)
  return nats_to_bits_per_dim(nats, model.config.image_shape)


def total_nats(
    model: nn.Module, variables, images: jax.Array
) -> jax.Array | tuple[jax.Array, ...]:
  """-sum_n log p(x_n) over a batch, nats: what training descends.

  As `log_prob`, but the logits, and their gradients, exist for a few rows at a
  time only.

  Args and errors: see `log_probs`.

  Returns:
    A scalar; of a multi-scale model a tuple of them, each scale's sum given the
    scale before it, the coarsest first.
  """
  model = arguments.unbound(model)
  arguments.check_variables(model, variables)
  images = arguments.image_values(model.config, images)
  return model.apply(variables, images, method="total_nats")
