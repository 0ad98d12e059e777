"""From stored values to a model's values, 0 to levels - 1."""

from typing import Any

import numpy as np

from pixelrnn_jax.errors import InputError


def quantise(image: np.ndarray, levels: int) -> np.ndarray:
  """Return floor(x levels / 256), uint8 0 to levels - 1, for uint8 x."""
  return (image.astype(np.uint16) * levels // 256).astype(np.uint8)


def check_not_black(largest: int, levels: int, title: str) -> None:
  """Raise InputError for images that would all be black in a model of grey values.

  Args:
    largest: the largest value of several images.
    levels: the number of levels of the model.
    title: the name of the data, for messages.
  """
  if largest <= 1 and levels > 2:
    raise InputError(
        f"{title} holds no value above {largest}, but model.levels={levels}: all images"
        " would be black. If they were numbers from 0 to 1, save"
        " np.round(255 * array).astype(np.uint8); if they are bits, use a binary"
        " model: --config.model.levels=2 --config.data.binarization=static.")


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
