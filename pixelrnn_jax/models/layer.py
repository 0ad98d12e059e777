"""What the three kinds of residual layer share (paper, section 3.3, Figure 5).

A layer maps the trunk's 2h features to a map of h features; 1x1 convolutions
(mask B) bring that back to the 2h of the trunk and, with skip connections, to
the head:

    y    = W_up f(x) (+ x with residual connections)
    skip = W_skip f(x)

In a conditional network (paper, section 3.6) f also takes the map s that is made of
the smaller image: a 1x1 convolution without a mask, as all of s is known beforehand,
gives each layer its biases, W_cond s, which are added to the map that its recurrence
starts from, or to what goes into the PixelCNN's last ReLU.

Every layer runs in two ways on the same parameters:

- over a whole image (`__call__`), for training and evaluation;
- value by value, for sampling, completion and coding. A row begins with its
  biases and `row`, what it takes from the rows above, for all its pixels at once,
  so that the biases are computed once an image and never all kept. `value` then
  computes the features of one channel's group at one pixel, given those of the
  channels before it. `next_pixel` and `next_row` keep what will be needed.

Shapes: H height, W width, B batch, C channels, F features, p = K // 2, c = h the
features of s, G those of the biases: 4h in the Row LSTM, 8h in the Diagonal BiLSTM
(both directions), h in the PixelCNN. Whole maps are [H, W, B, F]. In the second way
a pixel's features are [B, F], and F grows by a channel's group at a time (`Pixel`).
"""

import abc
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.parameters import Init, conditioning, masked_layer

# The features of one pixel that are known so far, by name: [B, up to F].
Pixel = dict[str, jax.Array]


