r"""Evaluate a trained model: the exact negative log-likelihood of every image.

    python experiments/evaluate.py
    python experiments/evaluate.py --workdir=runs/quickstart
    python experiments/evaluate.py --workdir=runs/quickstart --checkpoint=best \
        --split=validation

Prints nats per image and bits per dimension of a split, and writes them to the work
directory's evaluation.json. Without a work directory, the trained model that comes with
the package is evaluated. If the data has moved since the training, --config.data.source
and --config.data.data_dir say where it is. Several processes are started as for
train.py.

Products are of the highest precision that the device has, unless
JAX_DEFAULT_MATMUL_PRECISION is set.
"""

if __name__ == "__main__":
  import allocator

  allocator.restart()  # before JAX is imported

from absl import flags

import command_line
from pixelrnn_jax.configs.schema import SPLITS
from pixelrnn_jax.runs.restore import find_config
from pixelrnn_jax.training import evaluate_run, parallel

_WORKDIR = flags.DEFINE_string(
    "workdir", "mnist", "The work directory of the run, or the name of a model in the"
    " package.")
_SPLIT = flags.DEFINE_enum(
    "split", "test", SPLITS[::-1], "The images to evaluate.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "last", ["last", "best"],
    "The last checkpoint, or the one with the best validation figure.")
_AS_TRAINED = flags.DEFINE_bool(
    "as_trained", False, "Evaluate a model with dtype=bfloat16 in bfloat16; without it"
    " every model is evaluated in float32, or float64 if it was trained so.")


def main() -> None:
  parallel.use_cores(find_config(_WORKDIR.value))
  evaluate_run(
      _WORKDIR.value, _SPLIT.value, _CHECKPOINT.value, command_line.moved_data(),
      _AS_TRAINED.value)


if __name__ == "__main__":
  command_line.define_data_flags()
  command_line.run(main, distributed=True)
