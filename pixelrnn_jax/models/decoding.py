"""The network value by value, for sampling, completion and coding (section 2.1).

The values of an image are decided one after another, in raster order and inside a pixel
R, G, B. At each value a caller's function gets the logits given all values before it,
and decides the value: it may draw it, look it up, or decode it.

Each layer computes only what is new at a value. So the arithmetic of a whole image is
that of one pass over it, and not of H W C passes. The logits are those of
`PixelRNN.__call__`.

The loops, from the outside in:

    row       compute the contribution of the rows above to all pixels of the row
    pixel     run the channels, then move the left caches on by one pixel
    channel   first layer -> all layers (a scan) -> head -> decide the value

Shapes: L layers, H height, W width, B batch, C channels, h hidden units, P pixels that
the first layer's kernel reaches to each side, c features of the condition.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Integer, PyTree, UInt8

from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.head import Head
from pixelrnn_jax.models.input_layer import InputLayer
from pixelrnn_jax.models.layer import Known, Layer
from pixelrnn_jax.models.parts import Params, Weights

# A function that decides values: (state, logits, row, column, channel) to (next state,
# the values of all images there, a tree to collect).
Choose = Callable[
    [PyTree, Float[Array, "B levels"], Int[Array, ""], Int[Array, ""], int],
    tuple[PyTree, Integer[Array, " B"], PyTree]]


class ChannelWeights(NamedTuple):
  """The weights that one channel's group needs, masked and cut to size.

  Attributes:
    first: the first layer's kernel of its own row.
    layers: those of all layers, with a leading axis of L.
    head: those of the output layers.
  """

  first: Float[Array, "known g"]
  layers: Params
  head: Params


class RowCache(NamedTuple):
  """The cache of a row, from the rows above.

  Attributes:
    values: the scaled values of the P rows above, [P, W, B, C].
    layers: the layers' caches, with a leading axis of L.
  """

  values: Float[Array, "P W B C"]
  layers: PyTree


class LeftCache(NamedTuple):
  """The cache of a pixel, from the pixels to its left.

  Attributes:
    values: the scaled values of the P pixels side by side, [B, P C].
    layers: the layers' left caches, with a leading axis of L.
  """

  values: Float[Array, "B PC"]
  layers: PyTree


class Contribution(NamedTuple):
  """The contribution of the rows above to the pixels of a row, or to one of them.

  Attributes:
    first: to the first layer, [W, B, 2h].
    layers: to the layers, with leading axes [W, L].
  """

  first: Float[Array, "*W B F"]
  layers: PyTree


@dataclasses.dataclass(frozen=True)
class Decoder:
  """A network and its parameters, run value by value.

  Attributes:
    config: the network's configuration.
    first: its first layer.
    layer: its layer.
    head: its output layers.
    first_params: the parameters of `first`.
    layers_params: those of all layers, with a leading axis of L.
    head_params: those of `head`.
    choose: decides the values.
  """

  config: ModelConfig
  first: InputLayer
  layer: Layer
  head: Head
  first_params: Weights
  layers_params: Params
  head_params: Params
  choose: Choose

  @property
  def channels(self) -> int:
    """C, the image's channels."""
    return self.config.image_shape[2]

  def decode_images(
      self,
      batch: int,
      condition: Float[Array, "H W B c"] | None,
      state: PyTree,
  ) -> tuple[UInt8[Array, "B H W C"], PyTree, PyTree]:
    """Decide all values of a batch of images.

    Args:
      batch: B.
      condition: the map that the layers are conditional on, [H, W, B, c].
      state: the state that `choose` receives at the first value.

    Returns:
      The values; the results of `choose` to collect, a list of C trees with leading
      axes [H, W]; and the state after the last value.
    """
    height, width, channels = self.config.image_shape
    # The weights of each channel's group are cut once, before the loops.
    layers = [
        self.layer.channel_weights(self.layers_params, c) for c in range(channels)]
    first = [self.first.channel_kernel(self.first_params, c) for c in range(channels)]
    head = [self.head.channel_weights(self.head_params, c) for c in range(channels)]
    weights = list(map(ChannelWeights, first, layers, head))

    def one_row(carry, xs):
      cache, state = carry
      row, condition = xs
      return self.decode_row(weights, cache, state, row, condition)

    cache = RowCache(
        jnp.zeros((self.first.reach, width, batch, channels), self.config.dtype),
        jax.vmap(lambda params: self.layer.init_cache(params, batch))(
            self.layers_params))
    (_, state), (values, collected) = lax.scan(
        one_row, (cache, state), (jnp.arange(height), condition))
    return jnp.transpose(values, (2, 0, 1, 3)), collected, state

  def decode_row(
      self,
      weights: list[ChannelWeights],
      cache: RowCache,
      state: PyTree,
      row: Int[Array, ""],
      condition: Float[Array, "W B c"] | None,
  ) -> tuple[tuple[RowCache, PyTree], tuple[UInt8[Array, "W B C"], PyTree]]:
    """Decide the values of a row.

    Args:
      weights: the weights of each channel.
      cache: after the row above.
      state: the state that `choose` receives at the row's first value.
      row: the row's number.
      condition: this row of the condition.

    Returns:
      (cache, state) after the row, and the row's (values [W, B, C], collected).
    """
    layer, width = self.layer, self.config.image_shape[1]
    batch = cache.values.shape[2]
    # 1. The contribution of the rows above and of the biases, for the whole row.
    first = self.first.contribution_from_above(self.first_params, cache.values)
    biases = jax.vmap(layer.biases, in_axes=(0, None))(self.layers_params, condition)
    above = Contribution(first, jax.vmap(layer.contribution_from_above, out_axes=1)(
        self.layers_params, cache.layers, biases))

    # 2. The pixels, from left to right.
    def one_pixel(carry, xs):
      left, state = carry
      row, column, above = xs
      return self.decode_pixel(weights, above, left, state, row, column)

    left = LeftCache(
        jnp.zeros((batch, self.first.reach * self.channels), self.config.dtype),
        jax.vmap(lambda params: layer.init_left_cache(params, batch))(
            self.layers_params))
    (_, state), (features, values, collected) = lax.scan(
        one_pixel, (left, state), (jnp.full(width, row), jnp.arange(width), above))

    # 3. The caches of the next row, from all features of this one.
    layers = jax.vmap(layer.update_cache, in_axes=(0, 0, 1, 0))(
        self.layers_params, cache.layers, features, biases)
    rows = jnp.concatenate([cache.values, self.first.scale(values)[None]])[1:]
    return (RowCache(rows, layers), state), (values, collected)

  def decode_pixel(
      self,
      weights: list[ChannelWeights],
      above: Contribution,
      left: LeftCache,
      state: PyTree,
      row: Int[Array, ""],
      column: Int[Array, ""],
  ) -> tuple[tuple[LeftCache, PyTree], tuple[Known, UInt8[Array, "B C"], PyTree]]:
    """Decide the values of a pixel, one channel after another.

    Args:
      weights: the weights of each channel.
      above: the contribution of the rows above to this pixel.
      left: the left caches.
      state: the state that `choose` receives at the pixel's first value.
      row: the pixel's row.
      column: the pixel's column.

    Returns:
      (left, state) after the pixel, and the pixel's (features of all layers, values
      [B, C], collected).
    """
    # The scaled values that the first layer sees in this row: those of the pixels to
    # the left, then those of the channels before.
    seen = left.values
    features: Known = {}
    head_inputs = [[] for _ in self.head.layers]
    values, collected = [], []
    for channel, channel_weights in enumerate(weights):
      x = groups.select(above.first, channel, self.channels)
      x = x + seen @ channel_weights.first
      x, features = self.run_layers(
          channel_weights.layers, channel, above.layers, left.layers, features, x)
      logits, head_inputs = self.head.step(channel_weights.head, head_inputs, x)
      state, value, more = self.choose(state, logits, row, column, channel)
      values.append(value.astype(jnp.uint8))
      collected.append(more)
      seen = jnp.concatenate([seen, self.first.scale(value)[:, None]], axis=-1)
    # Move the left caches on by one pixel: the first layer's drops the leftmost one.
    layers = jax.vmap(self.layer.update_left_cache)(left.layers, features)
    pixel = jnp.stack(values, axis=-1)
    left = LeftCache(seen[:, self.channels :], layers)
    return (left, state), (features, pixel, collected)

  def run_layers(
      self,
      weights: Params,
      channel: int,
      above: PyTree,
      left: PyTree,
      features: Known,
      x: Float[Array, "B g"],
  ) -> tuple[Float[Array, "B g"], Known]:
    """Run all layers for a channel's group at a pixel.

    Args:
      weights: the weights of the channel, with a leading axis of L.
      channel: the channel.
      above: the layers' contributions from above, with a leading axis of L.
      left: the layers' left caches, likewise.
      features: the features of the channels before, likewise; {} for the first one.
      x: the channel's group of the first layer's output, [B, group of 2h].

    Returns:
      The channel's group of the last layer's output plus all skips, and the features
      known now.
    """

    def one_layer(x, xs):
      weights, above, left, known = xs
      y, skip, known = self.layer.step(weights, channel, above, left, known, x)
      return y, (skip, known)

    x, (skips, features) = lax.scan(one_layer, x, (weights, above, left, features))
    if skips is not None:
      x = x + skips.sum(axis=0)
    return x, features
