"""What inference checks of its arguments, and the form of its results."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models.checks import check_image_shape

# Images as a user gives them, [B, H, W, C]. Nested lists are taken too.
ImagesLike = jax.Array | np.ndarray | Sequence

Item = TypeVar("Item")


def check_images(
    images: jax.Array | np.ndarray, config: ModelConfig, letter: str = "B"
) -> None:
  """Raise InputError unless images are raw values of the model.

  Args:
    images: must be integers [B, H, W, C], B at least 1, 0 to levels - 1.
    config: the model's configuration.
    letter: what the caller's documentation calls B.
  """
  check_image_shape(images.shape, config.image_shape, letter)
  check_values(images, config.levels)


def check_values(images: jax.Array | np.ndarray, levels: int) -> None:
  """Raise InputError unless values are integers from 0 to levels - 1.

  The range of traced values cannot be looked at: it passes.

  Args:
    images: of any shape.
    levels: of the model.
  """
  if not jnp.issubdtype(images.dtype, jnp.integer):
    raise InputError(
        f"Images of dtype {images.dtype}: raw integer values are needed,"
        f" 0 to {levels - 1} (uint8)."
    )
  if isinstance(images, jax.core.Tracer):
    return
  images = np.asarray(images)
  if images.size and (images.min() < 0 or images.max() >= levels):
    raise InputError(
        f"Images with values from {images.min()} to {images.max()}: this model"
        f" takes 0 to {levels - 1}. Binarise or rescale the images first."
    )


def check_count(name: str, value: object) -> int:
  """Return a number of things, or raise InputError unless it is 1 or more.

  Args:
    name: of the argument.
    value: must be a whole number.
  """
  if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
    raise InputError(
        f"{name}={value!r}: must be at least 1. Give a whole number, 1 or more.")
  return int(value)


def one_or_all(scales: Sequence[Item]) -> Item | tuple[Item, ...]:
  """Return the results of all scales as the public functions do.

  Inside, every model has a tuple of one or more scales. Of a model of a single scale
  the public functions return the only one, and no tuple.

  Args:
    scales: one result for each scale, the coarsest first.
  """
  return tuple(scales) if len(scales) > 1 else scales[0]
