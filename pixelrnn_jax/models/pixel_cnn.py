"""The PixelCNN's layer (paper, section 3.5 and Figure 5, left)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax import ops
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.layer import Layer, Pixel, add


class PixelCNNLayer(Layer):
  """A residual block of convolutions.

      d(x) = ReLU(W_down ReLU(x))           1x1, 2h to h
      f(x) = ReLU(K_conv * d(x) (+ biases)) K x K, h to h

  both with mask B. K_conv stands for the LSTMs' input-to-state convolution, so that
  is where the biases go, which the paper leaves open. Value by value, the rows of d
  above that the kernel reaches and the p positions to the left are kept.
  """

  conditioned = "conv"

  @functools.cached_property
  def masks(self) -> dict[str, np.ndarray]:
    size = self.config.kernel_size
    return super().masks | {
        "down": self.mask((1, 1), self.trunk, self.hidden)[0, 0],
        "conv": self.mask((size, size), self.hidden, self.hidden),
    }

  @property
  def reach(self) -> int:
    return self.config.kernel_size // 2

  def features(
      self, params: dict, x: jax.Array, biases: jax.Array | None
  ) -> jax.Array:
    y = jax.nn.relu(self.dense(params, "down", jax.nn.relu(x)))
    y = ops.masked_conv2d(y, **params["conv"], mask=self.masks["conv"])
    return jax.nn.relu(add(y, biases))

  def channel_params(self, params: dict, channel: int) -> dict:
    conv = params["conv"]["kernel"] * self.masks["conv"]
    centre = conv[..., self.reach, self.reach, :, :]
    known = groups.known(self.hidden, channel, self.channels)
    left = conv[..., self.reach, : self.reach, :, :]
    left = left.reshape(*left.shape[:-3], self.reach * self.hidden, self.hidden)
    own_row = jnp.concatenate([left, centre[..., :known, :]], axis=-2)
    return super().channel_params(params, channel) | {
        "down": groups.cut(
            params["down"], self.masks["down"], channel, self.channels),
        "own_row": self.own(own_row, channel),
    }

  def start(self, params: dict, batch: int) -> jax.Array:
    del params
    shape = (self.reach, self.width, batch, self.hidden)
    return jnp.zeros(shape, self.config.dtype)

  def row(self, params: dict, state: jax.Array, biases) -> jax.Array:
    above = ops.rows_above(state, **params["conv"], mask=self.masks["conv"])
    return add(above, biases)

  def start_row(self, params: dict, batch: int) -> jax.Array:
    del params
    return jnp.zeros((batch, self.reach * self.hidden), self.config.dtype)

  def new(self, params, channel, above, left, pixel: Pixel) -> Pixel:
    x = pixel["x"]
    group = jax.nn.relu(groups.dense(params["down"], jax.nn.relu(x)))
    known = [pixel["down"], group] if "down" in pixel else [group]
    seen = jnp.concatenate([left, *known], axis=-1)
    y = self.own(above, channel) + seen @ params["own_row"].astype(x.dtype)
    return {"down": group, "features": jax.nn.relu(y)}

  def next_pixel(self, left: jax.Array, pixel: Pixel) -> jax.Array:
    return jnp.concatenate([left, pixel["down"]], -1)[:, self.hidden :]

  def next_row(self, params, state: jax.Array, row: Pixel, biases) -> jax.Array:
    return jnp.concatenate([state, row["down"][None]])[1:]
