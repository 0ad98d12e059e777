"""The recurrence of the Row LSTM (paper, section 3.1).

Shapes: H height, W width, B batch, h hidden units, K kernel width.
"""

import jax
import jax.numpy as jnp
from jax import lax

from pixelrnn_jax.ops.lstm import lstm_cell


def row_state_to_state(state: jax.Array, kernel: jax.Array) -> jax.Array:
  """K_ss * h_{i-1}: the K x 1 convolution along a row, without a mask.

  Args:
    state: [W, B, h].
    kernel: [K, h, 4h].

  Returns:
    [W, B, 4h], of the wider dtype of float32 and state's.
  """
  width, hidden = state.shape[0], state.shape[-1]
  size = kernel.shape[0]
  padded = jnp.pad(state, ((size // 2, size // 2), (0, 0), (0, 0)))
  taps = jnp.concatenate([padded[j : j + width] for j in range(size)], axis=-1)
  return jnp.dot(
      taps,
      kernel.reshape(size * hidden, -1).astype(state.dtype),
      preferred_element_type=jnp.promote_types(state.dtype, jnp.float32),
  )


def row_scan(
    inputs: jax.Array, kernel: jax.Array, hidden: jax.Array, cell: jax.Array
) -> jax.Array:
  """Runs the Row LSTM over the rows of an image, top to bottom.

      [o_i, f_i, i_i, g_i] = act(K_ss * h_{i-1} + K_is * x_i)
      c_i = f_i c_{i-1} + i_i g_i
      h_i = o_i tanh(c_i)

  Args:
    inputs: K_is * x of the whole image, biases included, [H, W, B, 4h].
    kernel: K_ss, [K, h, 4h].
    hidden: the learned state above the first row, [h], the same at each
      position. Beyond the left and right edges of a row the state is zero.
    cell: the learned cell state above the first row, [h].

  Returns:
    h_i of all rows, [H, W, B, h], of the inputs' dtype. Cell states are at
    least float32.
  """
  dtype = inputs.dtype
  state_dtype = jnp.promote_types(dtype, jnp.float32)
  shape = (*inputs.shape[1:-1], hidden.shape[-1])

  def step(carry, row):
    state, cell = carry
    gates = row.astype(state_dtype) + row_state_to_state(state, kernel)
    state, cell = lstm_cell(gates, cell)
    state = state.astype(dtype)
    return (state, cell), state

  start = (
      jnp.broadcast_to(hidden.astype(dtype), shape),
      jnp.broadcast_to(cell.astype(state_dtype), shape),
  )
  return lax.scan(step, start, inputs)[1]
