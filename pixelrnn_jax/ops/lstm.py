"""The LSTM cell of the paper (section 3, equation 3)."""

import jax
import jax.numpy as jnp
import numpy as np

GATES = 4


def lstm_cell(gates: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
  """One step from the gates' pre-activations.

      [o, f, i, g] = [sigma, sigma, sigma, tanh](gates)
      c_t = f c_{t-1} + i g
      h_t = o tanh(c_t)

  As sigma(x) = (1 + tanh(x / 2)) / 2, one tanh serves all four gates; it is the
  dearest part of a step on a CPU.

  Args:
    gates: [..., 4h], in the order o, f, i, g.
    cell: c_{t-1}, [..., h].

  Returns:
    (h_t, c_t), each [..., h].
  """
  hidden = cell.shape[-1]
  half = np.repeat([0.5, 0.5, 0.5, 1.0], hidden).astype(gates.dtype)
  o, f, i, g = jnp.split(jnp.tanh(gates * half), GATES, axis=-1)
  o, f, i = (0.5 + 0.5 * s for s in (o, f, i))
  cell = f * cell + i * g
  return o * jnp.tanh(cell), cell
