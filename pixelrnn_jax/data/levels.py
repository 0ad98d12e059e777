"""From stored values to a model's values, 0 to levels - 1."""

from typing import Any

import numpy as np

from pixelrnn_jax.errors import InputError


def quantise(image: np.ndarray, levels: int) -> np.ndarray:
  """Return floor(x levels / 256), uint8 0 to levels - 1, for uint8 x."""
  return (image.astype(np.uint16) * levels // 256).astype(np.uint8)


def to_levels(images: Any, levels: int, title: str, largest: int) -> Any:
  """Return the values of an `.npz` as a model's.

  Values below `levels` are returned as they are. For a binary model, larger ones are
  quantised to bits.

  Args:
    images: uint8.
    levels: the number of levels of the model.
    title: the name of the data, for messages.
    largest: the largest value of all images.

  Raises:
    InputError: there are values beyond `levels`, which is more than 2.
  """
  if largest < levels:
    return images
  if levels > 2:
    raise InputError(
        f"{title} holds values up to {largest}, but model.levels={levels}: the values"
        " of an .npz are used as they are, 0 .. levels - 1. Store"
        f" floor(x {levels} / 256), or set model.levels=256."
    )
  return quantise(images, levels)
