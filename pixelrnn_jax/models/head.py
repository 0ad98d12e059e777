"""The output layers: from the trunk to logits and likelihoods (paper, Table 1).

    2 x (ReLU, 1 x 1 convolution, mask B) -> ReLU, 1 x 1 to the logits, mask B

For natural images these layers are a third of the network's arithmetic. At 256 logits
for each value they need most of its memory. So the likelihood of a batch, which
training needs, is computed a few rows at a time (`Head.chunked_nats`).

Shapes: H height, W width, B batch, C channels, h hidden units, F features. Maps are
[H, W, B, F].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Integer, Real

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.parts import Composite, MaskedConvolution, Params

# The largest map that `Head.chunked_nats` makes at once, in values: 16 MiB of float32.
# With smaller maps the matrix products are slower than the machine allows.
_CHUNK = 2**22


class Head(Composite):
  """The two output layers and the layer that makes the logits.

  Parameters:
    head_0, head_1, head_2: kernel [F, G] and bias [G] each.
  """

  def __init__(self, config: ModelConfig):
    self.config = config
    self.channels = config.image_shape[2]
    values = 1 if config.levels == 2 else config.levels
    widths = [2 * config.hidden, config.head_features, config.head_features,
              self.channels * values]
    self.layers = {
        f"head_{i}": MaskedConvolution(
            ops.conv_mask("B", (1, 1), *pair, self.channels)[0, 0])
        for i, pair in enumerate(zip(widths[:-1], widths[1:], strict=True))
    }
    self.parts = self.layers

  def __call__(
      self, params: Params, x: Float[Array, "*N F"]
  ) -> Float[Array, "*N C levels"]:
    """Compute the logits of all values.

    Args:
      params: the parameters of the output layers.
      x: the trunk, [..., 2h].

    Returns:
      [..., C, levels], in at least float32.
    """
    return jnp.stack(self._logits_by_channel(params, x), axis=-2)

  def _logits_by_channel(
      self, params: Params, x: Float[Array, "*N F"]
  ) -> list[Float[Array, "*N levels"]]:
    """Return the logits of each channel."""
    if self.config.choices.resolve().head_products == "visible":
      # With a single axis of rows XLA transposes no map for the kernels' gradients.
      rows, known, found = x.reshape(-1, x.shape[-1]), [[] for _ in self.layers], []
      for channel in range(self.channels):
        logits, known = self.step(
            self.channel_weights(params, channel), known,
            groups.select(rows, channel, self.channels))
        found.append(logits.reshape(*x.shape[:-1], logits.shape[-1]))
      return found
    for name, layer in self.layers.items():
      x = layer(params[name], jax.nn.relu(x))
    return [self._finish(y) for y in jnp.split(x, self.channels, axis=-1)]

  def _finish(self, x: Float[Array, "*N outputs"]) -> Float[Array, "*N levels"]:
    """Turn the last layer's output for a channel into its logits.

    For two levels the only output l becomes (0, l), so p(1) = sigmoid(l).
    """
    x = x.astype(ops.at_least_float32(self.config.dtype))
    if self.config.levels == 2:
      x = jnp.concatenate([jnp.zeros_like(x), x], axis=-1)
    return x

  def nats(
      self, params: Params, x: Float[Array, "*N F"], values: Real[Array, "*N C"]
  ) -> Float[Array, ""]:
    """Return -sum log p of some values, with all their logits in memory at once.

    Args:
      params: the parameters of the output layers.
      x: the trunk, [..., 2h].
      values: integers [..., C].
    """
    if self.config.choices.resolve().logits == "together":
      return -ops.categorical_log_probs(self(params, x), values).sum()
    # An axis of 3 channels wastes a quarter of a TPU's tiles.
    log_probs = [
        ops.log_probs_by_comparison(logits, values[..., channel]).sum()
        for channel, logits in enumerate(self._logits_by_channel(params, x))]
    return -jnp.stack(log_probs).sum()

  def chunked_nats(
      self,
      params: Params,
      x: Float[Array, "H W B F"],
      values: Integer[Array, "H W B C"],
  ) -> Float[Array, ""]:
    """Return -sum log p over all values of a batch, a few rows at a time.

    The gradient is computed together with the sum. So neither of them ever holds all
    logits, and nothing is computed twice.

    Args:
      params: the parameters of the output layers.
      x: the trunk, [H, W, B, 2h].
      values: integers [H, W, B, C].

    Returns:
      A scalar in nats, float32 (float64 for that dtype).
    """
    height, *rest = values.shape[:3]
    widest = max(mask.shape[1] for mask in self.masks.values()) * int(np.prod(rest))
    rows = max(
        n for n in range(1, height + 1)
        if height % n == 0 and (n == 1 or n * widest <= _CHUNK))
    x, values = (
        a.reshape(height // rows, rows, *a.shape[1:]) for a in (x, values))
    return _sum_over_chunks(self, params, x, values)

  # By channel: value by value (see `decoding.py`), and in `_logits_by_channel`.

  def channel_weights(self, params: Params, channel: int) -> Params:
    """Return the weights of one channel's group, masked and cut to size.

    Args:
      params: the parameters of the output layers.
      channel: the channel.
    """
    return {
        name: groups.cut(params[name], layer.mask, channel, self.channels)
        for name, layer in self.layers.items()
    }

  def step(
      self,
      weights: Params,
      known: list[list[Float[Array, "B _"]]],
      x: Float[Array, "B g"],
  ) -> tuple[Float[Array, "B levels"], list[list[Float[Array, "B _"]]]]:
    """Compute the logits of one channel, from the groups that its masks show.

    Value by value B are the images at a pixel, in `_logits_by_channel` all positions.

    Args:
      weights: from `channel_weights`.
      known: the inputs that `step` returned for the channel before; [[], [], []] for
        the first one.
      x: the channel's group of the trunk, [B, group of 2h].

    Returns:
      The logits [B, levels], and for each layer its inputs of the groups up to this
      one.
    """
    known = [list(inputs) for inputs in known]
    for inputs, layer in zip(known, weights.values(), strict=True):
      inputs.append(jax.nn.relu(x))
      x = groups.dense(layer, jnp.concatenate(inputs, axis=-1))
    return self._finish(x), known


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
@jax.named_scope("head")
def _sum_over_chunks(
    head: Head,
    params: Params,
    x: Float[Array, "chunks *N F"],
    values: Integer[Array, "chunks *N C"],
) -> Float[Array, ""]:
  """Return the sum of `Head.nats` over the leading axis of x and values."""

  def one_chunk(total, chunk):
    return total + head.nats(params, *chunk), None

  return lax.scan(one_chunk, _zero(head), (x, values))[0]


@jax.named_scope("head")
def _sum_over_chunks_forward(
    head: Head,
    params: Params,
    x: Float[Array, "chunks *N F"],
    values: Integer[Array, "chunks *N C"],
) -> tuple[Float[Array, ""], tuple[Params, Float[Array, "chunks *N F"]]]:
  """Return the sum, and the gradients of the parameters and of x."""

  def one_chunk(carry, chunk):
    total, sums = carry
    nats, (gradient, x_gradient) = jax.value_and_grad(
        head.nats, argnums=(0, 1))(params, *chunk)
    return (total + nats, jax.tree.map(jnp.add, sums, gradient)), x_gradient

  start = (_zero(head), jax.tree.map(jnp.zeros_like, params))
  (total, gradient), x_gradient = lax.scan(one_chunk, start, (x, values))
  return total, (gradient, x_gradient)


@jax.named_scope("head")
def _sum_over_chunks_backward(
    head: Head,
    gradients: tuple[Params, Float[Array, "chunks *N F"]],
    cotangent: Float[Array, ""],
) -> tuple[Params, Float[Array, "chunks *N F"], None]:
  """Multiply the gradients by that of the sum."""
  del head
  gradients = jax.tree.map(lambda g: (g * cotangent).astype(g.dtype), gradients)
  return *gradients, None


_sum_over_chunks.defvjp(_sum_over_chunks_forward, _sum_over_chunks_backward)


def _zero(head: Head) -> Float[Array, ""]:
  """Return the sum of no values."""
  return jnp.zeros((), ops.at_least_float32(head.config.dtype))
