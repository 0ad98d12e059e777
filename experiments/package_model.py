"""Put a trained model into one file, as `pixelrnn_jax/runs/trained/mnist.npz` is one.

    python experiments/package_model.py --workdir=runs/NAME --output=FILE.npz

The parameters are those of the last checkpoint. The work directory's `evaluation.json`
must hold its figures on the test split. With `--bits=14` the parameters are rounded to
14 significant bits, which makes the file a quarter smaller. The figures in the file are
then those of the rounded parameters, which are evaluated for it.
"""

if __name__ == "__main__":
  import startup

  startup.begin()

import dataclasses
import os

import jax
from absl import flags

import command_line
from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout, pretrained
from pixelrnn_jax.runs.restore import find_config, load_run
from pixelrnn_jax.training import parallel
from pixelrnn_jax.training.evaluation import evaluate_restored, read_evaluation

_WORKDIR = flags.DEFINE_string("workdir", None, "The work directory of the run.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.")
_BITS = flags.DEFINE_integer(
    "bits", 24, "Significant bits of a parameter; 24 keeps float32 as it is.",
    lower_bound=2, upper_bound=24)


def main() -> None:
  workdir = files.expand(command_line.required("workdir", _WORKDIR.value))
  output = files.expand(command_line.required("output", _OUTPUT.value))
  parallel.use_cores(find_config(workdir))
  run = load_run(workdir)
  evaluation = read_evaluation(workdir, run.step)
  if evaluation is None:
    raise InputError(
        f"{os.path.join(workdir, layout.EVALUATION)} holds no figures of the test split"
        f" at step {run.step}. Run experiments/evaluate.py --workdir={workdir} first."
    )
  if os.path.isdir(output):
    raise InputError(f"--output={output} is a directory: name a file in it.")
  if part := files.unwritable_part(os.path.dirname(output)):
    raise InputError(
        f"--output={output}: {part!r} is not a directory that can be written to.")
  params = jax.device_get(run.params)
  if _BITS.value < 24:
    params = pretrained.round_parameters(params, _BITS.value)
    evaluation = evaluate_restored(
        dataclasses.replace(run, params=params), moved=command_line.moved_data())
  os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
  pretrained.write(output, run.config, params, evaluation)
  print(f"{output}: {os.path.getsize(output):,} bytes")


if __name__ == "__main__":
  command_line.define_data_flags()
  command_line.run(main)
