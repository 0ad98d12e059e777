"""The precision of matrix products, which may be lower than that of their dtype.

On a TPU, products of float32 take bfloat16 operands by default. On a GPU they often
take TensorFloat-32. Training leaves the device's default, which is the fastest.
Likelihoods take the highest precision. `jax_default_matmul_precision` (the environment
variable JAX_DEFAULT_MATMUL_PRECISION) overrides both. On a CPU, products have the
precision of their dtype, and this file has no effect.
"""

import contextlib

import jax


def highest() -> contextlib.AbstractContextManager:
  """Return a context in which products have the highest precision.

  It has no effect on a CPU, or where the user has set a precision.
  """
  if jax.default_backend() == "cpu" or _given():
    return contextlib.nullcontext()
  return jax.default_matmul_precision("highest")


def describe(dtype: str, training: bool = False) -> str:
  """Return the precision of products in words.

  Args:
    dtype: the dtype of the model.
    training: whether the products are those of a training step, and not of a
      likelihood.
  """
  if jax.default_backend() == "cpu":
    return dtype
  default = "the device's default" if training else "the highest"
  return f"{dtype} at {_given() or default} precision"


def _given() -> str | None:
  """Return the precision that the user has set, if any."""
  return getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009
