"""The recurrence of the Diagonal BiLSTM (paper, section 3.2).

Shapes: H height, W width, T = H + W - 1 diagonals, D directions, B batch,
h hidden units, G = 4h gates.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from pixelrnn_jax.ops.choices import BY_BACKEND, Choices
from pixelrnn_jax.ops.lstm import Neighbours, State, lstm_scan


def diagonal_scan(
    inputs: Float[Array, "T D H B G"],
    kernel: Float[Array, "D 2 h G"],
    hidden: Float[Array, "D h"],
    cell: Float[Array, "D h"],
    implementation: str = "fused",
    unroll: int = 0,
    width: int | None = None,
    choices: Choices = BY_BACKEND,
) -> Float[Array, "T D H B h"]:
  """Run diagonal LSTMs over skewed maps, all directions at once.

      [o, f, i, g] = act(K_ss[0] h[r-1, c] + K_ss[1] h[r, c-1] + K_is x[r, c])
      c[r, c] = f c[r, c-1] + i g
      h[r, c] = o tanh(c[r, c])

  Step t computes all pixels with r + c = t. The state-to-state convolution K_ss is
  2 x 1 down the previous diagonal. Every state above the image or to its left is the
  learned initial state.

  Args:
    inputs: the skewed input-to-state maps with their biases, [T, D, H, B, 4h].
    kernel: K_ss, [D, 2, h, 4h]. Its two taps are the pixel above and the one to the
      left.
    hidden: the learned initial state of each direction, [D, h].
    cell: the learned initial cell state of each direction, [D, h].
    implementation: see `lstm_scan`, or `pallas`, a kernel for TPUs that nobody has
      measured yet; see `pallas_scan`.
    unroll: see `lstm_scan`.
    width: W, where each row of the map holds n images side by side. Then
      T = H + n W - 1, and W is at least H. None means one image.
    choices: see `lstm_scan`.

  Returns:
    The hidden states in the skewed layout, [T, D, H, B, h], of the inputs' dtype.
    Positions outside the image hold arbitrary values; `unskew` drops them.

  Raises:
    ValueError: the width is not that of images side by side, or the implementation
      is unknown or is not made for these sizes.
  """
  steps, directions, height, batch, _ = inputs.shape
  units = hidden.shape[-1]
  shape = (directions, height, batch, units)
  if width is None:
    period = steps
  elif width >= height and (steps - height + 1) % width == 0:
    period = width
  else:
    raise ValueError(
        f"width={width}: rows of {steps - height + 1} are not whole images side by"
        f" side, or the width is less than the height, {height}. Use a divisor of"
        " the row's length that is at least the height, or None for one image."
    )
  if implementation == "pallas":
    from pixelrnn_jax.ops import pallas_scan  # Pallas takes long to import

    return pallas_scan.diagonal_scan(inputs, kernel, hidden, cell, period)
  flat = (directions, height * batch, -1)
  see_above, see_left, copies = _above, _left_by_slices, (1, 1)
  seen = (directions, height, batch, -1)
  if choices.resolve().row_start == "select":
    # Each position has a copy of the initial state, so that the gradients of the copies
    # are summed up after the scan.
    see_above, see_left = _above_by_selection, _left_by_selection
    copies = (height, batch)
    # Flatten the maps before they are put side by side. The programs of accelerators
    # have fewer copies so, a CPU's is slower.
    seen = flat
  initial = State(*(
      jnp.broadcast_to(s[:, None], (directions, math.prod(copies), units))
      for s in (hidden, cell)))

  def maps(states, initial):
    return (
        states.reshape(directions, height, batch, -1),
        initial.reshape(directions, *copies, -1))

  def see_hidden(t, states, initial):
    both = maps(states, initial)
    return [x.reshape(seen) for x in (see_above(*both), see_left(t % period, *both))]

  def see_cell(t, states, initial):
    return see_left(t % period, *maps(states, initial)).reshape(flat)

  zeros = jnp.zeros((directions, height * batch, units), inputs.dtype)
  states = lstm_scan(
      Neighbours(see_hidden, see_cell), inputs.reshape(steps, *flat),
      kernel.reshape(directions, 2 * units, -1), initial, State(zeros, zeros),
      implementation, unroll, choices)
  return states.reshape(steps, *shape)


# What the pixels of a diagonal see of a map of the diagonal before, [D, H, B, F]: above
# and to the left. t is counted from where row 0 started. Row r starts at step t = r.
# From t = H on no row starts. Rows that have not started hold arbitrary values. They
# are never read, because a row reads only itself and the row above, which started one
# step earlier.
#
# There are two ways to put the initial states in: as slices, from [D, 1, 1, F], or by a
# selection, from [D, H, B, F].


def _above(
    states: Float[Array, "D H B F"], initial: Float[Array, "D 1 1 F"]
) -> Float[Array, "D H B F"]:
  """Return what the pixels see above, with the initial state above row 0."""
  directions, _, batch, features = states.shape
  top = jnp.broadcast_to(initial, (directions, 1, batch, features))
  return jnp.concatenate([top, states[:, :-1]], axis=1)


def _above_by_selection(
    states: Float[Array, "D H B F"], initial: Float[Array, "D H B F"]
) -> Float[Array, "D H B F"]:
  """Return what the pixels see above; row 0 selects the initial state."""
  # Move the rows down by one, and drop the last one.
  zero = jnp.zeros((), states.dtype)
  above = lax.pad(states, zero, ((0, 0, 0), (1, -1, 0), (0, 0, 0), (0, 0, 0)))
  return jnp.where(_row_numbers(states) == 0, initial, above)


def _left_by_slices(
    t: Int[Array, ""],
    states: Float[Array, "D H B F"],
    initial: Float[Array, "D 1 1 F"],
) -> Float[Array, "D H B F"]:
  """Return what the pixels see to the left; the row that starts is replaced.

  Args:
    t: the step, counted from where row 0 started. From H on no row starts.
    states: the states of the step before.
    initial: the initial state.
  """
  row = jnp.minimum(t, states.shape[1] - 1)
  old = lax.dynamic_index_in_dim(states, row, axis=1)
  new = jnp.where(t == row, initial, old)
  return lax.dynamic_update_index_in_dim(states, new, row, axis=1)


def _left_by_selection(
    t: Int[Array, ""],
    states: Float[Array, "D H B F"],
    initial: Float[Array, "D H B F"],
) -> Float[Array, "D H B F"]:
  """Return what the pixels see to the left; the row that starts selects `initial`."""
  return jnp.where(_row_numbers(states) == t, initial, states)


def _row_numbers(states: Float[Array, "D H B F"]) -> Int[np.ndarray, "D H B F"]:
  """Return the number of each position's row.

  As a constant of the full shape, the rows are compared where they are selected. Of an
  iota XLA compares a small one in kernels of its own, at each step.
  """
  rows = np.arange(states.shape[1], dtype=np.int32)
  return np.broadcast_to(rows[None, :, None, None], states.shape)
