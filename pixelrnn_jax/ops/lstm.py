"""The LSTM of the paper (section 3, equation 3): the cell and its scan.

    [o, f, i, g] = [sigma, sigma, sigma, tanh](K_ss h_{t-1} + K_is x_t)
    c_t = f c_{t-1} + i g
    h_t = o tanh(c_t)

The Row LSTM and the Diagonal BiLSTM differ only in which states of the step before a
position sees: its neighbours. The loop over the steps and its gradient are shared.

Shapes: S steps, N positions of a step (images times places), h hidden units, G = 4h
gates, R = taps x h features of the neighbours' states side by side. A map has F
features. At the initial states it has M values: N, or 1 for all positions. `...` is
nothing or the directions.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from pixelrnn_jax.ops.choices import BY_BACKEND, Choices
from pixelrnn_jax.ops.dtypes import at_least_float32

GATES = 4
IMPLEMENTATIONS = ("fused", "autodiff", "pallas")


class State(NamedTuple):
  """Hidden and cell states.

  Attributes:
    hidden: [..., h].
    cell: [..., h].
  """

  hidden: Float[Array, "*N h"]
  cell: Float[Array, "*N h"]


class Neighbours(NamedTuple):
  """What each position sees of the step before.

  Both functions take (t, a map of step t - 1 [..., N, F], the map's value at the
  initial states [..., M, F]). They move the positions of the map. They are linear and
  treat all features alike. So what moves the hidden states can move their products with
  a kernel just as well.

  Attributes:
    hidden: returns a list of maps: what each tap of K_ss sees. In these maps N may be
      several axes, such as rows and images.
    cell: returns a map, [..., N, F]: the cell state that each position continues.
  """

  hidden: Callable[
      [Int[Array, ""], Float[Array, "*D N F"], Float[Array, "*D M F"]],
      list[Float[Array, "*DN F"]]]
  cell: Callable[
      [Int[Array, ""], Float[Array, "*D N F"], Float[Array, "*D M F"]],
      Float[Array, "*D N F"]]

  def side_by_side(
      self,
      t: Int[Array, ""],
      hidden: Float[Array, "*D N h"],
      initial: Float[Array, "*D M h"],
  ) -> Float[Array, "*D N R"]:
    """Return r_t, the hidden states that each position sees, [..., N, R].

    Args:
      t: the step.
      hidden: h_{t-1}, [..., N, h].
      initial: the learned initial state, [..., M, h].
    """
    seen = jnp.concatenate(self.hidden(t, hidden, initial), axis=-1)
    return seen.reshape(*hidden.shape[:-1], -1)


def lstm_cell(gates: Float[Array, "*N G"], cell: Float[Array, "*N h"]) -> State:
  """Run one step of the LSTM.

      c_t = f c_{t-1} + i g
      h_t = o tanh(c_t)

  Args:
    gates: the gates before their activation, [..., 4h], in the order o, f, i, g.
    cell: c_{t-1}, [..., h].

  Returns:
    h_t and c_t.
  """
  return _update(_activate(gates), cell)


def lstm_scan(
    neighbours: Neighbours,
    inputs: Float[Array, "S *D N G"],
    kernel: Float[Array, "*D R G"],
    initial: State,
    start: State,
    implementation: str = "fused",
    unroll: int = 0,
    choices: Choices = BY_BACKEND,
) -> Float[Array, "S *D N h"]:
  """Run the LSTM over the leading axis of the inputs.

      r_t      = neighbours.side_by_side(t, h_{t-1}, initial)
      h_t, c_t = cell(inputs_t + r_t K, neighbours.cell(t, c_{t-1}, initial))

  There are two implementations. `autodiff` is the reference: the equations as they
  stand, with JAX's gradient. `fused` takes one tanh over all gates and has its own
  gradient. Its forward scan saves the derivatives of each step while the values are
  at hand. Its reverse scan then only multiplies and adds. The gradient of the weights
  is accumulated there, or computed after it; see `Choices`.

  Args:
    neighbours: which states of step t - 1 each position sees.
    inputs: K_is x with its biases, [S, ..., N, 4h].
    kernel: K_ss, [..., R, 4h].
    initial: the learned initial states, [..., M, h], which `neighbours` receives. M is
      1, or N for a copy at each position.
    start: the states before the first step, [..., N, h].
    implementation: `fused` or `autodiff`.
    unroll: steps in one iteration of the compiled loop. More steps mean fewer
      launches on an accelerator and more to compile. The values do not change. 0 is
      that of `choices`.
    choices: how to compute it; the backend's defaults if not given.

  Returns:
    h_t of all steps, [S, ..., N, h], of the inputs' dtype. Matrix products are
    computed in that dtype, gates and cell states in at least float32.

  Raises:
    ValueError: the implementation is unknown, or `pallas`, which is no loop of steps.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
        f"implementation={implementation!r}: use one of"
        f" {', '.join(IMPLEMENTATIONS)}."
    )
  if implementation == "pallas":
    raise ValueError(
        "implementation='pallas': only row_scan and diagonal_scan have it. Use 'fused'"
        " or 'autodiff'.")
  choices = choices.resolve()
  if unroll:
    choices = dataclasses.replace(choices, unroll=unroll)
  dtype = inputs.dtype
  kernel = kernel.astype(dtype)
  start, initial = (
      State(s.hidden.astype(dtype), s.cell.astype(at_least_float32(dtype)))
      for s in (start, initial)
  )
  if implementation == "autodiff":
    return _reference(neighbours, choices.unroll, inputs, kernel, initial, start)
  return _fused(neighbours, choices, inputs, kernel, initial, start)


