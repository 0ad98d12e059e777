"""The Row LSTM's layer (paper, section 3.1)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax import ops
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.layer import Layer, Pixel, add
from pixelrnn_jax.models.parameters import Init, recurrence


class RowLSTMLayer(Layer):
  """A row at a time, top to bottom; see `ops.row_scan`.

      gates = K_is * x (+ biases)           K x 1, mask B, 2h to 4h
      f(x)  = LSTM over rows (gates)        state-to-state K x 1, no mask

  Value by value, the states of the row above give their part for a whole row at
  once; in the row, the p inputs to the left are kept.
  """

  conditioned = "input_to_state"

  @functools.cached_property
  def masks(self) -> dict[str, np.ndarray]:
    shape = (1, self.config.kernel_size)
    mask = self.mask(shape, self.trunk, self.hidden, ops.GATES)
    return super().masks | {"input_to_state": mask[0]}

  @property
  def reach(self) -> int:
    return self.config.kernel_size // 2

  def inits(self) -> dict[str, Init]:
    shape = (self.config.kernel_size, self.hidden, ops.GATES * self.hidden)
    return super().inits() | {"state_to_state": recurrence(shape, ())}

  def features(
      self, params: dict, x: jax.Array, biases: jax.Array | None
  ) -> jax.Array:
    gates = ops.masked_conv1d(
        x, **params["input_to_state"], mask=self.masks["input_to_state"])
    return ops.row_scan(
        add(gates, biases), **params["state_to_state"],
        implementation=self.config.implementation, unroll=self.config.unroll)

  def channel_params(self, params: dict, channel: int) -> dict:
    kernel = params["input_to_state"]["kernel"] * self.masks["input_to_state"]
    known = groups.known(self.trunk, channel, self.channels)
    left = kernel[..., : self.reach, :, :]
    left = left.reshape(*left.shape[:-3], self.reach * self.trunk, kernel.shape[-1])
    centre = kernel[..., self.reach, :known, :]
    own_row = jnp.concatenate([left, centre], axis=-2)
    return super().channel_params(params, channel) | {
        "own_row": self.own(own_row, channel, ops.GATES)}

  def start(self, params: dict, batch: int) -> ops.State:
    initial = params["state_to_state"]
    shape = (self.width, batch, self.hidden)
    wide = jnp.promote_types(self.config.dtype, jnp.float32)
    return ops.State(
        jnp.broadcast_to(initial["hidden"], shape).astype(self.config.dtype),
        jnp.broadcast_to(initial["cell"], shape).astype(wide))

  def row(self, params, state: ops.State, biases) -> tuple[jax.Array, jax.Array]:
    gates = ops.row_state_to_state(
        state.hidden, params["state_to_state"]["kernel"])
    return add(gates + params["input_to_state"]["bias"], biases), state.cell

  def start_row(self, params: dict, batch: int) -> jax.Array:
    del params
    return jnp.zeros((batch, self.reach * self.trunk), self.config.dtype)

  def new(self, params, channel, above, left, pixel: Pixel) -> Pixel:
    gates, cell = above
    seen = jnp.concatenate([left, pixel["x"]], axis=-1)
    gates = self.own(gates, channel, ops.GATES) + ops.product(
        seen, params["own_row"].astype(seen.dtype))
    state = ops.lstm_cell(gates, self.own(cell, channel))
    return {"features": state.hidden.astype(seen.dtype), "cell": state.cell}

  def next_pixel(self, left: jax.Array, pixel: Pixel) -> jax.Array:
    return jnp.concatenate([left, pixel["x"]], -1)[:, self.trunk :]

  def next_row(self, params, state: ops.State, row: Pixel, biases) -> ops.State:
    return ops.State(row["features"], row["cell"])
