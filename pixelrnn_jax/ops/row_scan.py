"""The recurrence of the Row LSTM (paper, section 3.1).

Shapes: H height, W width, B batch, h hidden units, G = 4h gates, K kernel width.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pixelrnn_jax.ops.choices import BY_BACKEND, Choices
from pixelrnn_jax.ops.lstm import Neighbours, State, lstm_scan, product


def row_neighbours(
    row: Float[Array, "W B F"], taps: int
) -> list[Float[Array, "W B F"]]:
  """Return what each position of a row sees in the row above.

  Args:
    row: the row above, [W, B, F]. Beyond its edges there are zeros.
    taps: K.

  Returns:
    K maps [W, B, F], what the taps see from left to right.
  """
  width = len(row)
  padded = jnp.pad(row, ((taps // 2, taps // 2), (0, 0), (0, 0)))
  return [padded[j : j + width] for j in range(taps)]


def row_state_to_state(
    row: Float[Array, "W B h"], kernel: Float[Array, "K h G"]
) -> Float[Array, "W B G"]:
  """Return K_ss * h_{i-1} for a whole row, in at least float32.

  Args:
    row: h_{i-1}, [W, B, h].
    kernel: K_ss, [K, h, 4h].

  Returns:
    [W, B, 4h].
  """
  taps, units, _ = kernel.shape
  kernel = kernel.reshape(taps * units, -1).astype(row.dtype)
  return product(jnp.concatenate(row_neighbours(row, taps), axis=-1), kernel)


def row_scan(
    inputs: Float[Array, "H W B G"],
    kernel: Float[Array, "K h G"],
    hidden: Float[Array, " h"],
    cell: Float[Array, " h"],
    implementation: str = "fused",
    unroll: int = 0,
    choices: Choices = BY_BACKEND,
) -> Float[Array, "H W B h"]:
  """Run the Row LSTM over the rows of an image, top to bottom.

      [o_i, f_i, i_i, g_i] = act(K_ss * h_{i-1} + K_is * x_i)
      c_i = f_i c_{i-1} + i_i g_i
      h_i = o_i tanh(c_i)

  The convolution K_ss is K x 1 along the row and has no mask. Beyond the left and
  right edges of a row, states are zero.

  Args:
    inputs: K_is * x of the whole image with its biases, [H, W, B, 4h].
    kernel: K_ss, [K, h, 4h].
    hidden: the learned state above the first row, [h], the same at each position.
    cell: the learned cell state above the first row, [h].
    implementation: see `lstm_scan`, or `pallas`, a kernel for TPUs that nobody has
      measured yet; see `pallas_scan`.
    unroll: see `lstm_scan`.
    choices: see `lstm_scan`.

  Returns:
    h_i of all rows, [H, W, B, h], of the inputs' dtype.

  Raises:
    ValueError: the implementation is unknown, or is not made for these sizes.
  """
  if implementation == "pallas":
    from pixelrnn_jax.ops import pallas_scan  # Pallas takes long to import

    return pallas_scan.row_scan(inputs, kernel, hidden, cell)
  height, width, batch, _ = inputs.shape
  taps, units, _ = kernel.shape

  # Every row is whole, so the initial state enters only before the first row.
  def see_hidden(t, states, initial):
    del t, initial
    row = states.reshape(width, batch, -1)
    return row_neighbours(row, taps)

  def see_cell(t, states, initial):
    del t, initial
    return states

  initial = State(hidden[None], cell[None])
  start = State(*(jnp.broadcast_to(s, (width * batch, units)) for s in initial))
  states = lstm_scan(
      Neighbours(see_hidden, see_cell), inputs.reshape(height, width * batch, -1),
      kernel.reshape(taps * units, -1), initial, start, implementation, unroll,
      choices)
  return states.reshape(height, width, batch, units)
