"""The dtype of what must not lose precision: parameters, gates, cell states, logits."""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def at_least_float32(dtype: DTypeLike) -> np.dtype:
  """Return float32 for bfloat16 and float32, and float64 for float64."""
  return jnp.promote_types(dtype, jnp.float32)
