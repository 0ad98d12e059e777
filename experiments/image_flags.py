"""The flags that choose a picture's images: those of a split, or the user's own."""

from typing import Any

from absl import flags

import command_line
from pixelrnn_jax.configs.schema import SPLITS
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.visualization import picture_requests

flags.disclaim_key_flags()  # --help lists them as flags of the program


def define() -> None:
  """Define the flags; see `chosen`."""
  flags.DEFINE_enum("split", "test", SPLITS[::-1], "Where images come from.")
  flags.DEFINE_string(
      "examples", None, "Which images of the split, 'number,number'; the first by"
      " default.")
  flags.DEFINE_list(
      "images", None, "Your own images instead of a split: PNG and JPEG files by name"
      " or pattern, folders, .npz files.")


def chosen() -> dict[str, Any]:
  """Return the choice, as arguments of the functions of `run_pictures`.

  Raises:
    InputError: the flags contradict each other, or the numbers are not of their form.
  """
  values = flags.FLAGS
  if values.images is not None and values["split"].present:
    raise InputError("--images and --split: give one of them.")
  return dict(
      split=values.split, patterns=values.images,
      examples=picture_requests.parse_examples(values.examples),
      moved=command_line.moved_data())
