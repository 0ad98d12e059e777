"""The LSTM of the paper (section 3, equation 3): the cell and its scan.

    [o, f, i, g] = [sigma, sigma, sigma, tanh](K_ss h + K_is x)
    c_t = f c_{t-1} + i g
    h_t = o tanh(c_t)

The two scans of the paper differ only in which states of the step before a
position sees. They say so with a linear function of those states, and share the
loop and its gradient.

Shapes: S steps, N positions of a step (images times places), h hidden units,
R = taps x h, the neighbours' states side by side; `...` is nothing or the
directions.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

GATES = 4
IMPLEMENTATIONS = ("fused", "autodiff")


class State(NamedTuple):
  """Hidden and cell states, of any leading shape [..., h]."""

  hidden: jax.Array
  cell: jax.Array


def lstm_cell(gates: jax.Array, cell: jax.Array) -> State:
  """One step: h_t and c_t from the gates' pre-activations and c_{t-1}.

  Args:
    gates: [..., 4h], in the order o, f, i, g.
    cell: c_{t-1}, [..., h].
  """
  return _update(_activate(gates), cell)


def lstm_scan(
    neighbours: Callable[[jax.Array, State, State], tuple[jax.Array, jax.Array]],
    inputs: jax.Array,
    kernel: jax.Array,
    initial: State,
    start: State,
    implementation: str = "fused",
    unroll: int = 1,
) -> jax.Array:
  """Runs the LSTM over the leading axis of the inputs.

      r_t, c = neighbours(t, state_{t-1}, initial)
      h_t, c_t = cell(inputs_t + r_t K, c)

  `autodiff` is the reference: the equations as they stand, and JAX's gradient.
  `fused` takes one tanh over all gates and has a gradient of its own: the forward
  scan saves each step's derivatives while its values are at hand, so that the
  reverse scan only multiplies and adds, and takes the weights' gradient on its way.

  Args:
    neighbours: (t, the states of step t - 1, initial) to the states that each
      position sees, [..., N, R], and the cell state it goes on with,
      [..., N, h]. Linear in the states and in `initial`: r_t in the hidden ones
      only, c in the cell ones.
    inputs: K_is x, biases included, [S, ..., N, 4h].
    kernel: K_ss, [..., R, 4h].
    initial: the learned initial states, as `neighbours` takes them.
    start: the states before the first step, [..., N, h].
    implementation: `fused` or `autodiff`.
    unroll: steps in one iteration of the compiled loop: fewer launches on an
      accelerator, more to compile. It changes no value.

  Returns:
    h_t of all steps, [S, ..., N, h], of the inputs' dtype. Products are of that
    dtype; gates and cell states at least float32.

  Raises:
    ValueError: an unknown implementation.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
        f"implementation={implementation!r}: use one of"
        f" {', '.join(IMPLEMENTATIONS)}."
    )
  dtype = inputs.dtype
  kernel = kernel.astype(dtype)
  start, initial = (
      State(s.hidden.astype(dtype), s.cell.astype(_wide(dtype)))
      for s in (start, initial)
  )
  if implementation == "autodiff":
    return _reference(neighbours, unroll, inputs, kernel, initial, start)
  return _fused(neighbours, unroll, inputs, kernel, initial, start)


def _reference(neighbours, unroll, inputs, kernel, initial, start):
  """Hidden states of all steps."""

  def step(state, xs):
    t, x = xs
    seen, cell = neighbours(t, state, initial)
    gates = x.astype(_wide(x.dtype)) + product(seen, kernel)
    o, f, i, g = jnp.split(gates, GATES, axis=-1)
    o, f, i = (jax.nn.sigmoid(gate) for gate in (o, f, i))
    cell = f * cell + i * jnp.tanh(g)
    state = State((o * jnp.tanh(cell)).astype(x.dtype), cell)
    return state, state.hidden

  steps = jnp.arange(len(inputs))
  return lax.scan(step, start, (steps, inputs), unroll=unroll)[1]


def _wide(dtype) -> jnp.dtype:
  """The dtype of gates and cell states: float32, or float64."""
  return jnp.promote_types(dtype, jnp.float32)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
  """a @ b over [..., N, R] and [..., R, M], in at least float32."""
  return jnp.matmul(a, b, preferred_element_type=_wide(a.dtype))


def _activate(gates: jax.Array) -> jax.Array:
  """tanh(x / 2) for o, f, i and tanh(x) for g, [..., 4h].

  As sigma(x) = (1 + tanh(x / 2)) / 2, one tanh serves all four gates; it is the
  dearest part of a step on a CPU.
  """
  return jnp.tanh(gates * _by_gate(gates, 0.5, 0.5, 0.5, 1.0))


