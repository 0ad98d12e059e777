"""Draw all pictures of README again, from the models in the package.

Learning curves are those of the runs that record_run.py has kept in docs/runs.

    python experiments/make_gallery.py

It writes PNG files to docs/gallery, or to --output. Run it when the code that draws or
a model in the package has changed.
"""

if __name__ == "__main__":
  import startup

  startup.begin()

import glob
import os

from absl import flags

import command_line
from pixelrnn_jax import files
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import KINDS
from pixelrnn_jax.runs.restore import read_config
from pixelrnn_jax.visualization import learning_curves, run_pictures

_DOCS = os.path.join(os.path.dirname(__file__), "..", "docs")
# The models of the package: samples to draw, the data of their runs, and how the names
# of their pictures end.
_MODELS = (
    ("mnist", 64, "packaged_mnist", ""), ("photos", 36, "packaged_photos", "_photos"))
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

  recorded = sorted(glob.glob(os.path.join(_RUNS.value, "*")))
  for name, samples, source, ending in _MODELS:
    print(run_pictures.draw_samples(name, samples, output=path(f"samples{ending}")))
    print(run_pictures.draw_completions(name, 8, output=path(f"completions{ending}")))
    runs = [run for run in recorded if read_config(run).data.source == source]
    for against in learning_curves.AXES if runs else ():
      print(learning_curves.draw_curves(
          runs, output=path(f"curves{ending}_{against}"), against=against))
  print(run_pictures.draw_nll("mnist", 6, output=path("nll")))
  # A test crop with a white sky and edges; its first pixel, the sky's edge, two more.
  print(run_pictures.draw_conditionals(
      "photos", pixels=[(0, 0), (14, 12), (6, 20), (16, 24)], examples=[579],
      output=path("conditionals_photos")))
  for kind in KINDS:
    config = load_config(f"{kind}_mnist")
    # The paper's kernels. More than 7 layers would reach past the edge.
    config.model.layers, config.model.kernel_size = 7, 3
    config.name = f"{kind}, 7 layers"
    print(run_pictures.draw_receptive_field(
        config, output=path(f"receptive_field_{kind}")))


if __name__ == "__main__":
  command_line.run(main)
