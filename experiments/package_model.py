"""Puts a trained model into one file, as `pixelrnn_jax/trained/mnist.npz` is one.

    python experiments/package_model.py --workdir=runs/NAME --output=FILE.npz

The last checkpoint, whose figures on the test split `evaluation.json` holds.
"""

import json
import os

import jax
from absl import flags

from pixelrnn_jax import cli
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.training import files, packaged
from pixelrnn_jax.training.restore import load_run

_WORKDIR = flags.DEFINE_string("workdir", None, "The work directory of the run.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.")


def main() -> None:
  workdir = cli.required("workdir", _WORKDIR.value)
  output = cli.required("output", _OUTPUT.value)
  run = load_run(workdir)
  path = os.path.join(workdir, files.EVALUATION)
  try:
    evaluation = json.loads(files.read_text(path) or "{}")
    figures_of = evaluation.get("split"), evaluation.get("step")
  except (ValueError, AttributeError) as error:
    raise InputError(f"{path} is damaged: {error}. Evaluate the run again.") from error
  if figures_of != ("test", run.step):
    raise InputError(
        f"{path} holds no figures of the test split at step {run.step}. Run"
        f" experiments/evaluate.py --workdir={workdir} first."
    )
  if part := files.unwritable_part(os.path.dirname(output)):
    raise InputError(
        f"--output={output}: {part!r} is not a directory that can be written to.")
  os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
  packaged.write(output, run.config, jax.device_get(run.params), evaluation)
  print(f"{output}: {os.path.getsize(output):,} bytes")


if __name__ == "__main__":
  cli.run(main)