class Layer(abc.ABC):
  """The connections around f(x), and the two ways to run it.

  Subclasses define `masks`, `features` and the value-by-value functions.

  Attributes:
    conditioned: the name of the convolution that the biases are added to.
  """

  conditioned: str

  def __init__(self, config: ModelConfig, conditional: bool = False):
    self.config = config
    self.conditional = conditional
    self.channels = config.image_shape[2]
    self.width = config.image_shape[1]
    self.hidden = config.hidden
    self.trunk = 2 * config.hidden

  @functools.cached_property
  def masks(self) -> dict[str, np.ndarray]:
    """The masks of the layer's kernels, by parameter name."""
    up = self.mask((1, 1), self.hidden, self.trunk)[0, 0]
    return dict.fromkeys(self.connections, up)

  @property
  def connections(self) -> list[str]:
    """The names of the 1x1 convolutions that leave f(x)."""
    return ["up", "skip"] if self.config.skip else ["up"]

  def mask(
      self, kernel_shape: tuple[int, int], features: int, outputs: int,
      blocks: int = 1,
  ) -> np.ndarray:
    """Mask B, see `ops.conv_mask`."""
    return ops.conv_mask(
        "B", kernel_shape, features, outputs, self.channels, blocks)

  def inits(self) -> dict[str, Init]:
    """Initialisers of one layer's parameters, by name."""
    inits = {name: masked_layer(mask) for name, mask in self.masks.items()}
    if self.conditional:
      outputs = self.masks[self.conditioned].shape[-1]
      inits["condition"] = conditioning(self.hidden, outputs)
    return inits

  def biases(self, params: dict, condition: jax.Array | None) -> jax.Array | None:
    """W_cond s, a map [..., c] to [..., G]; None where there is none."""
    if condition is None:
      return None
    return condition @ params["condition"]["kernel"].astype(condition.dtype)

  def dense(self, params: dict, name: str, x: jax.Array) -> jax.Array:
    """The 1x1 convolution of that name."""
    return ops.masked_dense(x, **params[name], mask=self.masks[name])

  # Over a whole image.

  @abc.abstractmethod
  def features(
      self, params: dict, x: jax.Array, biases: jax.Array | None
  ) -> jax.Array:
    """f(x): [H, W, B, 2h] and biases [H, W, B, G] or None to [H, W, B, h]."""

  def __call__(
      self, params: dict, x: jax.Array, condition: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array | None]:
    """(y, skip) of a whole map.

    Args:
      params: of the layer.
      x: [H, W, B, 2h].
      condition: the map s, [H, W, B, c], in a conditional network.

    Returns:
      y [H, W, B, 2h] and the skip of the same shape, None without skips.
    """
    features = self.features(params, x, self.biases(params, condition))
    y = self.dense(params, "up", features)
    if self.config.residual:
      y = y + x
    return y, self.dense(params, "skip", features) if self.config.skip else None

  # Value by value.

  def channel_params(self, params: dict, channel: int) -> dict:
    """The weights that one channel's group needs, masked and cut to size.

    Of one layer, or of a stack with a leading axis.
    """
    return {
        name: groups.cut(params[name], self.masks[name], channel, self.channels)
        for name in self.connections
    }

  def own(self, x: jax.Array, channel: int, blocks: int = 1) -> jax.Array:
    """The features of a channel's group, [..., blocks * G] to [..., blocks * g]."""
    return groups.own(x, channel, self.channels, blocks)

  @abc.abstractmethod
  def start(self, params: dict, batch: int) -> Any:
    """What the first row takes from above: the state before an image."""

  @abc.abstractmethod
  def row(self, params: dict, state: Any, biases: jax.Array | None) -> Any:
    """What the pixels of a row take from the rows above, arrays [W, ...].

    Args:
      params: of the layer.
      state: from `start` or `next_row`.
      biases: of this row, [W, B, G], or None.
    """

  @abc.abstractmethod
  def start_row(self, params: dict, batch: int) -> Any:
    """What the first pixel of a row takes from its left."""

  @abc.abstractmethod
  def new(
      self, params: dict, channel: int, above: Any, left: Any, pixel: Pixel
  ) -> Pixel:
    """The features of a channel's group that this layer computes at a pixel.

    Among them `features`, those of f(x).

    Args:
      params: from `channel_params`.
      channel: which one.
      above: from `row`, at this pixel.
      left: from `start_row` or `next_pixel`.
      pixel: features known at this pixel; `x` has the layer's input up to and
        with this channel's group, the others those of the channels before.
    """

  def value(
      self, params: dict, channel: int, above: Any, left: Any, pixel: Pixel,
      x: jax.Array,
  ) -> tuple[jax.Array, jax.Array | None, Pixel]:
    """(y, skip, pixel) of a channel's group, from its group of the input.

    Args:
      params, channel, above, left: see `new`.
      pixel: what the channels before have left here, {} at the first.
      x: the layer's input, [B, group of 2h].
    """
    pixel = _append(pixel, {"x": x})
    pixel = _append(pixel, self.new(params, channel, above, left, pixel))
    features = pixel["features"]
    y = groups.dense(params["up"], features)
    if self.config.residual:
      y = y + x
    skip = groups.dense(params["skip"], features) if self.config.skip else None
    return y, skip, pixel

  @abc.abstractmethod
  def next_pixel(self, left: Any, pixel: Pixel) -> Any:
    """What the pixel to the right takes from its left."""

  @abc.abstractmethod
  def next_row(
      self, params: dict, state: Any, row: Pixel, biases: jax.Array | None
  ) -> Any:
    """What the row below takes from above.

    Args:
      params, state, biases: see `row`.
      row: this row's pixels, [W, B, F].
    """


def add(x: jax.Array, biases: jax.Array | None) -> jax.Array:
  """x + biases, x where there are none; of the wider dtype."""
  return x if biases is None else x + biases


def _append(pixel: Pixel, more: Pixel) -> Pixel:
  """Puts a group's features behind those that are known."""
  return pixel | {
      name: jnp.concatenate([pixel[name], x], -1) if name in pixel else x
      for name, x in more.items()
  }
