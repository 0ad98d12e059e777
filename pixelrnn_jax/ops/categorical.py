"""Log-probabilities of values under their logits (paper, section 2.2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer


def categorical_log_probs(
    logits: Float[Array, "*shape levels"], values: Integer[Array, "*shape"]
) -> Float[Array, "*shape"]:
  """Return the log-probability of each value, in nats.

      log p = log softmax(logits)[value]

  Args:
    logits: [..., levels].
    values: integers [...], 0 to levels - 1.

  Returns:
    [...], of the logits' dtype. It is NaN where a value is out of range.
  """
  picked = jnp.take_along_axis(
      jax.nn.log_softmax(logits), values.astype(jnp.int32)[..., None], axis=-1,
      mode="fill")
  return picked[..., 0]


def log_probs_by_comparison(
    logits: Float[Array, "*shape levels"], values: Integer[Array, "*shape"]
) -> Float[Array, "*shape"]:
  """Return `categorical_log_probs` without a gather, which accelerators are slow at.

  Args:
    logits: [..., levels].
    values: integers [...], 0 to levels - 1.

  Returns:
    [...], of the logits' dtype. It is NaN where a value is out of range.
  """
  levels = logits.shape[-1]
  values = values.astype(jnp.int32)
  picked = jnp.where(jnp.arange(levels) == values[..., None], logits, 0).sum(axis=-1)
  log_probs = picked - jax.nn.logsumexp(logits, axis=-1)
  return jnp.where((values >= 0) & (values < levels), log_probs, jnp.nan)
