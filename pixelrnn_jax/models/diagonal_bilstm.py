"""The Diagonal BiLSTM's layer (paper, section 3.2 and Figure 5, right)."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.layer import Known, Layer, add, mask_b
from pixelrnn_jax.models.parts import MaskedConvolution, Params, Recurrence

DIRECTIONS = 2


class Cache(NamedTuple):
  """The row above.

  Attributes:
    left_to_right: the hidden states of this direction, [W, B, h].
    right_to_left: those of the other one, mirrored: from the right edge to the left.
    shifted: the right-to-left direction's summand in f(x) of the next row, [W, B, h],
      not mirrored.
  """

  left_to_right: Float[Array, "W B h"]
  right_to_left: Float[Array, "W B h"]
  shifted: Float[Array, "W B h"]


class Contribution(NamedTuple):
  """The contribution of the row above and of all biases to a row.

  Attributes:
    gates: the left-to-right direction's product with the states above, [W, B, 4h].
    shifted: see `Cache`.
  """

  gates: Float[Array, "W B G"]
  shifted: Float[Array, "W B h"]


class DiagonalBiLSTMLayer(Layer[Cache, Contribution, ops.State]):
  """LSTMs along the diagonals from both top corners; see `ops.diagonal_scan`.

      gates      = K_is x (+ biases)        1 x 1, mask B, 2h to 4h a direction
      f(x)[r, c] = left_to_right[r, c] + right_to_left[r - 1, c]

  The right-to-left direction runs on the mirrored map, and its states are mirrored
  back. They are used one row lower, so no pixel sees those to its right in its own
  row. Each direction has its own gates, and so its own biases, at the pixel of x that
  they belong to.

  Value by value, the left-to-right direction follows the pixels. The right-to-left
  direction runs over a row when the row is complete. The left cache holds the states
  of the left-to-right direction at the pixel to the left, [B, h].

  Parameters, besides those of `Layer`:
    input_to_state: kernel [2h, 8h], bias [8h], the two directions side by side.
    state_to_state: kernel [2, 2, h, 4h] of (direction, tap: above and before), the
      learned initial states hidden and cell [2, h].
  """

  def __init__(self, config: ModelConfig, conditional: bool = False):
    hidden = config.hidden
    mask = mask_b(config, (1, 1), 2 * hidden, hidden, DIRECTIONS * ops.GATES)
    self.input_to_state = MaskedConvolution(mask[0, 0])
    scan = functools.partial(
        ops.diagonal_scan, implementation=config.implementation,
        choices=config.choices)
    self.state_to_state = Recurrence(
        scan, (2, hidden, ops.GATES * hidden), (DIRECTIONS,))
    super().__init__(
        config, conditional, {
            "input_to_state": self.input_to_state,
            "state_to_state": self.state_to_state,
        }, self.input_to_state)

  def images_per_strip(self, batch: int) -> int:
    """Return how many of the batch's images stand side by side in the skewed map.

    The default is larger on a CPU, where the amount of work limits the speed, than on
    an accelerator, where the number of steps does (`ops/choices.py`). An image that is
    higher than wide has a map of its own.

    Args:
      batch: B.
    """
    height, width, _ = self.config.image_shape
    wanted = self.config.choices.resolve().images_per_strip
    if height > width:
      return 1
    return max(n for n in range(1, wanted + 1) if batch % n == 0)

  def features(
      self,
      params: Params,
      x: Float[Array, "H W B F"],
      biases: Float[Array, "H W B G"] | None,
  ) -> Float[Array, "H W B h"]:
    images = self.images_per_strip(x.shape[2])
    width = x.shape[1] if images > 1 else None
    if biases is not None:
      biases = ops.to_strips(biases, images)
    gates = add(
        self.input_to_state(params["input_to_state"], ops.to_strips(x, images)),
        biases)
    # Skew both directions, the right-to-left one mirrored, and run them together.
    left, right = jnp.split(gates, DIRECTIONS, axis=-1)
    choices = self.config.choices
    if self.config.implementation == "autodiff":  # which allows forward mode
      choices = dataclasses.replace(choices, skew="reshape")
    with jax.named_scope("skew"):
      skewed = jnp.stack(
          [ops.skew(left, choices), ops.skew(right[:, ::-1], choices)], axis=1)
    states = self.state_to_state(params["state_to_state"], skewed, width)
    with jax.named_scope("skew"):
      left = ops.unskew(states[:, 0], choices)
      right = ops.unskew(states[:, 1], choices)[:, ::-1]
    # Shift the right-to-left states down by one row.
    y = left + jnp.pad(right, ((1, 0), (0, 0), (0, 0), (0, 0)))[:-1]
    return ops.from_strips(y, images)

  def channel_weights(self, params: Params, channel: int) -> Params:
    gates = ops.GATES * self.hidden
    inputs = params["input_to_state"]["kernel"][..., :gates]
    inputs = inputs * self.input_to_state.mask[:, :gates]
    known = groups.count_known(self.trunk, channel, self.channels)
    own_row = jnp.concatenate(
        [params["state_to_state"]["kernel"][..., 0, 1, :, :],
         inputs[..., :known, :]], axis=-2)
    return {
        **super().channel_weights(params, channel),
        "own_row": {"kernel": self.select(own_row, channel, ops.GATES)},
    }

  def init_cache(self, params: Params, batch: int) -> Cache:
    shape = (self.width, batch, self.hidden)
    initial = params["state_to_state"]["hidden"].astype(self.config.dtype)
    left, right = (jnp.broadcast_to(x, shape) for x in initial)
    return Cache(left, right, jnp.zeros(shape, self.config.dtype))

  def contribution_from_above(
      self, params: Params, cache: Cache, biases: Float[Array, "W B G"] | None
  ) -> Contribution:
    kernel = params["state_to_state"]["kernel"][0, 0]
    bias = add(params["input_to_state"]["bias"], biases)
    gates = ops.product(
        cache.left_to_right, kernel.astype(cache.left_to_right.dtype))
    return Contribution(
        gates + jnp.split(bias, DIRECTIONS, axis=-1)[0], cache.shifted)

  def init_left_cache(self, params: Params, batch: int) -> ops.State:
    return self.initial_state(params, 0, batch)

  def initial_state(
      self, params: Params, direction: int, batch: int
  ) -> ops.State:
    """Return a direction's learned states before the first pixel of a row.

    Args:
      params: the parameters of the layer.
      direction: 0 is left to right, 1 is right to left.
      batch: B.

    Returns:
      States [B, h].
    """
    initial = params["state_to_state"]
    shape = (batch, self.hidden)
    wide = ops.at_least_float32(self.config.dtype)
    return ops.State(
        jnp.broadcast_to(
            initial["hidden"][direction], shape).astype(self.config.dtype),
        jnp.broadcast_to(initial["cell"][direction], shape).astype(wide))

  def features_step(
      self,
      weights: Params,
      channel: int,
      above: Contribution,
      left: ops.State,
      known: Known,
  ) -> Known:
    seen = jnp.concatenate([left.hidden, known["x"]], axis=-1)
    gates = self.select(above.gates, channel, ops.GATES)
    own_row = weights["own_row"]["kernel"].astype(seen.dtype)
    gates = gates + ops.product(seen, own_row)
    state = ops.lstm_cell(gates, self.select(left.cell, channel))
    hidden = state.hidden.astype(seen.dtype)
    return {
        "hidden": hidden, "cell": state.cell,
        "features": hidden + self.select(above.shifted, channel),
    }

  def update_left_cache(self, left: ops.State, known: Known) -> ops.State:
    del left
    return ops.State(known["hidden"], known["cell"])

  def update_cache(
      self,
      params: Params,
      cache: Cache,
      row: Known,
      biases: Float[Array, "W B G"] | None,
  ) -> Cache:
    """Run the right-to-left direction over the finished row; see `Layer`."""
    gates = add(self.input_to_state(params["input_to_state"], row["x"]), biases)
    gates = jnp.split(gates, DIRECTIONS, axis=-1)[1][::-1]
    above, before = params["state_to_state"]["kernel"][1].astype(gates.dtype)
    # The contribution of the row above, for all pixels at once.
    gates = gates + ops.product(cache.right_to_left, above)

    def step(state, gates):
      gates = gates + ops.product(state.hidden, before)
      new = ops.lstm_cell(gates, state.cell)
      new = ops.State(new.hidden.astype(state.hidden.dtype), new.cell)
      return new, new.hidden

    start = self.initial_state(params, 1, row["x"].shape[1])
    right = lax.scan(step, start, gates)[1]
    return Cache(row["hidden"], right, right[::-1])
