"""The residual layer that all three kinds are (paper, section 3.3 and Figure 5).

A layer computes a map f(x) of h features from the trunk's 2h features. A 1 x 1
convolution (mask B) brings it back to the 2h features of the trunk. With skip
connections another one brings it to the head:

    y    = W_up f(x) (+ x with residual connections)
    skip = W_skip f(x)

In a conditional network (section 3.6), f also takes a map s, the condition. The
upsampling network makes s from the smaller image. Each layer computes its biases from
s with a 1 x 1 convolution, and adds them to the output of one of its convolutions:

    biases = W_cond s

W_cond has no mask, because all of s is known before the first value. It has no bias of
its own either: that would be the bias of the convolution that the result is added to.

Each layer runs in two ways on the same parameters:

- over a whole image (`__call__`), for training and evaluation;
- value by value, for sampling, completion and coding (see `decoding.py`).

Value by value, a layer has two caches. The *cache* holds what the next row needs from
the rows above. The *left cache* holds what the next pixel needs from the pixels to its
left. At the start of each row, `contribution_from_above` computes the contribution of
the rows above for all pixels of the row at once, with the biases. So the biases of the
whole image are never in memory together. Then `step` computes the features of one
channel's group at one pixel, from those of the channels before it.

Shapes: H height, W width, B batch, C channels, h hidden units, c = h features of s, G
features of the biases: 4h in the Row LSTM, 8h in the Diagonal BiLSTM (two directions),
h in the PixelCNN. Whole maps are [H, W, B, F]. Value by value a pixel's features are
[B, F]. g is the size of a channel's group.
"""

import abc
from collections.abc import Mapping
from typing import Generic, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.parts import (
  Composite,
  MaskedConvolution,
  Params,
  Part,
  Projection,
)

# NamedTuples of arrays, different for each kind of layer.
Cache = TypeVar("Cache")
Contribution = TypeVar("Contribution")
LeftCache = TypeVar("LeftCache")

# The features known so far, by name: [B, F] at a pixel, [W, B, F] over a row. At a
# pixel, F grows by one channel's group at a time.
Known = Mapping[str, Float[Array, "..."]]


