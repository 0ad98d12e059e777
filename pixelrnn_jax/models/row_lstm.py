"""The Row LSTM's layer (paper, section 3.1 and Figure 5, right)."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.layer import Known, Layer, add, mask_b
from pixelrnn_jax.models.parts import MaskedConvolution, Params, Recurrence


class Contribution(NamedTuple):
  """The contribution of the row above and of all biases to a row.

  Attributes:
    gates: the state-to-state map, [W, B, 4h].
    cell: the cell states of the row above, [W, B, h].
  """

  gates: Float[Array, "W B G"]
  cell: Float[Array, "W B h"]


class LeftCache(NamedTuple):
  """The pixels to the left that the input-to-state kernel reaches.

  Attributes:
    inputs: x of the P pixels side by side, [B, P 2h].
  """

  inputs: Float[Array, "B P2h"]


class RowLSTMLayer(Layer[ops.State, Contribution, LeftCache]):
  """An LSTM that takes a row at a time, top to bottom; see `ops.row_scan`.

      gates = K_is * x (+ biases)           K x 1, mask B, 2h to 4h
      f(x)  = LSTM over rows (gates)        state-to-state K x 1, no mask

  The cache holds the states of the row above, [W, B, h].

  Shapes: P = K // 2 pixels that the kernel reaches to the left; see also `layer.py`.

  Parameters, besides those of `Layer`:
    input_to_state: kernel [K, 2h, 4h], bias [4h].
    state_to_state: kernel [K, h, 4h], the learned initial states hidden and cell [h].
  """

  def __init__(self, config: ModelConfig, conditional: bool = False):
    size, hidden = config.kernel_size, config.hidden
    self.reach = size // 2
    mask = mask_b(config, (1, size), 2 * hidden, hidden, ops.GATES)
    self.input_to_state = MaskedConvolution(mask[0], config.choices)
    scan = functools.partial(
        ops.row_scan, implementation=config.implementation, choices=config.choices)
    self.state_to_state = Recurrence(scan, (size, hidden, ops.GATES * hidden))
    super().__init__(
        config, conditional, {
            "input_to_state": self.input_to_state,
            "state_to_state": self.state_to_state,
        }, self.input_to_state)

  def features(
      self,
      params: Params,
      x: Float[Array, "H W B F"],
      biases: Float[Array, "H W B G"] | None,
  ) -> Float[Array, "H W B h"]:
    gates = self.input_to_state(params["input_to_state"], x)
    return self.state_to_state(params["state_to_state"], add(gates, biases))

  def channel_weights(self, params: Params, channel: int) -> Params:
    kernel = params["input_to_state"]["kernel"] * self.input_to_state.mask
    known = groups.count_known(self.trunk, channel, self.channels)
    left = kernel[..., : self.reach, :, :]
    left = left.reshape(*left.shape[:-3], self.reach * self.trunk, kernel.shape[-1])
    centre = kernel[..., self.reach, :known, :]
    own_row = jnp.concatenate([left, centre], axis=-2)
    return {
        **super().channel_weights(params, channel),
        "own_row": {"kernel": self.select(own_row, channel, ops.GATES)},
    }

  def init_cache(self, params: Params, batch: int) -> ops.State:
    initial = params["state_to_state"]
    shape = (self.width, batch, self.hidden)
    wide = ops.at_least_float32(self.config.dtype)
    return ops.State(
        jnp.broadcast_to(initial["hidden"], shape).astype(self.config.dtype),
        jnp.broadcast_to(initial["cell"], shape).astype(wide))

  def contribution_from_above(
      self, params: Params, cache: ops.State, biases: Float[Array, "W B G"] | None
  ) -> Contribution:
    gates = ops.row_state_to_state(
        cache.hidden, params["state_to_state"]["kernel"])
    return Contribution(
        add(gates + params["input_to_state"]["bias"], biases), cache.cell)

  def init_left_cache(self, params: Params, batch: int) -> LeftCache:
    del params
    return LeftCache(jnp.zeros((batch, self.reach * self.trunk), self.config.dtype))

  def features_step(
      self,
      weights: Params,
      channel: int,
      above: Contribution,
      left: LeftCache,
      known: Known,
  ) -> Known:
    seen = jnp.concatenate([left.inputs, known["x"]], axis=-1)
    gates = self.select(above.gates, channel, ops.GATES)
    own_row = weights["own_row"]["kernel"].astype(seen.dtype)
    gates = gates + ops.product(seen, own_row)
    state = ops.lstm_cell(gates, self.select(above.cell, channel))
    return {"features": state.hidden.astype(seen.dtype), "cell": state.cell}

  def update_left_cache(self, left: LeftCache, known: Known) -> LeftCache:
    inputs = jnp.concatenate([left.inputs, known["x"]], -1)
    return LeftCache(inputs[:, self.trunk :])

  def update_cache(
      self,
      params: Params,
      cache: ops.State,
      row: Known,
      biases: Float[Array, "W B G"] | None,
  ) -> ops.State:
    del params, cache, biases
    return ops.State(row["features"], row["cell"])
