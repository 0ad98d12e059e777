r"""Diagrams: receptive fields, likelihoods value by value, learning curves.

    python experiments/plot.py --what=receptive_field --config=row_lstm_mnist
    python experiments/plot.py --what=receptive_field --workdir=runs/quickstart \
        --pixel=3,20
    python experiments/plot.py --what=nll --workdir=runs/quickstart --num=6
    python experiments/plot.py --what=curves --workdir=runs/one --workdir=runs/two

Writes one PNG, to --output. Without it, the PNG is in the work directory's samples/. If
there is not just one work directory, it is in runs/pictures/. Conditional distributions
are drawn by sample.py --conditionals.
"""

if __name__ == "__main__":
  import startup

  startup.begin()

from absl import flags

import command_line
import image_flags
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.visualization import learning_curves, picture_requests, run_pictures

_WHAT = flags.DEFINE_enum(
    "what", None, ["receptive_field", "nll", "curves"],
    "The receptive field of a pixel, by gradients; the bits of every value of images;"
    " training and validation figures by step.")
_WORKDIR = flags.DEFINE_multi_string(
    "workdir", [], "The work directory of the run; several for curves.")
_OUTPUT = flags.DEFINE_string("output", None, "The PNG file to write.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "last", ["last", "best"],
    "The last checkpoint, or the one with the best validation figure.")
_PIXEL = flags.DEFINE_string(
    "pixel", None, "The pixel, 'row,column'; the middle one by default.")
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the random images and, with --config, of the parameters.",
    lower_bound=0, upper_bound=2**32 - 1)
_NUM = flags.DEFINE_integer(
    "num", None, "Images: random ones to average over (8), or --images' files or the"
    " first ones of the --split to show (6; 3 in colour).")
image_flags.define()
_UNIT = flags.DEFINE_enum(
    "unit", None, ["nats", "bits/dim"],
    "The unit of the curves; by default nats if all models are binary.")
_AGAINST = flags.DEFINE_enum(
    "against", "steps", ["steps", "minutes"],
    "The horizontal axis of the curves: steps, or minutes of training.")

# The flags that not every diagram takes.
_TAKEN_BY = {
    "config": ("receptive_field",),
    "pixel": ("receptive_field",),
    "seed": ("receptive_field",),
    "checkpoint": ("receptive_field", "nll"),
    "num": ("receptive_field", "nll"),
    "split": ("nll",),
    "examples": ("nll",),
    "images": ("nll",),
    "unit": ("curves",),
    "against": ("curves",),
}


def main(config: Config | None) -> None:
  what = command_line.required("what", _WHAT.value)
  for name, takers in _TAKEN_BY.items():
    given = config is not None if name == "config" else flags.FLAGS[name].present
    if given and what not in takers:
      raise InputError(
          f"--{name} goes with --what={' or '.join(takers)}, not with {what}.")
  images = image_flags.chosen()
  workdirs = _WORKDIR.value
  if what == "curves":
    print(learning_curves.draw_curves(
        workdirs, _UNIT.value, _OUTPUT.value, _AGAINST.value))
    return
  if len(workdirs) > 1:
    raise InputError(f"--what={what} is of one run: give one --workdir.")
  workdir = workdirs[0] if workdirs else None
  if what == "nll":
    path = run_pictures.draw_nll(
        command_line.required("workdir", workdir), _NUM.value,
        which=_CHECKPOINT.value, output=_OUTPUT.value, **images)
  else:
    text = _PIXEL.value
    pixels = picture_requests.parse_pixels(text)
    if pixels is not None and len(pixels) > 1:
      raise InputError(f"--pixel={text}: give one, as in '5,12'.")
    path = run_pictures.draw_receptive_field(
        config, workdir, pixels[0] if pixels else None,
        8 if _NUM.value is None else _NUM.value, _SEED.value, _CHECKPOINT.value,
        _OUTPUT.value)
  print(path)


if __name__ == "__main__":
  command_line.run(main, config=True, optional=True)
