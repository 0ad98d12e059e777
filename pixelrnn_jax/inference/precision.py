"""The precision of products, which is not that of their dtype everywhere.

On a TPU products of float32 take bfloat16 operands by default, on a GPU often
TensorFloat-32. Training takes what the device does by default, as it is fastest.
Likelihoods take the highest precision. `jax_default_matmul_precision` (the environment
variable JAX_DEFAULT_MATMUL_PRECISION) overrides both. On a CPU products are of their
dtype, and nothing here has an effect.
"""

import contextlib

import jax


def highest() -> contextlib.AbstractContextManager:
  """Return a context in which products are of the highest precision.

  It has no effect on a CPU, or where the user has set a precision.
  """
  if jax.default_backend() == "cpu" or _given():
    return contextlib.nullcontext()
  return jax.default_matmul_precision("highest")


def describe(dtype: str, training: bool = False) -> str:
  """Return what products are computed in, in words.

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