def _by_gate(gates: jax.Array, *values: float) -> np.ndarray:
  """A number for each gate, as a factor of [..., 4h]."""
  return np.repeat(values, gates.shape[-1] // GATES).astype(gates.dtype)


def _gates(activated: jax.Array) -> list[jax.Array]:
  """o, f, i, g from what `_activate` returns."""
  o, f, i, g = jnp.split(activated, GATES, axis=-1)
  return [0.5 + 0.5 * o, 0.5 + 0.5 * f, 0.5 + 0.5 * i, g]


def _update(activated: jax.Array, cell: jax.Array) -> State:
  """The cell's equations after the activations."""
  o, f, i, g = _gates(activated)
  cell = f * cell + i * g
  return State(o * jnp.tanh(cell), cell)


class Derivatives(NamedTuple):
  """The derivatives of one step, which the reverse scan multiplies by.

  Attributes:
    gates: of h_t (at o, c_t held) and of c_t (at f, i, g) by the pre-activations:
      tanh(c_t) sigma'(o), c_{t-1} sigma'(f), g sigma'(i), i tanh'(g); [..., 4h].
    hidden: of h_t by c_t: o (1 - tanh(c_t)^2), [..., h].
    cell: of c_t by c_{t-1}: f, [..., h].
  """

  gates: jax.Array
  hidden: jax.Array
  cell: jax.Array


def _update_derivatives(
    activated: jax.Array, before: jax.Array, after: jax.Array
) -> Derivatives:
  """The derivatives of `_update` and of the activations.

  Args:
    activated: from `_activate`, [..., 4h].
    before: c_{t-1}, [..., h].
    after: c_t, [..., h].
  """
  o, f, i, g = _gates(activated)
  tanh = jnp.tanh(after)
  # sigma'(x) = (1 - tanh(x / 2)^2) / 4
  slope = _by_gate(activated, 0.25, 0.25, 0.25, 1.0) * (1 - activated * activated)
  gates = jnp.concatenate([tanh, before, g, i], axis=-1) * slope
  return Derivatives(gates, o * (1 - tanh * tanh), f)


def _gates_gradient(
    derivatives: Derivatives, hidden: jax.Array, cell: jax.Array
) -> jax.Array:
  """Gradient of the pre-activations, [..., 4h], from those of h_t and c_t.

  A choice by gate instead of a concatenation, which XLA does not vectorise on a CPU.
  """
  by_gate = jnp.where(
      np.arange(GATES)[:, None] == 0, hidden[..., None, :], cell[..., None, :])
  return by_gate.reshape(derivatives.gates.shape) * derivatives.gates


def _forward(neighbours, unroll, inputs, kernel, initial, start):
  """Hidden states and derivatives of all steps."""

  def step(state, xs):
    t, x = xs
    seen, before = neighbours(t, state, initial)
    activated = _activate(x.astype(_wide(x.dtype)) + product(seen, kernel))
    state = _update(activated, before)
    state = State(state.hidden.astype(x.dtype), state.cell)
    derivatives = _update_derivatives(activated, before, state.cell)
    # The largest part of what is saved; the gates' gradient gets this dtype anyway.
    derivatives = derivatives._replace(gates=derivatives.gates.astype(x.dtype))
    return state, (state.hidden, derivatives)

  steps = jnp.arange(len(inputs))
  return lax.scan(step, start, (steps, inputs), unroll=unroll)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(neighbours, unroll, inputs, kernel, initial, start):
  return _forward(neighbours, unroll, inputs, kernel, initial, start)[0]


def _fused_forward(neighbours, unroll, inputs, kernel, initial, start):
  hidden, derivatives = _forward(
      neighbours, unroll, inputs, kernel, initial, start)
  return hidden, (hidden, derivatives, kernel, initial, start)


def _fused_backward(neighbours, unroll, saved, gradient):
  hidden, derivatives, kernel, initial, start = saved
  wide = _wide(hidden.dtype)
  transposed = jnp.swapaxes(kernel, -1, -2)

  def step(carry, xs):
    state_gradient, kernel_gradient, initial_gradient = carry
    t, output_gradient, of_step, hidden_before = xs
    # Neither what is seen nor the transpose of `neighbours` needs the cell states.
    (seen, _), transpose = jax.vjp(
        lambda state, initial: neighbours(t, state, initial),
        State(hidden_before, jnp.zeros_like(start.cell)), initial)
    hidden_gradient = (
        state_gradient.hidden.astype(wide) + output_gradient.astype(wide))
    cell_gradient = state_gradient.cell + hidden_gradient * of_step.hidden
    gates = _gates_gradient(of_step, hidden_gradient, cell_gradient)
    gates = gates.astype(hidden.dtype)
    seen_gradient = product(gates, transposed).astype(seen.dtype)
    state_gradient, more = transpose((seen_gradient, cell_gradient * of_step.cell))
    kernel_gradient += product(jnp.swapaxes(seen, -1, -2), gates)
    initial_gradient = jax.tree.map(jnp.add, initial_gradient, more)
    return (state_gradient, kernel_gradient, initial_gradient), gates

  steps = jnp.arange(len(hidden))
  before = jnp.concatenate([start.hidden[None], hidden[:-1]])
  zeros = (
      jax.tree.map(jnp.zeros_like, start),
      jnp.zeros(kernel.shape, wide),
      jax.tree.map(jnp.zeros_like, initial),
  )
  (start_gradient, kernel_gradient, initial_gradient), gates = lax.scan(
      step, zeros, (steps, gradient, derivatives, before), reverse=True,
      unroll=unroll)
  return gates, kernel_gradient.astype(kernel.dtype), initial_gradient, start_gradient


_fused.defvjp(_fused_forward, _fused_backward)