def _reference(
    neighbours: Neighbours,
    unroll: int,
    inputs: Float[Array, "S *D N G"],
    kernel: Float[Array, "*D R G"],
    initial: State,
    start: State,
) -> Float[Array, "S *D N h"]:
  """Return the hidden states of all steps: the equations as they stand."""

  def step(state, xs):
    t, x = xs
    seen = neighbours.side_by_side(t, state.hidden, initial.hidden)
    cell = neighbours.cell(t, state.cell, initial.cell)
    gates = x.astype(at_least_float32(x.dtype)) + product(seen, kernel)
    o, f, i, g = jnp.split(gates, GATES, axis=-1)
    o, f, i = (jax.nn.sigmoid(gate) for gate in (o, f, i))
    cell = f * cell + i * jnp.tanh(g)
    state = State((o * jnp.tanh(cell)).astype(x.dtype), cell)
    return state, state.hidden

  steps = jnp.arange(len(inputs))
  return lax.scan(step, start, (steps, inputs), unroll=unroll)[1]


def product(
    a: Float[Array, "*A N R"], b: Float[Array, "*B R M"]
) -> Float[Array, "*C N M"]:
  """Return the matrix product a b in at least float32.

  Args:
    a: [..., N, R].
    b: [..., R, M].

  Returns:
    [..., N, M].
  """
  return jnp.matmul(a, b, preferred_element_type=at_least_float32(a.dtype))


def _activate(gates: Float[Array, "*N G"]) -> Float[Array, "*N G"]:
  """Return tanh(x / 2) for the gates o, f, i and tanh(x) for g, [..., 4h].

  sigma(x) = (1 + tanh(x / 2)) / 2, so one tanh serves all four gates. The tanh is the
  most expensive part of a step on a CPU.
  """
  return jnp.tanh(gates * _by_gate(gates, 0.5, 0.5, 0.5, 1.0))


