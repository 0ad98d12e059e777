"""Draw all pictures of README again, from the models in the package.

Learning curves are those of the runs that record_run.py has kept in docs/runs.

    python experiments/make_gallery.py

It writes PNG files to docs/gallery, or to --output. Run it when the code that draws or
a model in the package has changed.
"""

import glob
import os

from absl import flags

import command_line
from pixelrnn_jax import files
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import KINDS
from pixelrnn_jax.visualization import learning_curves, run_pictures

_DOCS = os.path.join(os.path.dirname(__file__), "..", "docs")
_OUTPUT = flags.DEFINE_string(
    "output", os.path.join(_DOCS, "gallery"), "The folder to write to.")
_RUNS = flags.DEFINE_string(
    "runs", os.path.join(_DOCS, "runs"),
    "The folder with the records of runs, whose learning curves are drawn.")


def main() -> None:
  folder = os.path.normpath(files.expand(_OUTPUT.value))
  os.makedirs(folder, exist_ok=True)

  def path(name: str) -> str:
    return os.path.join(folder, f"{name}.png")

  for name, num, completed, ending in (("mnist", 64, 8, ""), ("photos", 32, 8, "_photos")):
    print(run_pictures.draw_samples(name, num, output=path(f"samples{ending}")))
    print(run_pictures.draw_completions(
        name, completed, output=path(f"completions{ending}")))
  print(run_pictures.draw_nll("mnist", 6, output=path("nll")))
  for kind in KINDS:
    config = load_config(f"{kind}_mnist")
    config.model.layers = min(config.model.layers, 7)  # more would reach past the edge
    print(run_pictures.draw_receptive_field(
        config, output=path(f"receptive_field_{kind}")))
  if recorded := sorted(glob.glob(os.path.join(_RUNS.value, "*"))):
    for against in learning_curves.AXES:
      print(learning_curves.draw_curves(
          recorded, output=path(f"curves_{against}"), against=against))


if __name__ == "__main__":
  command_line.run(main)
