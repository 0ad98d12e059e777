"""Log-probabilities of values under their logits (paper, section 3.6)."""

import jax
import jax.numpy as jnp


def categorical_log_probs(logits: jax.Array, values: jax.Array) -> jax.Array:
  """log softmax(logits)[value], in nats.

  Args:
    logits: [..., levels].
    values: integers [...], 0 .. levels - 1.

  Returns:
    [...], of the logits' dtype; NaN where a value is out of range.
  """
  picked = jnp.take_along_axis(
      jax.nn.log_softmax(logits), values.astype(jnp.int32)[..., None], axis=-1,
      mode="fill")
  return picked[..., 0]
