r"""Compile the Pallas kernels of the scans for TPUs, with none at hand.

    python3 -m venv .venv_tpu && .venv_tpu/bin/pip install -e '.[tpu]'
    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 .venv_tpu/bin/python \
        experiments/compile_kernels.py

A line for each kernel, forward and backward, at the paper's sizes and at h from 128 to
512. Exits with 1 where one does not compile. That it compiles says nothing of its
speed. Warnings about worker hostnames are harmless.
"""

if __name__ == "__main__":
  import startup

  startup.begin()

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import command_line
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.ops import pallas_scan

_TARGETS = flags.DEFINE_list("targets", ["v5e", "v6e"], "TPUs: v5e, v6e.")
# (height, width, batch, hidden units, kernel width, dtype)
_ROW = [
    (32, 32, 16, 128, 3, "bfloat16"), (32, 32, 16, 128, 3, "float32"),
    (32, 32, 64, 384, 3, "bfloat16"), (64, 64, 32, 512, 3, "bfloat16")]
_DIAGONAL = [
    (32, 32, 16, 128, 2, "bfloat16"), (32, 32, 16, 128, 2, "float32"),
    (32, 32, 64, 384, 2, "bfloat16"), (32, 32, 64, 512, 2, "bfloat16")]


def main() -> None:
  failed = []
  for target in _TARGETS.value:
    device = _device(target)
    for kind, sizes in (("row", _ROW), ("diagonal", _DIAGONAL)):
      for size in sizes:
        name = f"{target} {kind} {size}"
        start = time.perf_counter()
        try:
          _compile(kind, *size, device)
        except Exception as error:  # of the compiler: any kind
          failed.append(name)
          print(f"{name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        else:
          print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
  if failed:
    raise InputError(f"Not compiled: {'; '.join(failed)}.")


def _device(target: str) -> jax.Device:
  """Return a chip that is only described."""
  try:
    return topologies.get_topology_desc(
        topology_name=f"{target}:2x2", platform="tpu").devices[0]
  except Exception as error:
    raise InputError(
        f"The compiler for a {target} is not there: pip install 'jax[tpu]', and set"
        f" JAX_PLATFORMS=cpu and TPU_SKIP_MDS_QUERY=1. ({error})") from error


def _compile(
    kind: str, height: int, width: int, batch: int, units: int, taps: int, dtype: str,
    device: jax.Device,
) -> None:
  """Compile the values and all gradients of a scan."""
  sharding = NamedSharding(Mesh(np.array([device]), ("x",)), PartitionSpec())
  gates = 4 * units
  if kind == "row":
    steps, start = (height, width, batch), ()

    def scan(inputs, kernel, hidden, cell):
      return pallas_scan.row_scan(inputs, kernel, hidden, cell, interpret=False)

  else:
    diagonals = height + width - 1
    steps, start = (diagonals, 2, height, batch), (2,)

    def scan(inputs, kernel, hidden, cell):
      return pallas_scan.diagonal_scan(
          inputs, kernel, hidden, cell, diagonals, interpret=False)

  shapes = [
      ((*steps, gates), dtype), ((*start, taps, units, gates), "float32"),
      ((*start, units), "float32"), ((*start, units), "float32")]
  arguments = [
      jax.ShapeDtypeStruct(shape, jnp.dtype(of), sharding=sharding)
      for shape, of in shapes]
  states = jax.ShapeDtypeStruct((*steps, units), jnp.dtype(dtype), sharding=sharding)

  def gradients(gradient, *arguments):
    values, backward = jax.vjp(scan, *arguments)
    return values, backward(gradient)

  jax.jit(gradients).lower(states, *arguments).compile()


if __name__ == "__main__":
  command_line.run(main)
