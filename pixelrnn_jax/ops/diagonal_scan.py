"""The recurrence of the Diagonal BiLSTM (paper, section 3.2).

Shapes: H height, W width, T = H + W - 1 diagonals, D directions, B batch,
h hidden units.
"""

import jax
import jax.numpy as jnp
from jax import lax

from pixelrnn_jax.ops.lstm import lstm_cell


def diagonal_state_to_state(
    left: jax.Array, above: jax.Array, kernel: jax.Array
) -> jax.Array:
  """The 2 x 1 convolution down the previous diagonal.

      K_ss[0] h_above + K_ss[1] h_left

  Args:
    left: states of the left neighbours (row r of the previous diagonal),
      [D, ..., h].
    above: states of the neighbours above (row r - 1), [D, ..., h].
    kernel: [D, 2, h, 4h].

  Returns:
    [D, ..., 4h], of the wider dtype of float32 and the states'.
  """
  directions, *middle, hidden = left.shape
  states = jnp.concatenate([above, left], axis=-1)
  gates = jnp.einsum(
      "dns,dsg->dng",
      states.reshape(directions, -1, 2 * hidden),
      kernel.reshape(directions, 2 * hidden, -1).astype(left.dtype),
      preferred_element_type=jnp.promote_types(left.dtype, jnp.float32),
  )
  return gates.reshape(directions, *middle, -1)


def diagonal_scan(
    inputs: jax.Array, kernel: jax.Array, hidden: jax.Array, cell: jax.Array
) -> jax.Array:
  """Runs diagonal LSTMs over skewed maps, all directions at once.

      [o, f, i, g] = act(K_ss[0] h[r-1, c] + K_ss[1] h[r, c-1] + K_is x[r, c])
      c[r, c] = f c[r, c-1] + i g
      h[r, c] = o tanh(c[r, c])

  at t = r + c. Every state outside the image, above it or to its left, is the
  learned initial state: the offset positions of the skewed map are overwritten
  with it, so nothing computed there enters the image.

  Args:
    inputs: skewed input-to-state maps, biases included, [T, D, H, B, 4h].
    kernel: K_ss, [D, 2, h, 4h].
    hidden: the learned initial state of each direction, [D, h].
    cell: the learned initial cell state of each direction, [D, h].

  Returns:
    Hidden states in the skewed layout, [T, D, H, B, h], of the inputs' dtype;
    what stands at offset positions is to be dropped (`unskew` does).
  """
  dtype = inputs.dtype
  state_dtype = jnp.promote_types(dtype, jnp.float32)
  _, directions, height, batch, _ = inputs.shape
  shape = (directions, height, batch, hidden.shape[-1])
  hidden = jnp.broadcast_to(hidden[:, None, None].astype(dtype), shape)
  cell = jnp.broadcast_to(cell[:, None, None].astype(state_dtype), shape)
  rows = jnp.arange(height)[None, :, None, None]

  def step(carry, xs):
    t, gates = xs
    state, memory = carry
    above = jnp.concatenate([hidden[:, :1], state[:, :-1]], axis=1)
    gates = gates.astype(state_dtype) + diagonal_state_to_state(state, above, kernel)
    state, memory = lstm_cell(gates, memory)
    started = rows <= t
    state = jnp.where(started, state.astype(dtype), hidden)
    memory = jnp.where(started, memory, cell)
    return (state, memory), state

  steps = jnp.arange(inputs.shape[0])
  return lax.scan(step, (hidden, cell), (steps, inputs))[1]