class Layer(Composite, abc.ABC, Generic[Cache, Contribution, LeftCache]):
  """The connections around f(x), and the two ways to run it.

  Parameters:
    up: kernel [h, 2h], bias [2h].
    skip: the same, with skip connections.
    condition: kernel [c, G], in a conditional network.
    The others are those of f(x).
  """

  def __init__(
      self,
      config: ModelConfig,
      conditional: bool,
      feature_parts: Mapping[str, Part],
      conditioned: MaskedConvolution,
  ):
    """Make the layer.

    Args:
      config: the network's configuration.
      conditional: whether the network is conditional on a smaller image.
      feature_parts: the parts of f(x), by name.
      conditioned: the one of them whose output the biases are added to.
    """
    self.config = config
    self.channels = config.image_shape[2]
    self.width = config.image_shape[1]
    self.hidden = config.hidden
    self.trunk = 2 * config.hidden
    # The 1 x 1 convolutions that leave f(x). They are alike, so one part serves both.
    self.connections = dict.fromkeys(
        ("up", "skip") if config.skip else ("up",),
        MaskedConvolution(mask_b(config, (1, 1), self.hidden, self.trunk)[0, 0]))
    parts: dict[str, Part] = {**self.connections, **feature_parts}
    self.condition = None
    if conditional:
      self.condition = Projection(self.hidden, conditioned.mask.shape[-1])
      parts["condition"] = self.condition
    self.parts = parts

  def biases(
      self, params: Params, condition: Float[Array, "*N c"] | None
  ) -> Float[Array, "*N G"] | None:
    """Return the biases W_cond s, or None in an unconditional network.

    Args:
      params: the parameters of the layer.
      condition: the map s or a row of it, [..., c].

    Returns:
      [..., G].
    """
    if self.condition is None or condition is None:
      return None
    return self.condition(params["condition"], condition)

  # Over a whole image.

  @abc.abstractmethod
  def features(
      self,
      params: Params,
      x: Float[Array, "H W B F"],
      biases: Float[Array, "H W B G"] | None,
  ) -> Float[Array, "H W B h"]:
    """Compute f(x).

    Args:
      params: the parameters of the layer.
      x: the trunk, [H, W, B, 2h].
      biases: [H, W, B, G], in a conditional network.

    Returns:
      [H, W, B, h].
    """

  def __call__(
      self,
      params: Params,
      x: Float[Array, "H W B F"],
      condition: Float[Array, "H W B c"] | None = None,
  ) -> tuple[Float[Array, "H W B F"], Float[Array, "H W B F"] | None]:
    """Run the layer over a whole map.

    Args:
      params: the parameters of the layer.
      x: the trunk, [H, W, B, 2h].
      condition: the map s, [H, W, B, c], in a conditional network.

    Returns:
      y and the skip, both [H, W, B, 2h]. The skip is None without skip connections.
    """
    features = self.features(params, x, self.biases(params, condition))
    y = self.connections["up"](params["up"], features)
    if self.config.residual:
      y = y + x
    if not self.config.skip:
      return y, None
    return y, self.connections["skip"](params["skip"], features)

  # Value by value.

  def channel_weights(self, params: Params, channel: int) -> Params:
    """Return the weights of one channel's group, masked and cut to size.

    Args:
      params: the parameters of one layer, or of a stack of layers with a leading axis.
      channel: the channel.

    Returns:
      What `step` takes: the layer's 1 x 1 convolutions from `groups.cut`, and
      `own_row`, the kernel of the pixels to the left and of the pixel itself.
    """
    return {
        name: groups.cut(params[name], part.mask, channel, self.channels)
        for name, part in self.connections.items()
    }

  @abc.abstractmethod
  def init_cache(self, params: Params, batch: int) -> Cache:
    """Return the cache before the first row.

    Args:
      params: the parameters of the layer.
      batch: B.
    """

  @abc.abstractmethod
  def contribution_from_above(
      self, params: Params, cache: Cache, biases: Float[Array, "W B G"] | None
  ) -> Contribution:
    """Return what the rows above and the biases contribute to a row.

    Args:
      params: the parameters of the layer.
      cache: after the row above.
      biases: the biases of this row, [W, B, G], in a conditional network.

    Returns:
      Arrays with a leading axis of W.
    """

  @abc.abstractmethod
  def init_left_cache(self, params: Params, batch: int) -> LeftCache:
    """Return the left cache before the first pixel of a row.

    Args:
      params: the parameters of the layer.
      batch: B.
    """

  @abc.abstractmethod
  def features_step(
      self,
      weights: Params,
      channel: int,
      above: Contribution,
      left: LeftCache,
      known: Known,
  ) -> Known:
    """Compute the features of a channel's group at a pixel.

    Args:
      weights: from `channel_weights`.
      channel: the channel.
      above: this pixel's contribution from above.
      left: the left cache.
      known: the features of the channels before, by name. `x`, the layer's input,
        has this channel's group already.

    Returns:
      The features of this channel's group by name, [B, g]. Those of f(x) are
      `features`; the others are what this layer's caches need.
    """

  def step(
      self,
      weights: Params,
      channel: int,
      above: Contribution,
      left: LeftCache,
      known: Known,
      x: Float[Array, "B g"],
  ) -> tuple[Float[Array, "B g"], Float[Array, "B g"] | None, Known]:
    """Run the layer for a channel's group at a pixel.

    Args:
      weights: from `channel_weights`.
      channel: the channel.
      above: this pixel's contribution from above.
      left: the left cache.
      known: the features that `step` returned for the channel before; {} for the first
        one.
      x: the channel's group of the layer's input, [B, group of 2h].

    Returns:
      The channel's group of y, that of the skip, and the features known now.
    """
    known = _append(known, {"x": x})
    known = _append(known, self.features_step(weights, channel, above, left, known))
    # f(x) of the groups before is in `known` too: mask B shows them.
    features = known["features"]
    y = groups.dense(weights["up"], features)
    if self.config.residual:
      y = y + x
    skip = groups.dense(weights["skip"], features) if self.config.skip else None
    return y, skip, known

  @abc.abstractmethod
  def update_left_cache(self, left: LeftCache, known: Known) -> LeftCache:
    """Return the left cache of the next pixel.

    Args:
      left: the left cache of this pixel.
      known: all features of this pixel, [B, F].
    """

  @abc.abstractmethod
  def update_cache(
      self,
      params: Params,
      cache: Cache,
      row: Known,
      biases: Float[Array, "W B G"] | None,
  ) -> Cache:
    """Return the cache after a row.

    Args:
      params: the parameters of the layer.
      cache: before the row.
      row: all features of the row's pixels, [W, B, F].
      biases: the biases of this row, [W, B, G], in a conditional network.
    """

  def select(
      self, x: Float[Array, "*N G"], channel: int, blocks: int = 1
  ) -> Float[Array, "*N g"]:
    """Return the features of a channel's group; see `groups.select`."""
    return groups.select(x, channel, self.channels, blocks)


def mask_b(
    config: ModelConfig, kernel_shape: tuple[int, int], features: int, outputs: int,
    blocks: int = 1,
) -> Bool[np.ndarray, "KH KW F G"]:
  """Return mask B for a network's channels; see `ops.conv_mask`."""
  return ops.conv_mask(
      "B", kernel_shape, features, outputs, config.image_shape[2], blocks)


def add(
    x: Float[Array, "..."], biases: Float[Array, "..."] | None
) -> Float[Array, "..."]:
  """Return x + biases, of the wider dtype, or x where there are no biases."""
  return x if biases is None else x + biases


def _append(known: Known, group: Known) -> Known:
  """Append the features of one more group to those that are known."""
  return {**known, **{
      name: jnp.concatenate([known[name], x], -1) if name in known else x
      for name, x in group.items()
  }}
