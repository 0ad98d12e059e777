r"""Compare trained models on the same images, with paired errors and other codecs.

    python experiments/compare.py --workdir=runs/row_lstm_photos \
        --workdir=runs/pixel_cnn_photos --workdir=runs/diagonal_bilstm_photos

Prints a Markdown table: bits for each value with standard errors, and each model's
difference from the first one with the error of that difference. PNG, WebP and JPEG XL
(after `pip install '.[codecs]'`) compress the same images, side by side as one.
--output writes the table to a file, too.
"""

if __name__ == "__main__":
  import allocator

  allocator.restart()  # before JAX is imported

import os

from absl import flags

import command_line
from pixelrnn_jax import files
from pixelrnn_jax.configs.schema import SPLITS
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs.restore import find_config
from pixelrnn_jax.studies import comparison
from pixelrnn_jax.training import parallel

_WORKDIR = flags.DEFINE_multi_string(
    "workdir", [], "The work directory of a run, or the name of a model in the package;"
    " may be repeated.")
_SPLIT = flags.DEFINE_enum(
    "split", "test", SPLITS[::-1], "The images to evaluate.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "last", ["last", "best"],
    "The last checkpoints, or those with the best validation figures.")
_OUTPUT = flags.DEFINE_string("output", None, "A file for the table.")


def main() -> None:
  if not _WORKDIR.value:
    raise InputError("Give at least one --workdir=DIR.")
  folder = os.path.dirname(os.path.abspath(_OUTPUT.value or "x"))
  if _OUTPUT.value and (part := files.unwritable_part(folder)):
    raise InputError(
        f"--output={_OUTPUT.value}: {part!r} is not a directory that can be written"
        " to.")
  parallel.use_cores(*map(find_config, _WORKDIR.value))
  table = comparison.compare(_WORKDIR.value, _SPLIT.value, _CHECKPOINT.value)
  print(f"\n{table}")
  if _OUTPUT.value:
    os.makedirs(folder, exist_ok=True)
    files.write_text(_OUTPUT.value, f"{table}\n")


if __name__ == "__main__":
  command_line.run(main)
