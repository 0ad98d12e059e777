"""The recurrence of the Row LSTM (paper, section 3.1).

Shapes: H height, W width, B batch, h hidden units, K kernel width.
"""

import jax
import jax.numpy as jnp

from pixelrnn_jax.ops.lstm import State, lstm_scan, product


def row_neighbours(row: jax.Array, taps: int) -> jax.Array:
  """The states that each position of a row sees in the row above.

  Args:
    row: states of the row above, [W, B, h].
    taps: K; beyond the edges the states are zero.

  Returns:
    [W, B, K h], from left to right.
  """
  width = len(row)
  padded = jnp.pad(row, ((taps // 2, taps // 2), (0, 0), (0, 0)))
  return jnp.concatenate([padded[j : j + width] for j in range(taps)], axis=-1)


def row_state_to_state(row: jax.Array, kernel: jax.Array) -> jax.Array:
  """K_ss * h_{i-1} of a whole row: [W, B, h] and [K, h, 4h] to [W, B, 4h]."""
  taps, units, _ = kernel.shape
  kernel = kernel.reshape(taps * units, -1).astype(row.dtype)
  return product(row_neighbours(row, taps), kernel)


def row_scan(
    inputs: jax.Array, kernel: jax.Array, hidden: jax.Array, cell: jax.Array,
    implementation: str = "fused", unroll: int = 1,
) -> jax.Array:
  """Runs the Row LSTM over the rows of an image, top to bottom.

      [o_i, f_i, i_i, g_i] = act(K_ss * h_{i-1} + K_is * x_i)
      c_i = f_i c_{i-1} + i_i g_i
      h_i = o_i tanh(c_i)

  The convolution K_ss is K x 1 along the row and has no mask.

  Args:
    inputs: K_is * x of the whole image, biases included, [H, W, B, 4h].
    kernel: K_ss, [K, h, 4h].
    hidden: the learned state above the first row, [h], the same at each
      position. Beyond the left and right edges of a row the state is zero.
    cell: the learned cell state above the first row, [h].
    implementation, unroll: see `lstm_scan`.

  Returns:
    h_i of all rows, [H, W, B, h], of the inputs' dtype.
  """
  height, width, batch, _ = inputs.shape
  taps, units, _ = kernel.shape

  def neighbours(t, state, initial):
    del t, initial  # every row is whole: the initial state enters at the start
    row = state.hidden.reshape(width, batch, units)
    seen = row_neighbours(row, taps)
    return seen.reshape(width * batch, taps * units), state.cell

  initial = State(hidden, cell)
  start = State(*(jnp.broadcast_to(s, (width * batch, units)) for s in initial))
  states = lstm_scan(
      neighbours, inputs.reshape(height, width * batch, -1),
      kernel.reshape(taps * units, -1), initial, start, implementation, unroll)
  return states.reshape(height, width, batch, units)
