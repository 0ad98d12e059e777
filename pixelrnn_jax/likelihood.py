"""Exact log-likelihoods: nats a value, nats an image, bits a dimension.

Shapes: B batch, H height, W width, C channels.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax import ops
from pixelrnn_jax.errors import InputError


def nats_to_bits_per_dim(nats, image_shape: tuple[int, int, int]):
  """Bits per dimension of a negative log-likelihood in nats per image.

      bits/dim = nats / (H W C log 2)

  Args:
    nats: a number or array of -log p(x).
    image_shape: (H, W, C).
  """
  return nats / (math.prod(image_shape) * math.log(2))


def log_probs(model: nn.Module, variables, images: jax.Array) -> jax.Array:
  """log p(x_i | x_<i) of every value, in nats (paper, section 2.1).

  Args:
    model: from `build_model`.
    variables: from `model.init`.
    images: integers [B, H, W, C], raw values 0 .. levels - 1.

  Returns:
    [B, H, W, C], float32 (float64 for that dtype).

  Raises:
    InputError: images of another shape or dtype, or values of `levels` and
      above. Under `jit` values cannot be looked at: there the log-probability
      of a value out of range is NaN.
  """
  images = _check_values(model, images)
  return ops.categorical_log_probs(model.apply(variables, images), images)


def log_prob(model: nn.Module, variables, images: jax.Array) -> jax.Array:
  """log p(x) = sum_i log p(x_i | x_<i), nats per image, [B].

  Args and errors: see `log_probs`.
  """
  return log_probs(model, variables, images).sum(axis=(1, 2, 3))


def bits_per_dim(model: nn.Module, variables, images: jax.Array) -> jax.Array:
  """-log2 p(x) / (H W C) of each image, [B]; a uniform model has log2(levels).

  Args and errors: see `log_probs`.
  """
  nats = -log_prob(model, variables, images)
  return nats_to_bits_per_dim(nats, model.config.image_shape)


def total_nats(model: nn.Module, variables, images: jax.Array) -> jax.Array:
  """-sum_n log p(x_n) over a batch, nats, a scalar: what training descends.

  As `log_prob`, but the logits, and their gradients, exist for a few rows at a
  time only.

  Args and errors: see `log_probs`.
  """
  images = _check_values(model, images)
  return model.apply(variables, images, method="total_nats")


def _check_values(model: nn.Module, images) -> jax.Array:
  """The images; raises InputError if they are not raw values of the model."""
  images = jnp.asarray(images)
  levels = model.config.levels
  if not jnp.issubdtype(images.dtype, jnp.integer):
    raise InputError(
        f"Images of dtype {images.dtype}: a likelihood needs raw integer values,"
        f" 0 to {levels - 1} (uint8)."
    )
  check_range(images, levels)
  return images


def check_range(images, levels: int) -> None:
  """Raises InputError for values outside 0 .. levels - 1; traced ones pass."""
  if isinstance(images, jax.core.Tracer):
    return
  images = np.asarray(images)
  if images.size and (images.min() < 0 or images.max() >= levels):
    raise InputError(
        f"Images with values from {images.min()} to {images.max()}: this model"
        f" takes 0 to {levels - 1}. Binarise or rescale the images first."
    )
