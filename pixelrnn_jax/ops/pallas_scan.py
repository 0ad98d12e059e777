"""The scans of both LSTMs as Pallas kernels for TPUs, forward and backward.

One kernel runs all steps. The weights and the states stay in VMEM, and the inputs of
the next step are copied there while one is computed. The loop of `lstm_scan` takes
every state from HBM and back instead.

At each step a position sees some states of the step before, each by a tap: its own
state, and those of positions at fixed offsets (`_Taps`). The Row LSTM sees its
neighbours in the row, and zeros beyond its edges. The Diagonal BiLSTM sees the row
above, and the initial state above the image.

A step's positions are taken in blocks if they do not fit into VMEM all at once. A block
reads the states of its neighbours across its edges. So the states are kept twice: those
of the step before, and those of the step in progress.

Only the recurrence is here. The backward kernel sums up the gradient of the weights in
VMEM too. Nobody has run these kernels on a TPU yet. Tests hold them to
`autodiff` in Pallas' interpreter, and they compile for a v5e and a v6e.

Shapes: T steps, D directions, N = P B positions of a step, of which P are places and B
are images, h hidden units, G = 4h gates. A block has M of the N positions.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

LANES = 128
# Bytes of VMEM, of which a v5e's or v6e's core has 128 MiB. A block may take `_VMEM`,
# counted by `_bytes`. With spills the compiler may take up to `_VMEM_LIMIT`.
_VMEM = 90 * 2**20
_VMEM_LIMIT = 110 * 2**20


@dataclasses.dataclass(frozen=True)
class _Taps:
  """Which states of the step before a position sees, and how the scan is laid out.

  Attributes:
    batch: B.
    own: the tap that is the position's own state.
    around: (tap, offset in places) for each other tap. An offset of -1 is the place
      before.
    padding: number of places before the first place and after the last one.
    initial_padding: whether these places hold the initial state. Otherwise they hold
      zeros.
    period: place s starts anew from the initial states at each step t where
      t mod period = s. With 0 no place starts anew.
    blocks: number of blocks of a step's places. It divides P.
  """

  batch: int
  own: int
  around: tuple[tuple[int, int], ...]
  padding: int
  initial_padding: bool
  period: int
  blocks: int = 1


def row_scan(
    inputs: Float[Array, "H W B G"],
    kernel: Float[Array, "K h G"],
    hidden: Float[Array, " h"],
    cell: Float[Array, " h"],
    interpret: bool | None = None,
) -> Float[Array, "H W B h"]:
  """Run the Row LSTM; see `row_scan.row_scan`, whose arguments these are.

  Args:
    inputs: [H, W, B, 4h].
    kernel: [K, h, 4h].
    hidden: [h].
    cell: [h].
    interpret: whether to run in Pallas' interpreter, which is slow. None is true on a
      CPU only.

  Returns:
    [H, W, B, h], of the inputs' dtype.

  Raises:
    ValueError: the kernels do not support the dtype, the size or the backend.
  """
  middle = len(kernel) // 2
  around = tuple((k, k - middle) for k in range(len(kernel)) if k != middle)
  taps = _Taps(inputs.shape[2], middle, around, middle, False, 0)
  states = _scan(
      inputs[:, None], kernel[None], hidden[None], cell[None], taps, interpret)
  return states[:, 0]


def diagonal_scan(
    inputs: Float[Array, "T D H B G"],
    kernel: Float[Array, "D 2 h G"],
    hidden: Float[Array, "D h"],
    cell: Float[Array, "D h"],
    period: int,
    interpret: bool | None = None,
) -> Float[Array, "T D H B h"]:
  """Run the Diagonal BiLSTM; see `diagonal_scan.diagonal_scan`.

  Args:
    inputs: [T, D, H, B, 4h].
    kernel: [D, 2, h, 4h].
    hidden: [D, h].
    cell: [D, h].
    period: number of steps from one image in a row of the map to the next one.
    interpret: see `row_scan`.

  Returns:
    [T, D, H, B, h], of the inputs' dtype.

  Raises:
    ValueError: see `row_scan`.
  """
  taps = _Taps(inputs.shape[3], 1, ((0, -1),), 1, True, period)
  return _scan(inputs, kernel, hidden, cell, taps, interpret)


def _scan(
    inputs: Float[Array, "T D P B G"],
    kernel: Float[Array, "D K h G"],
    hidden: Float[Array, "D h"],
    cell: Float[Array, "D h"],
    taps: _Taps,
    interpret: bool | None,
) -> Float[Array, "T D P B h"]:
  """Return the hidden states of all steps, [T, D, P, B, h]."""
  steps, directions, places, batch, _ = inputs.shape
  units, dtype = hidden.shape[-1], inputs.dtype
  if interpret is None:
    interpret = jax.default_backend() == "cpu"
    if jax.default_backend() not in ("cpu", "tpu"):
      raise ValueError(
          "implementation='pallas' is made for TPUs, and this is a"
          f" {jax.default_backend()}: use 'fused'.")
  if dtype not in (jnp.float32, jnp.bfloat16):
    raise ValueError(
        f"implementation='pallas' takes float32 and bfloat16, not {dtype}: use"
        " 'fused'.")
  if units % LANES:
    raise ValueError(
        f"implementation='pallas' takes a multiple of {LANES} hidden units, not"
        f" {units}: use 'fused'.")
  # Fill the batch up, so that the images of a place are whole tiles of VMEM.
  missing = -batch % (32 // dtype.itemsize)
  inputs = jnp.pad(inputs, [(0, 0)] * 3 + [(0, missing), (0, 0)])
  taps = dataclasses.replace(taps, batch=batch + missing)
  taps = dataclasses.replace(
      taps, blocks=_blocks(taps, places, units, dtype.itemsize))
  states: jax.Array = _run(
      taps, interpret, inputs.reshape(steps, directions, places * taps.batch, -1),
      kernel.astype(dtype), hidden.astype(jnp.float32), cell.astype(jnp.float32))
  return states.reshape(steps, directions, places, taps.batch, units)[..., :batch, :]


def _blocks(taps: _Taps, places: int, units: int, itemsize: int) -> int:
  """Return the smallest number of blocks with which a step fits into VMEM.

  Raises:
    ValueError: one place at a time does not fit.
  """
  for blocks in range(1, places + 1):
    if places % blocks == 0 and _bytes(taps, places, blocks, units, itemsize) <= _VMEM:
      return blocks
  needed = _bytes(taps, places, places, units, itemsize)
  raise ValueError(
      f"implementation='pallas' with {units} hidden units, {places} places and"
      f" {taps.batch} images needs {needed / 2**20:.0f} MiB of a TPU's VMEM, of which"
      f" it takes at most {_VMEM / 2**20:.0f}: use 'fused' or a smaller batch.")


def _bytes(taps: _Taps, places: int, blocks: int, units: int, itemsize: int) -> int:
  """Return the approximate VMEM of the backward kernel, the larger one, in bytes.

  Arrays that are copied while a step is computed have two buffers.
  """
  positions = places * taps.batch
  block, padded = positions // blocks, positions + 2 * taps.padding * taps.batch
  number = len(taps.around) + 1
  # The kernel, and its gradient in float32.
  weights = number * units * 4 * units * (itemsize + 4)
  # The derivatives, the gradients of the states and of the gates; the states before.
  copied = block * (4 * units * 2 * itemsize + units * (itemsize + 2 * 4))
  copied += positions * units * itemsize
  state = units * (4 * (2 * positions + 2 * padded) + itemsize * padded)
  initial = 2 * taps.batch * units * 4
  values = block * units * (2 * 4 * 4 + number * itemsize)
  return weights + 2 * copied + initial + state + values


def _rows(start: int | Array, size: int, tile: int):
  """Return a slice of rows that starts at a whole tile."""
  if not isinstance(start, int):
    start = pl.multiple_of(start, tile)
  return pl.ds(start, size)


def _block_start(taps: _Taps, size: int) -> int | Array:
  """Return the first position of the block in progress."""
  return 0 if taps.blocks == 1 else pl.program_id(2) * size


def _padding(taps: _Taps, hidden: Float[Array, "1 h"]) -> Float[Array, "R h"]:
  """Return the states beyond one side of the places, from the initial state."""
  beyond = hidden if taps.initial_padding else jnp.zeros_like(hidden)
  return jnp.broadcast_to(beyond, (taps.padding * taps.batch, hidden.shape[-1]))


def _forward_kernel(taps, save, x, kernel, hidden0, cell0, *refs):
  """Run a block of a step.

  Args:
    taps: see `_Taps`.
    save: whether to write the derivatives too.
    x: the gates' inputs, [M, 4h].
    kernel: [K, h, 4h].
    hidden0: the initial state, [1, h].
    cell0: the initial cell state, [1, h].
    *refs: the outputs: the states [M, h] and, with `save`, the derivatives; see
      `lstm.Derivatives`. Then the arrays that are kept from step to step: the
      positions' own states [N, h], their cell states [N, h], and the states of all
      places with the padding, of two steps, [2, N + padding, h].
  """
  if save:
    y, by_gates, by_cell, forget, own, cell, around = refs
  else:
    y, own, cell, around = refs
  size, units = y.shape
  positions, edge = len(own), taps.padding * taps.batch
  t, block = pl.program_id(1), pl.program_id(2)

  @pl.when((t == 0) & (block == 0))
  def _():
    own[...] = jnp.broadcast_to(hidden0[...], own.shape).astype(own.dtype)
    cell[...] = jnp.broadcast_to(cell0[...], cell.shape)
    for side in range(2):
      around[side, edge : edge + positions] = own[...]
      if edge:
        padding = _padding(taps, hidden0[...]).astype(around.dtype)
        around[side, :edge] = padding
        around[side, edge + positions :] = padding

  if taps.period:
    place = lax.rem(t, taps.period)

    @pl.when((block == 0) & (place < positions // taps.batch))
    def _():
      rows = _rows(place * taps.batch, taps.batch, taps.batch)
      own[rows] = jnp.broadcast_to(
          hidden0[...], (taps.batch, units)).astype(own.dtype)
      cell[rows] = jnp.broadcast_to(cell0[...], (taps.batch, units))

  start = _block_start(taps, size)
  here = _rows(start, size, taps.batch)
  before, after = lax.rem(t + 1, 2), lax.rem(t, 2)
  gates = x[...].astype(jnp.float32) + _dot(own[here], kernel[taps.own])
  for tap, offset in taps.around:
    seen = around[before, _rows(start + edge + offset * taps.batch, size, taps.batch)]
    gates += _dot(seen, kernel[tap])
  o, f, i = (
      0.5 + 0.5 * jnp.tanh(0.5 * gates[:, n * units : (n + 1) * units])
      for n in range(3))
  g = jnp.tanh(gates[:, 3 * units :])
  old = cell[here]
  new = f * old + i * g
  tanh = jnp.tanh(new)
  state = (o * tanh).astype(y.dtype)
  if save:
    for n, slope in enumerate((
        tanh * o * (1 - o), old * f * (1 - f), g * i * (1 - i), i * (1 - g * g))):
      by_gates[:, n * units : (n + 1) * units] = slope.astype(by_gates.dtype)
    by_cell[...] = o * (1 - tanh * tanh)
    forget[...] = f
  cell[here] = new
  own[here] = state
  around[after, _rows(start + edge, size, taps.batch)] = state
  y[...] = state


def _backward_kernel(
    taps, gradient, by_gates, by_cell, forget, kernel, states, first, gates,
    by_kernel, hidden0, cell0, own, cell, around, seen,
):
  """Run a block of a step, the last step first.

  Args:
    taps: see `_Taps`.
    gradient: the gradient of the states, [M, h].
    by_gates: the derivatives by the gates, [M, 4h]; see `lstm.Derivatives`.
    by_cell: the derivative of h_t by c_t, [M, h].
    forget: the derivative of c_t by c_{t-1}, [M, h].
    kernel: transposed, [K, 4h, h].
    states: the states of all places at the step before, [N, h].
    first: the initial state, [1, h].
    gates: an output, the gradient of the gates' inputs, [M, 4h].
    by_kernel: an output, the gradient of the kernel in float32, [K h, 4h].
    hidden0: an output, the gradient of the initial states by image, [B, h].
    cell0: an output, that of the initial cell states, [B, h].
    own: kept from step to step, the gradient of the positions' own states, [N, h].
    cell: kept, the gradient of their cell states, [N, h].
    around: kept, the gradient of the states of all places with the padding, of two
      steps, [2, N + padding, h].
    seen: the states of all places with the padding at the step before, which the
      taps see, [N + padding, h].
  """
  size, units = gradient.shape
  positions, edge = len(own), taps.padding * taps.batch
  last = pl.num_programs(1) - 1
  t, block = last - pl.program_id(1), pl.program_id(2)

  @pl.when((t == last) & (block == 0))
  def _():
    for ref in (own, cell, around, by_kernel, hidden0, cell0):
      ref[...] = jnp.zeros(ref.shape, ref.dtype)
    if edge:
      padding = _padding(taps, first[...]).astype(seen.dtype)
      seen[:edge] = padding
      seen[edge + positions :] = padding

  start = _block_start(taps, size)
  here = _rows(start, size, taps.batch)
  inside = _rows(start + edge, size, taps.batch)
  after, before = lax.rem(t + 1, 2), lax.rem(t, 2)

  @pl.when(block == 0)
  def _():
    around[before] = jnp.zeros(around.shape[1:], around.dtype)
    seen[edge : edge + positions] = jnp.where(
        t == 0, first[...].astype(seen.dtype), states[...])

  by_hidden = own[here] + around[after, inside] + gradient[...].astype(jnp.float32)
  by_state = cell[here] + by_hidden * by_cell[...]
  for n in range(4):
    part = slice(n * units, (n + 1) * units)
    slope = by_gates[:, part].astype(jnp.float32)
    gates[:, part] = ((by_state if n else by_hidden) * slope).astype(gates.dtype)
  cell[here] = by_state * forget[...]
  own[here] = _dot(gates[...], kernel[taps.own])
  # The states that each tap saw, side by side, give the gradient of the kernel.
  by_tap = {taps.own: seen[inside]}
  if taps.period:  # the place that starts anew saw the initial state
    position = start + lax.broadcasted_iota(jnp.int32, (size, 1), 0)
    anew = lax.rem(t, taps.period) * taps.batch
    by_tap[taps.own] = jnp.where(
        (position >= anew) & (position < anew + taps.batch),
        first[...].astype(seen.dtype), by_tap[taps.own])
  for tap, offset in taps.around:
    rows = _rows(start + edge + offset * taps.batch, size, taps.batch)
    around[before, rows] += _dot(gates[...], kernel[tap])
    by_tap[tap] = seen[rows]
  all_taps = jnp.concatenate([by_tap[tap] for tap in sorted(by_tap)], axis=1)
  by_kernel[...] += _dot_transposed(all_taps, gates[...])

  @pl.when(block == pl.num_programs(2) - 1)
  def _():
    if taps.period:
      place = lax.rem(t, taps.period)

      @pl.when(place < positions // taps.batch)
      def _():
        rows = _rows(place * taps.batch, taps.batch, taps.batch)
        hidden0[...] += own[rows]
        cell0[...] += cell[rows]
        own[rows] = jnp.zeros((taps.batch, units), own.dtype)
        cell[rows] = jnp.zeros((taps.batch, units), cell.dtype)

    if taps.initial_padding:
      for place in (*range(taps.padding), *range(-taps.padding, 0)):
        row = place % (around.shape[1] // taps.batch) * taps.batch
        hidden0[...] += around[before, row : row + taps.batch]

    @pl.when(t == 0)
    def _():
      for row in range(0, positions, taps.batch):
        rows = slice(row, row + taps.batch)
        hidden0[...] += own[rows] + around[before, edge + row : edge + row + taps.batch]
        cell0[...] += cell[rows]


def _dot(
    a: Float[Array, "M R"], b: Float[Array, "R S"]
) -> Float[Array, "M S"]:
  """Return the product of two matrices in float32."""
  return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _dot_transposed(
    a: Float[Array, "M R"], b: Float[Array, "M S"]
) -> Float[Array, "R S"]:
  """Return the product a^T b in float32."""
  return lax.dot_general(
      a, b, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(
    taps: _Taps,
    interpret: bool,
    inputs: Float[Array, "T D N G"],
    kernel: Float[Array, "D K h G"],
    hidden: Float[Array, "D h"],
    cell: Float[Array, "D h"],
) -> Float[Array, "T D N h"]:
  """Return the hidden states of all steps, [T, D, N, h]."""
  return _forward(taps, interpret, False, inputs, kernel, hidden, cell)[0]


def _run_forward(
    taps: _Taps,
    interpret: bool,
    inputs: Float[Array, "T D N G"],
    kernel: Float[Array, "D K h G"],
    hidden: Float[Array, "D h"],
    cell: Float[Array, "D h"],
) -> tuple[Float[Array, "T D N h"], tuple]:
  """Return the hidden states of all steps, and the residuals of the backward pass."""
  states, *derivatives = _forward(taps, interpret, True, inputs, kernel, hidden, cell)
  return states, (states, derivatives, kernel, hidden)


def _run_backward(
    taps: _Taps, interpret: bool, saved: tuple, gradient: Float[Array, "T D N h"]
) -> tuple[
    Float[Array, "T D N G"], Float[Array, "D K h G"], Float[Array, "D h"],
    Float[Array, "D h"]]:
  """Return the gradients of the inputs, the kernel and the initial states."""
  states, derivatives, kernel, hidden = saved
  gates, by_kernel, by_hidden, by_cell = _backward(
      taps, interpret, gradient, derivatives, states, kernel, hidden)
  return (
      gates, by_kernel.reshape(kernel.shape).astype(kernel.dtype),
      by_hidden.sum(axis=1), by_cell.sum(axis=1))


_run.defvjp(_run_forward, _run_backward)


def _forward(
    taps: _Taps,
    interpret: bool,
    save: bool,
    inputs: Float[Array, "T D N G"],
    kernel: Float[Array, "D K h G"],
    hidden: Float[Array, "D h"],
    cell: Float[Array, "D h"],
) -> Sequence[Float[Array, "T D N _"]]:
  """Return the states, and with `save` the derivatives by gates, cell and forget."""
  steps, directions, positions, gates = inputs.shape
  units, dtype, wide = gates // 4, inputs.dtype, jnp.float32
  outputs = [(units, dtype)]
  if save:
    outputs += [(gates, dtype), (units, wide), (units, wide)]
  padded = positions + 2 * taps.padding * taps.batch

  def block(features):
    return pl.BlockSpec(
        (None, None, positions // taps.blocks, features), lambda d, t, j: (t, d, j, 0))

  return pl.pallas_call(
      functools.partial(_forward_kernel, taps, save),
      grid=(directions, steps, taps.blocks),
      in_specs=[
          block(gates), _whole(*kernel.shape[1:]), _whole(1, units), _whole(1, units)],
      out_specs=[block(features) for features, _ in outputs],
      out_shape=[
          jax.ShapeDtypeStruct((steps, directions, positions, features), output_dtype)
          for features, output_dtype in outputs],
      scratch_shapes=[
          pltpu.VMEM((positions, units), dtype), pltpu.VMEM((positions, units), wide),
          pltpu.VMEM((2, padded, units), dtype)],
      interpret=interpret, name="lstm_forward", **_compiler(interpret),
  )(inputs, kernel, hidden[:, None], cell[:, None])


def _backward(
    taps: _Taps,
    interpret: bool,
    gradient: Float[Array, "T D N h"],
    derivatives: Sequence[Float[Array, "T D N _"]],
    states: Float[Array, "T D N h"],
    kernel: Float[Array, "D K h G"],
    hidden: Float[Array, "D h"],
) -> Sequence[Array]:
  """Return the gradients of the inputs, the kernel and, by image, the initial states.

  Returns:
    [T, D, N, 4h], [D, K h, 4h], [D, B, h] and [D, B, h].
  """
  steps, directions, positions, units = gradient.shape
  gates, dtype, wide = 4 * units, gradient.dtype, jnp.float32
  padded = positions + 2 * taps.padding * taps.batch
  transposed, rows = jnp.swapaxes(kernel, -1, -2), kernel.shape[1] * units

  def block(features):
    return pl.BlockSpec(
        (None, None, positions // taps.blocks, features),
        lambda d, t, j: (steps - 1 - t, d, j, 0))

  initial = jax.ShapeDtypeStruct((directions, taps.batch, units), wide)
  return pl.pallas_call(
      functools.partial(_backward_kernel, taps),
      grid=(directions, steps, taps.blocks),
      in_specs=[
          block(units), block(gates), block(units), block(units),
          _whole(*transposed.shape[1:]),
          pl.BlockSpec(
              (None, None, positions, units),
              lambda d, t, j: (jnp.maximum(steps - 2 - t, 0), d, 0, 0)),
          _whole(1, units)],
      out_specs=[
          block(gates), _whole(rows, gates), _whole(taps.batch, units),
          _whole(taps.batch, units)],
      out_shape=[
          jax.ShapeDtypeStruct((steps, directions, positions, gates), dtype),
          jax.ShapeDtypeStruct((directions, rows, gates), wide), initial, initial],
      scratch_shapes=[
          pltpu.VMEM((positions, units), wide), pltpu.VMEM((positions, units), wide),
          pltpu.VMEM((2, padded, units), wide), pltpu.VMEM((padded, units), dtype)],
      interpret=interpret, name="lstm_backward", **_compiler(interpret),
  )(gradient, *derivatives, transposed, states, hidden[:, None])


def _whole(*shape: int) -> pl.BlockSpec:
  """Return the specification of an array [D, *shape] that every step of d has whole.

  It has one buffer, because it is copied once for each direction.
  """
  return pl.BlockSpec(
      (None, *shape), lambda d, t, j: (d,) + (0,) * len(shape),
      pipeline_mode=pl.Buffered(1))


def _compiler(interpret: bool) -> dict:
  """Return the options of the TPU's compiler."""
  if interpret:
    return {}
  return {"compiler_params": pltpu.CompilerParams(
      vmem_limit_bytes=_VMEM_LIMIT, dimension_semantics=("arbitrary",) * 3)}
