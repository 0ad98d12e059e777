r"""Draw pictures of a trained model.

They are samples, completions, large images grown from small ones, or conditional
distributions:

    python experiments/sample.py
    python experiments/sample.py --workdir=runs/quickstart --num=64
    python experiments/sample.py --workdir=runs/quickstart --complete
    python experiments/sample.py --workdir=runs/quickstart --complete \
        --images='digits/*.png' --completions=6 --known_rows=10
    python experiments/sample.py --workdir=runs/quickstart --conditionals
    python experiments/sample.py --workdir=runs/multi_scale_mnist --grow

Writes one PNG, to --output. Without it, the PNG is in the work directory's samples/. A
--seed gives the same picture whatever the --batch_size. Without a work directory, the
trained model that comes with the package is used, and the PNG is in runs/pictures/. If
no kind of picture is given either, both samples and completions are drawn. If the data
has moved since the training, --config.data.source and --config.data.data_dir say where
it is.
"""

if __name__ == "__main__":
  import startup

  startup.begin()

from typing import Any

from absl import flags

import command_line
import image_flags
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.visualization import picture_requests, run_pictures

_WORKDIR = flags.DEFINE_string(
    "workdir", "mnist", "The work directory of the run, or the name of a model in the"
    " package.")
_NUM = flags.DEFINE_integer(
    "num", None, "Samples (64), or images to complete (8), to grow (8) or to look at:"
    " --images' files, or the first ones of the --split.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "last", ["last", "best"],
    "The last checkpoint, or the one with the best validation figure.")
_OUTPUT = flags.DEFINE_string("output", None, "The PNG file to write.")
_COMPLETE = flags.DEFINE_bool(
    "complete", False, "Hide the lower part of images and complete it.")
_GROW = flags.DEFINE_bool(
    "grow", False, "Make large images of small ones, with a multi-scale model.")
_CONDITIONALS = flags.DEFINE_bool(
    "conditionals", False, "Show the distributions of values given those before.")
_TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "Divides the logits. 1 is the model's distribution. A lower one"
    " favours probable values.")
_SEED = flags.DEFINE_integer(
    "seed", 0, "Another seed gives other samples.", lower_bound=0,
    upper_bound=2**32 - 1)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Images that a device draws at a time.")
image_flags.define()
_COMPLETIONS = flags.DEFINE_integer(
    "completions", 4, "Completions, or large images, of an image.")
_KNOWN_ROWS = flags.DEFINE_integer(
    "known_rows", None, "Rows at the top that are kept; half by default.")
_PIXELS = flags.DEFINE_string(
    "pixels", None, "The pixels to look at, 'row,column;row,column'; four by default.")

# The flags that not every kind of picture takes.
_TAKEN_BY = {
    "temperature": "samples, --complete, --grow",
    "seed": "samples, --complete, --grow",
    "batch_size": "samples, --complete, --grow",
    "split": "--complete, --grow, --conditionals",
    "examples": "--complete, --grow, --conditionals",
    "images": "--complete, --grow, --conditionals",
    "completions": "--complete, --grow",
    "known_rows": "--complete", "pixels": "--conditionals",
}


def main() -> None:
  kinds = [f"--{name}" for name in ("complete", "grow", "conditionals")
           if flags.FLAGS[name].value]
  if len(kinds) > 1:
    raise InputError(f"{' and '.join(kinds)} are two pictures: give one.")
  kind = kinds[0] if kinds else "samples"
  images = dict(image_flags.chosen(), num=_NUM.value)
  for name, kinds in _TAKEN_BY.items():
    if flags.FLAGS[name].present and kind not in kinds:
      raise InputError(f"--{name} goes with {kinds}, not with {kind}.")
  workdir = _WORKDIR.value
  common: dict[str, Any] = dict(which=_CHECKPOINT.value, output=_OUTPUT.value)
  drawing: dict[str, Any] = dict(
      temperature=_TEMPERATURE.value, seed=_SEED.value, batch_size=_BATCH_SIZE.value)
  if _COMPLETE.value:
    path = run_pictures.draw_completions(
        workdir, completions=_COMPLETIONS.value, known_rows=_KNOWN_ROWS.value,
        **images, **drawing, **common)
  elif _GROW.value:
    path = run_pictures.draw_grown(
        workdir, grown=_COMPLETIONS.value, **images, **drawing, **common)
  elif _CONDITIONALS.value:
    pixels = picture_requests.parse_pixels(_PIXELS.value)
    path = run_pictures.draw_conditionals(workdir, pixels=pixels, **images, **common)
  else:
    num = 64 if _NUM.value is None else _NUM.value
    path = run_pictures.draw_samples(workdir, num, **drawing, **common)
    if not flags.FLAGS["workdir"].present and _OUTPUT.value is None:
      print(path)
      path = run_pictures.draw_completions(
          workdir, moved=command_line.moved_data(), **drawing, **common)
  print(path)


if __name__ == "__main__":
  command_line.define_data_flags()
  command_line.run(main)
