"""The Diagonal BiLSTM's layer (paper, section 3.2)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pixelrnn_jax import ops
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.layer import Layer, Pixel, add
from pixelrnn_jax.models.parameters import Init, recurrence

DIRECTIONS = 2
# Side by side, 8 of 16 images made a layer 1.3 (h = 128) to 2 (h = 16) times
# faster on 2 CPU cores; more of them gained nothing.
STRIP = 8


class Above(NamedTuple):
  """The row above, [W, B, h], `right` from the right edge to the left.

  Attributes:
    left: hidden states of the left-to-right direction.
    right: hidden states of the right-to-left direction, mirrored.
    output: what that direction adds to f(x) of this row, not mirrored.
  """

  left: jax.Array
  right: jax.Array
  output: jax.Array


class DiagonalBiLSTMLayer(Layer):
  """Along the diagonals from both top corners; see `ops.diagonal_scan`.

      gates      = K_is x (+ biases)        1x1, mask B, 2h to 4h a direction
      f(x)[r, c] = left_to_right[r, c] + right_to_left[r - 1, c]

  The right-to-left states are those of the mirrored map, mirrored back; they are
  used one row lower, so that no pixel sees those to its right in its own row. Each
  direction has its own biases, where it has its own gates: at the pixel of x that
  they are of.

  Value by value, the left-to-right direction goes along with the pixels; the
  other one runs over a whole row when the row is complete.
  """

  conditioned = "input_to_state"

  @functools.cached_property
  def masks(self) -> dict[str, np.ndarray]:
    blocks = DIRECTIONS * ops.GATES
    mask = self.mask((1, 1), self.trunk, self.hidden, blocks)
    return super().masks | {"input_to_state": mask[0, 0]}

  def inits(self) -> dict[str, Init]:
    shape = (2, self.hidden, ops.GATES * self.hidden)
    return super().inits() | {"state_to_state": recurrence(shape, (DIRECTIONS,))}

  def images_per_strip(self, batch: int) -> int:
    """How many of the batch's images stand side by side in the skewed map.

    On a CPU up to `STRIP`, as work is the limit there; elsewhere, where the
    number of steps is, one. Images higher than wide have a map of their own.
    """
    height, width, _ = self.config.image_shape
    wanted = self.config.images_per_strip
    if not wanted:
      wanted = STRIP if jax.default_backend() == "cpu" else 1
    if height > width:
      return 1
    return max(n for n in range(1, wanted + 1) if batch % n == 0)

  def features(
      self, params: dict, x: jax.Array, biases: jax.Array | None
  ) -> jax.Array:
    images = self.images_per_strip(x.shape[2])
    width = x.shape[1] if images > 1 else None
    if biases is not None:
      biases = ops.to_strips(biases, images)
    gates = add(self.dense(params, "input_to_state", ops.to_strips(x, images)), biases)
    left, right = jnp.split(gates, DIRECTIONS, axis=-1)
    skewed = jnp.stack([ops.skew(left), ops.skew(right[:, ::-1])], axis=1)
    states = ops.diagonal_scan(
        skewed, **params["state_to_state"], width=width,
        implementation=self.config.implementation, unroll=self.config.unroll)
    left = ops.unskew(states[:, 0])
    right = ops.unskew(states[:, 1])[:, ::-1]
    y = left + jnp.pad(right, ((1, 0), (0, 0), (0, 0), (0, 0)))[:-1]
    return ops.from_strips(y, images)

  def channel_params(self, params: dict, channel: int) -> dict:
    gates = ops.GATES * self.hidden
    inputs = params["input_to_state"]["kernel"][..., :gates]
    inputs = inputs * self.masks["input_to_state"][:, :gates]
    known = groups.known(self.trunk, channel, self.channels)
    own_row = jnp.concatenate(
        [params["state_to_state"]["kernel"][..., 0, 1, :, :],
         inputs[..., :known, :]], axis=-2)
    return super().channel_params(params, channel) | {
        "own_row": self.own(own_row, channel, ops.GATES)}

  def start(self, params: dict, batch: int) -> Above:
    shape = (self.width, batch, self.hidden)
    initial = params["state_to_state"]["hidden"].astype(self.config.dtype)
    left, right = (jnp.broadcast_to(x, shape) for x in initial)
    return Above(left, right, jnp.zeros(shape, self.config.dtype))

  def row(self, params, state: Above, biases) -> tuple[jax.Array, jax.Array]:
    kernel = params["state_to_state"]["kernel"][0, 0]
    bias = add(params["input_to_state"]["bias"], biases)
    gates = ops.product(state.left, kernel.astype(state.left.dtype))
    return gates + jnp.split(bias, DIRECTIONS, axis=-1)[0], state.output

  def start_row(self, params: dict, batch: int) -> ops.State:
    return self.edge(params, 0, batch)

  def edge(self, params: dict, direction: int, batch: int) -> ops.State:
    """The learned states before the first pixel of a row."""
    initial = params["state_to_state"]
    shape = (batch, self.hidden)
    wide = jnp.promote_types(self.config.dtype, jnp.float32)
    return ops.State(
        jnp.broadcast_to(
            initial["hidden"][direction], shape).astype(self.config.dtype),
        jnp.broadcast_to(initial["cell"][direction], shape).astype(wide))

  def new(self, params, channel, above, left, pixel: Pixel) -> Pixel:
    gates, output = above
    seen = jnp.concatenate([left.hidden, pixel["x"]], axis=-1)
    gates = self.own(gates, channel, ops.GATES) + ops.product(
        seen, params["own_row"].astype(seen.dtype))
    state = ops.lstm_cell(gates, self.own(left.cell, channel))
    hidden = state.hidden.astype(seen.dtype)
    return {
        "hidden": hidden, "cell": state.cell,
        "features": hidden + self.own(output, channel),
    }

  def next_pixel(self, left: ops.State, pixel: Pixel) -> ops.State:
    return ops.State(pixel["hidden"], pixel["cell"])

  def next_row(self, params, state: Above, row: Pixel, biases) -> Above:
    """Runs the right-to-left direction over the finished row."""
    gates = add(self.dense(params, "input_to_state", row["x"]), biases)
    gates = jnp.split(gates, DIRECTIONS, axis=-1)[1][::-1]
    above, before = params["state_to_state"]["kernel"][1].astype(gates.dtype)
    gates = gates + ops.product(state.right, above)

    def step(state, gates):
      gates = gates + ops.product(state.hidden, before)
      new = ops.lstm_cell(gates, state.cell)
      new = ops.State(new.hidden.astype(state.hidden.dtype), new.cell)
      return new, new.hidden

    edge = self.edge(params, 1, row["x"].shape[1])
    right = lax.scan(step, edge, gates)[1]
    return Above(row["hidden"], right, right[::-1])
