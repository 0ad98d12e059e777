"""The output layers: from the trunk to logits and likelihoods (paper, Table 1).

    2 x (ReLU, 1x1 convolution, mask B) -> ReLU, 1x1 to the logits, mask B

For natural images they are a third of the network's arithmetic and, at 256 logits
a value, most of its memory. So the total likelihood, which training needs, goes
through them a few rows at a time.

Shapes: H height, W width, B batch, C channels, F features. Maps are [H, W, B, F].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.parameters import Params

# The largest map that `total_nats` makes at once, in values (16 MiB of float32):
# smaller ones make products that fall short of the machine's peak.
_CHUNK = 2**22


class Head:
  """The output layers of a configuration; `params` is a list of theirs."""

  def __init__(self, config: ModelConfig):
    self.config = config
    self.channels = config.image_shape[2]

  @functools.cached_property
  def masks(self) -> list[np.ndarray]:
    config = self.config
    values = 1 if config.levels == 2 else config.levels
    widths = [2 * config.hidden, config.head_features, config.head_features,
              self.channels * values]
    return [
        ops.conv_mask("B", (1, 1), features, outputs, self.channels)[0, 0]
        for features, outputs in zip(widths[:-1], widths[1:], strict=True)
    ]

  def logits(self, params: list[Params], x: jax.Array) -> jax.Array:
    """[..., 2h] to [..., C, levels]."""
    for layer, mask in zip(params, self.masks, strict=True):
      x = ops.masked_dense(jax.nn.relu(x), **layer, mask=mask)
    return self._finish(x.reshape(*x.shape[:-1], self.channels, -1))

  def _finish(self, x: jax.Array) -> jax.Array:
    """The last layer's output for a channel to its logits, [..., levels]."""
    x = x.astype(jnp.promote_types(self.config.dtype, jnp.float32))
    if self.config.levels == 2:
      x = jnp.concatenate([jnp.zeros_like(x), x], axis=-1)
    return x

  def total_nats(
      self, params: list[Params], x: jax.Array, values: jax.Array
  ) -> jax.Array:
    """-sum log p over all values of a batch, and a gradient of its own.

    The gradient is taken along with the sum, a few rows at a time, so that
    neither ever holds all logits and nothing is computed twice.

    Args:
      params: the output layers'.
      x: the trunk, [H, W, B, 2h].
      values: integers [H, W, B, C].

    Returns:
      A scalar, float32 (float64 for that dtype).
    """
    height, *rest = values.shape[:3]
    widest = max(mask.shape[1] for mask in self.masks) * int(np.prod(rest))
    rows = max(
        n for n in range(1, height + 1)
        if height % n == 0 and (n == 1 or n * widest <= _CHUNK))
    x, values = (
        a.reshape(height // rows, rows, *a.shape[1:]) for a in (x, values))
    return _total_nats(self, params, x, values)

  def _nats(self, params: list[Params], x: jax.Array, values: jax.Array) -> jax.Array:
    """-sum log p, with all logits at once."""
    return -ops.categorical_log_probs(self.logits(params, x), values).sum()

  # Value by value.

  def channel_params(self, params: list[Params], channel: int) -> list[Params]:
    """The weights of one channel's group."""
    return [
        groups.cut(layer, mask, channel, self.channels)
        for layer, mask in zip(params, self.masks, strict=True)
    ]

  def value_logits(
      self, params: list[Params], known: list[list[jax.Array]], x: jax.Array
  ) -> tuple[jax.Array, list[list[jax.Array]]]:
    """Logits of a channel at a pixel.

    Args:
      params: from `channel_params`.
      known: what it returned for the channel before, [[], [], []] at the first.
      x: the channel's group of the trunk, [B, group of 2h].

    Returns:
      [B, levels], and the inputs of the layers, groups up to this one.
    """
    known = [list(groups_before) for groups_before in known]
    for inputs, layer in zip(known, params, strict=True):
      inputs.append(jax.nn.relu(x))
      x = groups.dense(layer, jnp.concatenate(inputs, axis=-1))
    return self._finish(x), known


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _total_nats(head: Head, params, x, values):
  def one_chunk(total, chunk):
    return total + head._nats(params, *chunk), None

  return lax.scan(one_chunk, _zero(head), (x, values))[0]


def _total_nats_forward(head: Head, params, x, values):
  def one_chunk(carry, chunk):
    total, sums = carry
    nats, (gradient, x_gradient) = jax.value_and_grad(
        head._nats, argnums=(0, 1))(params, *chunk)
    return (total + nats, jax.tree.map(jnp.add, sums, gradient)), x_gradient

  start = (_zero(head), jax.tree.map(jnp.zeros_like, params))
  (total, gradient), x_gradient = lax.scan(one_chunk, start, (x, values))
  return total, (gradient, x_gradient)


def _total_nats_backward(head: Head, gradients, cotangent):
  del head
  gradients = jax.tree.map(lambda g: (g * cotangent).astype(g.dtype), gradients)
  return *gradients, None


_total_nats.defvjp(_total_nats_forward, _total_nats_backward)


def _zero(head: Head) -> jax.Array:
  return jnp.zeros((), jnp.promote_types(head.config.dtype, jnp.float32))