def _by_gate(gates: Float[Array, "*N G"], *values: float) -> Float[np.ndarray, " G"]:
  """Return one number for each gate, repeated over the gate's features, [4h]."""
  return np.repeat(values, gates.shape[-1] // GATES).astype(gates.dtype)


def _gates(activated: Float[Array, "*N G"]) -> list[Float[Array, "*N h"]]:
  """Return the gates o, f, i, g from the result of `_activate`."""
  o, f, i, g = jnp.split(activated, GATES, axis=-1)
  return [0.5 + 0.5 * o, 0.5 + 0.5 * f, 0.5 + 0.5 * i, g]


def _update(activated: Float[Array, "*N G"], cell: Float[Array, "*N h"]) -> State:
  """Return h_t and c_t from the activated gates and c_{t-1}."""
  o, f, i, g = _gates(activated)
  cell = f * cell + i * g
  return State(o * jnp.tanh(cell), cell)


class Derivatives(NamedTuple):
  """The derivatives of one step, by which the reverse scan multiplies.

  Attributes:
    gates: by the gates before their activation, [..., 4h]. For o it is the
      derivative of h_t with c_t held: tanh(c_t) sigma'(o). For f, i and g it is that
      of c_t: c_{t-1} sigma'(f), g sigma'(i) and i tanh'(g).
    hidden: the derivative of h_t by c_t, o (1 - tanh(c_t)^2), [..., h].
    cell: the derivative of c_t by c_{t-1}, which is f, [..., h].
  """

  gates: Float[Array, "*N G"]
  hidden: Float[Array, "*N h"]
  cell: Float[Array, "*N h"]


def _update_derivatives(
    activated: Float[Array, "*N G"],
    before: Float[Array, "*N h"],
    after: Float[Array, "*N h"],
) -> Derivatives:
  """Return the derivatives of one step.

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
    derivatives: Derivatives,
    hidden: Float[Array, "*N h"],
    cell: Float[Array, "*N h"],
    way: str,
) -> Float[Array, "*N G"]:
  """Return the gradient of the gates before their activation.

  Args:
    derivatives: the derivatives of this step.
    hidden: the gradient of h_t, [..., h].
    cell: the gradient of c_t, [..., h].
    way: `select` or `concatenate`; see `Choices.gates_gradient`.
  """
  if way == "concatenate":
    return jnp.concatenate([hidden, cell, cell, cell], -1) * derivatives.gates
  by_gate = jnp.where(
      np.arange(GATES)[:, None] == 0, hidden[..., None, :], cell[..., None, :])
  return by_gate.reshape(derivatives.gates.shape) * derivatives.gates


def _forward(
    neighbours: Neighbours,
    choices: Choices,
    inputs: Float[Array, "S *D N G"],
    kernel: Float[Array, "*D R G"],
    initial: State,
    start: State,
) -> tuple[Float[Array, "S *D N h"], Derivatives]:
  """Return the hidden states and the derivatives of all steps."""
  multiply = _multiply(neighbours, choices, kernel, initial.hidden)

  def step(state, xs):
    t, x = xs
    before = neighbours.cell(t, state.cell, initial.cell)
    gates = x.astype(at_least_float32(x.dtype)) + multiply(t, state.hidden)
    activated = _activate(gates)
    state = _update(activated, before)
    state = State(state.hidden.astype(x.dtype), state.cell)
    derivatives = _update_derivatives(activated, before, state.cell)
    # This is the largest array that is saved. The gradient of the gates is cast to
    # the same dtype anyway.
    derivatives = derivatives._replace(gates=derivatives.gates.astype(x.dtype))
    if choices.saved == "narrow":
      derivatives = jax.tree.map(lambda d: d.astype(x.dtype), derivatives)
    return state, (state.hidden, derivatives)

  steps = jnp.arange(len(inputs))
  return lax.scan(step, start, (steps, inputs), unroll=choices.unroll)[1]


def _multiply(
    neighbours: Neighbours,
    choices: Choices,
    kernel: Float[Array, "*D R G"],
    initial: Float[Array, "*D M h"],
) -> Callable[[Int[Array, ""], Float[Array, "*D N h"]], Float[Array, "*D N G"]]:
  """Return the function (t, h_{t-1}) to r_t K; see `Choices.state_to_state`."""
  if choices.state_to_state == "move_first":
    return lambda t, hidden: product(
        neighbours.side_by_side(t, hidden, initial), kernel)
  # Multiply by the kernels of all taps at once, [..., h, taps G]. Then move each tap's
  # product to the positions that see it.
  taps = kernel.shape[-2] // initial.shape[-1]
  kernels = jnp.concatenate(jnp.split(kernel, taps, axis=-2), axis=-1)

  def by_tap(states):
    return jnp.split(product(states, kernels), taps, axis=-1)

  initial_products = by_tap(initial)

  def multiply_first(t, hidden):
    products = zip(by_tap(hidden), initial_products, strict=True)
    seen = [
        neighbours.hidden(t, *both)[tap] for tap, both in enumerate(products)]
    return functools.reduce(jnp.add, seen).reshape(*hidden.shape[:-1], -1)

  return multiply_first


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
@jax.named_scope("scan")
def _fused(
    neighbours: Neighbours,
    choices: Choices,
    inputs: Float[Array, "S *D N G"],
    kernel: Float[Array, "*D R G"],
    initial: State,
    start: State,
) -> Float[Array, "S *D N h"]:
  """Return the hidden states of all steps, with the gradient defined below."""
  return _forward(neighbours, choices, inputs, kernel, initial, start)[0]


@jax.named_scope("scan")
def _fused_forward(
    neighbours: Neighbours,
    choices: Choices,
    inputs: Float[Array, "S *D N G"],
    kernel: Float[Array, "*D R G"],
    initial: State,
    start: State,
) -> tuple[Float[Array, "S *D N h"], tuple]:
  """Return the hidden states of all steps, and the residuals of the backward pass."""
  hidden, derivatives = _forward(
      neighbours, choices, inputs, kernel, initial, start)
  return hidden, (hidden, derivatives, kernel, initial, start)


@jax.named_scope("scan")
def _fused_backward(
    neighbours: Neighbours,
    choices: Choices,
    saved: tuple,
    gradient: Float[Array, "S *D N h"],
) -> tuple[Float[Array, "S *D N G"], Float[Array, "*D R G"], State, State]:
  """Return the gradients of the inputs, the kernel, `initial` and `start`."""
  hidden, derivatives, kernel, initial, start = saved
  wide = at_least_float32(hidden.dtype)
  transposed = jnp.swapaxes(kernel, -1, -2)
  no_cell = jnp.zeros_like(start.cell)
  in_scan = choices.kernel_gradient == "in_scan"

  def step(carry, xs):
    t, state_gradient, kernel_gradient, initial_gradient = carry
    output_gradient, derivative, hidden_before = xs
    # The neighbours are linear functions, so their transposes need no states: the cell
    # states may be anything here.
    seen, to_hidden = jax.vjp(
        functools.partial(neighbours.side_by_side, t), hidden_before, initial.hidden)
    _, to_cell = jax.vjp(
        functools.partial(neighbours.cell, t), no_cell, initial.cell)
    # h_t enters the output and the next step; c_t enters h_t and the next step.
    hidden_gradient = (
        state_gradient.hidden.astype(wide) + output_gradient.astype(wide))
    cell_gradient = state_gradient.cell + hidden_gradient * derivative.hidden
    gates = _gates_gradient(
        derivative, hidden_gradient, cell_gradient, choices.gates_gradient)
    gates = gates.astype(hidden.dtype)
    seen_gradient = product(gates, transposed).astype(seen.dtype)
    # Pass the gradient on to the states that this step has seen.
    state_gradient, more = map(
        State, to_hidden(seen_gradient), to_cell(cell_gradient * derivative.cell))
    if in_scan:
      kernel_gradient += product(jnp.swapaxes(seen, -1, -2), gates)
    initial_gradient = jax.tree.map(jnp.add, initial_gradient, more)
    return (t - 1, state_gradient, kernel_gradient, initial_gradient), gates

  before = jnp.concatenate([start.hidden[None], hidden[:-1]])
  last = (
      jnp.int32(len(hidden) - 1),
      jax.tree.map(jnp.zeros_like, start),
      jnp.zeros(kernel.shape if in_scan else (), wide),
      jax.tree.map(jnp.zeros_like, initial),
  )
  (_, start_gradient, kernel_gradient, initial_gradient), gates = lax.scan(
      step, last, (gradient, derivatives, before), reverse=True,
      unroll=choices.unroll)
  if not in_scan:
    seen = jax.vmap(neighbours.side_by_side, in_axes=(0, 0, None))(
        jnp.arange(len(hidden)), before, initial.hidden)
    kernel_gradient = jnp.einsum(
        "s...nr,s...nm->...rm", seen, gates, preferred_element_type=wide)
  if choices.unroll > 1:
    # An unrolled loop leaves the gates of its steps side by side. XLA would sum them up
    # for the gradient of the biases step by step, a kernel for each.
    gates = lax.optimization_barrier(gates)
  return gates, kernel_gradient.astype(kernel.dtype), initial_gradient, start_gradient


_fused.defvjp(_fused_forward, _fused_backward)
