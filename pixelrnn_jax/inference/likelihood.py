"""Exact log-likelihoods: nats per image and bits per dimension (paper, section 5.1).

A multi-scale model has an exact joint likelihood of all its scales:
log p(small, large) = log p(small) + log p(large | small). The small image follows from
the large one. So the joint is a lower bound of log p(large), and nats and bits/dim are
upper bounds.

Matrix products have the highest precision (`precision.py`). `total_nats`, which is for
training, leaves the precision to the device.

Shapes: B batch, H height, W width, C channels, S scales (1 for most models).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.inference import precision
from pixelrnn_jax.inference.scales import ImagesLike, one_or_all
from pixelrnn_jax.models import Model

Nats = TypeVar("Nats", float, np.ndarray, jax.Array)


def nats_to_bits_per_dim(nats: Nats, image_shape: tuple[int, int, int]) -> Nats:
  """Return the bits per dimension of a negative log-likelihood.

      bits/dim = nats / (H W C log 2)

  Args:
    nats: -log p(x) per image, a number or an array.
    image_shape: (H, W, C).
  """
  return nats / (math.prod(image_shape) * math.log(2))


def bound_note(config: ModelConfig) -> str:
  """Return the note that belongs to a model's nats and bits/dim.

  Args:
    config: the model's configuration.

  Returns:
    A note that the figures are bounds, or "" if they are exact.
  """
  sizes = [scale_name(config, s) for s in range(len(config.scale_shapes()))]
  if len(sizes) == 1:
    return ""
  return (
      f"joint of {' and '.join(sizes)}: a lower bound of log p for the {sizes[-1]}"
      " image, so an upper bound of its nats and bits/dim"
  )


def scale_name(config: ModelConfig, scale: int) -> str:
  """Return the size of a scale in words, as in "28x28"."""
  height, width, _ = config.scale_shapes()[scale]
  return f"{height}x{width}"


def scale_suffix(config: ModelConfig, scale: int) -> str:
  """Return the suffix of a scale's metrics, as in "_28x28"; "" for a single scale."""
  return f"_{scale_name(config, scale)}" if config.multi_scale else ""


def log_probs(
    model: Model,
    variables: PyTree,
    images: ImagesLike,
    smaller: Sequence[ImagesLike] | None = None,
) -> Float[Array, "B H W C"] | tuple[Float[Array, "B _ _ C"], ...]:
  """Return log p(x_i | x_<i) of every value, in nats (paper, section 2.1).

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    images: integers [B, H, W, C], raw values 0 to levels - 1.
    smaller: for a multi-scale model, the images of the smaller scales, the coarsest
      first. By default they are the subsampled images.

  Returns:
    [B, H, W, C], float32 (float64 for that dtype). For a multi-scale model it is a
    tuple, one entry for each scale, the coarsest first: the log-probabilities of each
    scale given the one before it.

  Raises:
    InputError: the images have another shape or dtype, or values outside 0 to
      levels - 1; the variables are another model's. Under `jit` values cannot be
      looked at: the log-probability of a value out of range is then NaN. Forward-mode
      differentiation without `implementation="autodiff"`.
  """
  return one_or_all(_log_probs_by_scale(model, variables, images, smaller))


def _log_probs_by_scale(
    model: Model,
    variables: PyTree,
    images: ImagesLike,
    smaller: Sequence[ImagesLike] | None,
) -> tuple[Float[Array, "B _ _ C"], ...]:
  """Return `log_probs` as a tuple of one or more scales."""
  model = arguments.unbound(model)
  arguments.check_variables(model, variables)
  large = arguments.image_values(model.config, images)
  small = None if smaller is None else [
      arguments.image_values(model.config, x, "Smaller images") for x in smaller]
  with arguments.forward_mode_explained(), precision.highest():
    return _checked_log_probs(model, variables, large, small)


@functools.partial(jax.jit, static_argnums=0)
def _checked_log_probs(
    model: Model, variables: PyTree, images: Array, smaller: Sequence[Array] | None
) -> tuple[Float[Array, "B _ _ C"], ...]:
  """Return `_log_probs_by_scale` of images that have been checked."""
  scales = model.all_scales(images, smaller)
  logits: Any = model.apply(
      variables, scales[-1], scales[:-1] or None, method="logits_by_scale")
  return tuple(
      ops.categorical_log_probs(*pair) for pair in zip(logits, scales, strict=True))


def log_prob_by_scale(
    model: Model,
    variables: PyTree,
    images: ImagesLike,
    smaller: Sequence[ImagesLike] | None = None,
) -> Float[Array, "B S"]:
  """Return log p(x_s | x_{s-1}) of each scale, in nats per image.

  Args:
    model: see `log_probs`.
    variables: see `log_probs`.
    images: see `log_probs`.
    smaller: see `log_probs`.

  Returns:
    [B, S], the coarsest scale first.

  Raises:
    InputError: see `log_probs`.
  """
  scales = _log_probs_by_scale(model, variables, images, smaller)
  return jnp.stack([x.sum(axis=(1, 2, 3)) for x in scales], axis=-1)


def log_prob(
    model: Model,
    variables: PyTree,
    images: ImagesLike,
    smaller: Sequence[ImagesLike] | None = None,
) -> Float[Array, " B"]:
  """Return log p(x) = sum_i log p(x_i | x_<i), in nats per image.

  For a multi-scale model it is the sum over all scales, log p(small, large). That is a
  lower bound of log p(large).

  Args:
    model: see `log_probs`.
    variables: see `log_probs`.
    images: see `log_probs`.
    smaller: see `log_probs`.

  Returns:
    [B].

  Raises:
    InputError: see `log_probs`.
  """
  return log_prob_by_scale(model, variables, images, smaller).sum(axis=-1)


def bits_per_dim(
    model: Model,
    variables: PyTree,
    images: ImagesLike,
    smaller: Sequence[ImagesLike] | None = None,
) -> Float[Array, " B"]:
  """Return -log2 p(x) / (H W C) of each image.

  A uniform model has log2(levels) bits per dimension. For a multi-scale model the bits
  of all scales are divided by the H W C of the large image alone. That is an upper
  bound of its bits per dimension.

  Args:
    model: see `log_probs`.
    variables: see `log_probs`.
    images: see `log_probs`.
    smaller: see `log_probs`.

  Returns:
    [B].

  Raises:
    InputError: see `log_probs`.
  """
  nats = -log_prob(model, variables, images, smaller)
  return nats_to_bits_per_dim(nats, model.config.image_shape)


def total_nats(
    model: Model, variables: PyTree, images: ImagesLike
) -> Float[Array, ""] | tuple[Float[Array, ""], ...]:
  """Return -sum_n log p(x_n) over a batch, in nats, which training minimises.

  Logits and their gradients exist only for a few rows at a time. `log_prob` makes them
  all at once.

  Args:
    model: see `log_probs`.
    variables: see `log_probs`.
    images: see `log_probs`.

  Returns:
    A scalar. For a multi-scale model it is a tuple: the sum of each scale given the
    scale before it, the coarsest first.

  Raises:
    InputError: see `log_probs`.
  """
  model = arguments.unbound(model)
  arguments.check_variables(model, variables)
  checked = arguments.image_values(model.config, images)
  nats: Any = model.apply(variables, checked, method="nats_by_scale")
  return one_or_all(nats)
