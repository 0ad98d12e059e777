"""The PixelCNN's layer (paper, section 3.5 and Figure 5, left)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.layer import Known, Layer, add, mask_b
from pixelrnn_jax.models.parts import MaskedConvolution, Params


class Cache(NamedTuple):
  """The rows above that the kernel reaches.

  Attributes:
    rows: d(x) of the P rows, [P, W, B, h].
  """

  rows: Float[Array, "P W B h"]


class Contribution(NamedTuple):
  """The convolution's sum over the rows above, with all biases.

  Attributes:
    conv: [W, B, h].
  """

  conv: Float[Array, "W B h"]


class LeftCache(NamedTuple):
  """The pixels to the left that the kernel reaches.

  Attributes:
    pixels: d(x) of the P pixels side by side, [B, P h].
  """

  pixels: Float[Array, "B Ph"]


class PixelCNNLayer(Layer[Cache, Contribution, LeftCache]):
  """A residual block of convolutions.

      d(x) = ReLU(W_down ReLU(x))              1 x 1, mask B, 2h to h
      f(x) = ReLU(K_conv * d(x) (+ biases))    K x K, mask B, h to h

  The paper does not say where a PixelCNN takes the biases of a condition. K_conv
  stands in the place of the LSTMs' input-to-state convolution, so they are added to
  its output.

  Shapes: P = K // 2 rows or pixels that the kernel reaches; see also `layer.py`.

  Parameters, besides those of `Layer`:
    down: kernel [2h, h], bias [h].
    conv: kernel [K, K, h, h], bias [h].
  """

  def __init__(self, config: ModelConfig, conditional: bool = False):
    size, hidden = config.kernel_size, config.hidden
    self.reach = size // 2
    self.down = MaskedConvolution(mask_b(config, (1, 1), 2 * hidden, hidden)[0, 0])
    self.conv = MaskedConvolution(
        mask_b(config, (size, size), hidden, hidden), config.choices)
    super().__init__(
        config, conditional, {"down": self.down, "conv": self.conv}, self.conv)

  def features(
      self,
      params: Params,
      x: Float[Array, "H W B F"],
      biases: Float[Array, "H W B h"] | None,
  ) -> Float[Array, "H W B h"]:
    y = jax.nn.relu(self.down(params["down"], jax.nn.relu(x)))
    return jax.nn.relu(add(self.conv(params["conv"], y), biases))

  def channel_weights(self, params: Params, channel: int) -> Params:
    conv = params["conv"]["kernel"] * self.conv.mask
    centre = conv[..., self.reach, self.reach, :, :]
    known = groups.count_known(self.hidden, channel, self.channels)
    left = conv[..., self.reach, : self.reach, :, :]
    left = left.reshape(*left.shape[:-3], self.reach * self.hidden, self.hidden)
    own_row = jnp.concatenate([left, centre[..., :known, :]], axis=-2)
    return {
        **super().channel_weights(params, channel),
        "down": groups.cut(params["down"], self.down.mask, channel, self.channels),
        "own_row": {"kernel": self.select(own_row, channel)},
    }

  def init_cache(self, params: Params, batch: int) -> Cache:
    del params
    shape = (self.reach, self.width, batch, self.hidden)
    return Cache(jnp.zeros(shape, self.config.dtype))

  def contribution_from_above(
      self, params: Params, cache: Cache, biases: Float[Array, "W B h"] | None
  ) -> Contribution:
    above = ops.rows_above(cache.rows, **params["conv"], mask=self.conv.mask)
    return Contribution(add(above, biases))

  def init_left_cache(self, params: Params, batch: int) -> LeftCache:
    del params
    return LeftCache(
        jnp.zeros((batch, self.reach * self.hidden), self.config.dtype))

  def features_step(
      self,
      weights: Params,
      channel: int,
      above: Contribution,
      left: LeftCache,
      known: Known,
  ) -> Known:
    x = known["x"]
    group = jax.nn.relu(groups.dense(weights["down"], jax.nn.relu(x)))
    here = [known["down"], group] if "down" in known else [group]
    seen = jnp.concatenate([left.pixels, *here], axis=-1)
    y = self.select(above.conv, channel)
    own_row = weights["own_row"]["kernel"].astype(x.dtype)
    return {"down": group, "features": jax.nn.relu(y + seen @ own_row)}

  def update_left_cache(self, left: LeftCache, known: Known) -> LeftCache:
    pixels = jnp.concatenate([left.pixels, known["down"]], -1)
    return LeftCache(pixels[:, self.hidden :])

  def update_cache(
      self,
      params: Params,
      cache: Cache,
      row: Known,
      biases: Float[Array, "W B h"] | None,
  ) -> Cache:
    del params, biases
    return Cache(jnp.concatenate([cache.rows, row["down"][None]])[1:])
