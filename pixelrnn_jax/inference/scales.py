"""Images as a user gives them, and results as the public functions return them."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np

# Images [B, H, W, C]. Nested lists are taken too.
ImagesLike = jax.Array | np.ndarray | Sequence

Item = TypeVar("Item")


def one_or_all(scales: Sequence[Item]) -> Item | tuple[Item, ...]:
  """Return the results of all scales as the public functions do.

  Inside, every model has a tuple of one or more scales. For a model of a single scale
  the public functions return the only result, and no tuple.

  Args:
    scales: one result for each scale, the coarsest first.
  """
  return tuple(scales) if len(scales) > 1 else scales[0]
