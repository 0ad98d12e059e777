"""The recurrence of the Diagonal BiLSTM (paper, section 3.2).

Shapes: H height, W width, T = H + W - 1 diagonals, D directions, B batch,
h hidden units.
"""

import jax
import jax.numpy as jnp
from jax import lax

from pixelrnn_jax.ops.lstm import State, lstm_scan


def diagonal_scan(
    inputs: jax.Array, kernel: jax.Array, hidden: jax.Array, cell: jax.Array,
    implementation: str = "fused", unroll: int = 1, width: int | None = None,
) -> jax.Array:
  """Runs diagonal LSTMs over skewed maps, all directions at once.

      [o, f, i, g] = act(K_ss[0] h[r-1, c] + K_ss[1] h[r, c-1] + K_is x[r, c])
      c[r, c] = f c[r, c-1] + i g
      h[r, c] = o tanh(c[r, c])

  at step t = r + c: a 2 x 1 convolution down the previous diagonal. Every state
  outside the image, above it or to its left, is the learned initial state; what
  the scan computes at offset positions of the skewed map is never read.

  Args:
    inputs: skewed input-to-state maps, biases included, [T, D, H, B, 4h].
    kernel: K_ss, [D, 2, h, 4h].
    hidden: the learned initial state of each direction, [D, h].
    cell: the learned initial cell state of each direction, [D, h].
    implementation, unroll: see `lstm_scan`.
    width: W of an image, where the maps hold several side by side in each row:
      T = H + n W - 1, and W at least H. By default each row is one image.

  Returns:
    Hidden states in the skewed layout, [T, D, H, B, h], of the inputs' dtype;
    what stands at offset positions is to be dropped (`unskew` does).

  Raises:
    ValueError: a width that is not that of images side by side.
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
  flat = (directions, height * batch, -1)

  def neighbours(t, state, initial):
    before = State(*(s.reshape(shape) for s in state))
    left, memory = (
        _start_row(s, t % period, i) for s, i in zip(before, initial, strict=True))
    top = jnp.broadcast_to(
        initial.hidden[:, None, None], (directions, 1, batch, units))
    above = jnp.concatenate([top, before.hidden[:, :-1]], axis=1)
    seen = jnp.concatenate([above, left], axis=-1)
    return seen.reshape(flat), memory.reshape(flat)

  initial = State(hidden, cell)
  zeros = jnp.zeros((directions, height * batch, units), inputs.dtype)
  states = lstm_scan(
      neighbours, inputs.reshape(steps, *flat),
      kernel.reshape(directions, 2 * units, -1), initial, State(zeros, zeros),
      implementation, unroll)
  return states.reshape(steps, *shape)


def _start_row(states: jax.Array, t: jax.Array, initial: jax.Array) -> jax.Array:
  """Puts the initial state to the left of the row that starts at step t.

  Row r starts at t = r. What the rows below it hold until they start is never
  read: the state above a started row is of a row that started before it.

  Args:
    states: of the step before, [D, H, B, h].
    t: the step, counted from where row 0 started; from H on no row starts.
    initial: [D, h].
  """
  row = jnp.minimum(t, states.shape[1] - 1)
  old = lax.dynamic_index_in_dim(states, row, axis=1)
  new = jnp.where(t == row, initial[:, None, None], old)
  return lax.dynamic_update_index_in_dim(states, new, row, axis=1)
