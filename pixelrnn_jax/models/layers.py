"""The residual layers of the three models (paper, section 3 and Table 1).

A layer maps the trunk's 2h features to a map of h features; 1x1 convolutions
(mask B) bring that back to the 2h of the trunk and, with skip connections, to
the head:

    y    = W_up f(x) (+ x with residual connections)
    skip = W_skip f(x)

Each class holds the masks of its kind, says how its parameters start, and
applies one layer's parameters to a whole image. Maps are [H, W, B, F].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax import ops
from pixelrnn_jax.config import ModelConfig
from pixelrnn_jax.models.parameters import Init, masked_layer, recurrence


class Layer:
  """What the three kinds share: the connections around f(x)."""

  def __init__(self, config: ModelConfig):
    self.config = config
    self.hidden = config.hidden
    self.trunk = 2 * config.hidden

  def mask(
      self, kernel_shape: tuple[int, int], features: int, outputs: int,
      blocks: int = 1,
  ) -> np.ndarray:
    """Mask B, see `ops.conv_mask`."""
    channels = self.config.image_shape[2]
    return ops.conv_mask("B", kernel_shape, features, outputs, channels, blocks)

  @functools.cached_property
  def up_mask(self) -> np.ndarray:
    return self.mask((1, 1), self.hidden, self.trunk)[0, 0]

  def inits(self) -> dict[str, Init]:
    """Initialisers of one layer's parameters, by name."""
    inits = {"up": masked_layer(self.up_mask)}
    if self.config.skip:
      inits["skip"] = masked_layer(self.up_mask)
    return inits

  def features(self, params: dict, x: jax.Array) -> jax.Array:
    """f(x): [H, W, B, 2h] to [H, W, B, h]."""
    raise TypeError(f"{type(self).__name__} must define features().")

  def __call__(self, params: dict, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """(y, skip) of a whole map [H, W, B, 2h]; skip is None without skips."""
    features = self.features(params, x)
    return self.connect(params, x, features)

  def connect(
      self, params: dict, x: jax.Array, features: jax.Array
  ) -> tuple[jax.Array, jax.Array | None]:
    """(y, skip) from the layer's input x [..., 2h] and f(x) [..., h]."""
    y = ops.masked_dense(features, **params["up"], mask=self.up_mask)
    if self.config.residual:
      y = y + x
    if not self.config.skip:
      return y, None
    return y, ops.masked_dense(features, **params["skip"], mask=self.up_mask)


class PixelCNNLayer(Layer):
  """The PixelCNN's block (paper, section 3.5 and Figure 5, left).

      f(x) = ReLU(K x K * ReLU(1x1 ReLU(x)))

  2h to h by 1x1, h to h by K x K, all with mask B.
  """

  @functools.cached_property
  def down_mask(self) -> np.ndarray:
    return self.mask((1, 1), self.trunk, self.hidden)[0, 0]

  @functools.cached_property
  def conv_mask(self) -> np.ndarray:
    size = self.config.kernel_size
    return self.mask((size, size), self.hidden, self.hidden)

  def inits(self) -> dict[str, Init]:
    return super().inits() | {
        "down": masked_layer(self.down_mask), "conv": masked_layer(self.conv_mask)}

  def features(self, params: dict, x: jax.Array) -> jax.Array:
    y = ops.masked_dense(jax.nn.relu(x), **params["down"], mask=self.down_mask)
    y = ops.masked_conv2d(jax.nn.relu(y), **params["conv"], mask=self.conv_mask)
    return jax.nn.relu(y)


class RowLSTMLayer(Layer):
  """The Row LSTM (paper, section 3.1); see `ops.row_scan`."""

  @functools.cached_property
  def input_mask(self) -> np.ndarray:
    size = self.config.kernel_size
    return self.mask((1, size), self.trunk, self.hidden, ops.GATES)[0]

  def inits(self) -> dict[str, Init]:
    shape = (self.config.kernel_size, self.hidden, ops.GATES * self.hidden)
    return super().inits() | {
        "input_to_state": masked_layer(self.input_mask),
        "state_to_state": recurrence(shape, ()),
    }

  def features(self, params: dict, x: jax.Array) -> jax.Array:
    gates = ops.masked_conv1d(x, **params["input_to_state"], mask=self.input_mask)
    return ops.row_scan(gates, **params["state_to_state"])


class DiagonalBiLSTMLayer(Layer):
  """The Diagonal BiLSTM (paper, section 3.2); see `ops.diagonal_scan`.

      f(x)[r, c] = left_to_right[r, c] + right_to_left[r - 1, c]

  The right-to-left states are those of the mirrored map, mirrored back; they are
  used one row lower, so that no pixel sees those to its right in its own row.
  """

  DIRECTIONS = 2

  @functools.cached_property
  def input_mask(self) -> np.ndarray:
    blocks = self.DIRECTIONS * ops.GATES
    return self.mask((1, 1), self.trunk, self.hidden, blocks)[0, 0]

  def inits(self) -> dict[str, Init]:
    shape = (2, self.hidden, ops.GATES * self.hidden)
    return super().inits() | {
        "input_to_state": masked_layer(self.input_mask),
        "state_to_state": recurrence(shape, (self.DIRECTIONS,)),
    }

  def features(self, params: dict, x: jax.Array) -> jax.Array:
    gates = ops.masked_dense(x, **params["input_to_state"], mask=self.input_mask)
    left, right = jnp.split(gates, self.DIRECTIONS, axis=-1)
    skewed = jnp.stack([ops.skew(left), ops.skew(right[:, ::-1])], axis=1)
    states = ops.diagonal_scan(skewed, **params["state_to_state"])
    left = ops.unskew(states[:, 0])
    right = ops.unskew(states[:, 1])[:, ::-1]
    return left + jnp.pad(right, ((1, 0), (0, 0), (0, 0), (0, 0)))[:-1]


LAYERS = {
    "pixel_cnn": PixelCNNLayer,
    "row_lstm": RowLSTMLayer,
    "diagonal_bilstm": DiagonalBiLSTMLayer,
}
