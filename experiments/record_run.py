"""Keep the record of a run: its config, its figures and a thinned learning curve.

    python experiments/record_run.py --workdir=runs/NAME --output=docs/runs/NAME

The output is a work directory of a few kB without checkpoints. It is enough for

    python experiments/plot.py --what=curves --workdir=docs/runs/NAME

and docs/gallery has the curves of all runs that are recorded in docs/runs.
"""

if __name__ == "__main__":
  import startup

  startup.begin()

import json
import os

from absl import flags

import command_line
from pixelrnn_jax import files
from pixelrnn_jax.configs.json_text import to_json
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout
from pixelrnn_jax.runs.metrics import read_metrics, thin
from pixelrnn_jax.runs.restore import read_config

_WORKDIR = flags.DEFINE_string("workdir", None, "The work directory of the run.")
_OUTPUT = flags.DEFINE_string("output", None, "The folder to write to.")


def main() -> None:
  workdir = files.expand(command_line.required("workdir", _WORKDIR.value))
  output = files.expand(command_line.required("output", _OUTPUT.value))
  config, lines = read_config(workdir), read_metrics(workdir)
  if os.path.exists(os.path.join(output, layout.CHECKPOINTS)):
    raise InputError(
        f"--output={output} holds checkpoints, so it is a run itself. Name a folder for"
        " the record.")
  if part := files.unwritable_part(output):
    raise InputError(
        f"--output={output}: {part!r} is not a directory that can be written to.")
  os.makedirs(output, exist_ok=True)
  thinned = thin(lines, config.train.batch_size)
  text = {
      layout.CONFIG: to_json(config),
      layout.METRICS: "".join(json.dumps(line) + "\n" for line in thinned),
      layout.EVALUATION: files.read_text(os.path.join(workdir, layout.EVALUATION)),
  }
  for name, content in text.items():
    if content:
      files.write_text(os.path.join(output, name), content)
  print(f"{output}: {len(thinned)} of {len(lines)} lines of {layout.METRICS}")


if __name__ == "__main__":
  command_line.run(main)
