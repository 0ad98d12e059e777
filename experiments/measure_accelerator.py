"""Measure all figures of a real accelerator, in about ten minutes.

    python experiments/measure_accelerator.py --output=measured
    python experiments/measure_accelerator.py --output=measured --smoke  # a CPU

It measures training steps at the paper's sizes and batches and at the largest batch
that fits, sampling, a short training on MNIST, the scans, and choices one by one,
beside the largest matrix product of the same machine. measured/table.md has the main
figures as a table, and measured/measurements.json has all figures. Both are written
after each part. If a part fails, that is recorded, and the exit code is 1.
"""

if __name__ == "__main__":
  import startup

  startup.begin()

import os

import jax
from absl import flags

import command_line
from pixelrnn_jax import files
from pixelrnn_jax.configs.schema import DTYPES
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.studies import accelerator

_OUTPUT = flags.DEFINE_string("output", None, "The directory of the results.")
_SMOKE = flags.DEFINE_bool(
    "smoke", False, "Every kind of part on tiny sizes: figures mean nothing.")
_DTYPE = flags.DEFINE_enum(
    "dtype", "bfloat16", DTYPES[:2], "The dtype of the products; the training on MNIST"
    " keeps its own.")
_MINUTES = flags.DEFINE_float("minutes", 9.0, "No part begins after so many minutes.")


def main() -> None:
  output = files.expand(command_line.required("output", _OUTPUT.value))
  if part := files.unwritable_part(output):
    raise InputError(
        f"--output={output}: {part!r} is not a directory that can be written to.")
  if jax.default_backend() == "cpu" and not _SMOKE.value:
    raise InputError(
        "There is no accelerator here, and a CPU would take hours: give --smoke, or see"
        " benchmark_scan.py.")
  plan = accelerator.SMOKE if _SMOKE.value else accelerator.FULL
  problems = accelerator.measure_all(plan, _DTYPE.value, output, _MINUTES.value)
  print()
  print(files.read_text(os.path.join(output, accelerator.TABLE)))
  if problems:
    raise InputError(f"Not everything was measured: {'; '.join(problems)}.")


if __name__ == "__main__":
  command_line.run(main)
