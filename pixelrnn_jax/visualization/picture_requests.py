"""What a user asks of a picture: its file, its images, its pixels, checked."""

import os
import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from pixelrnn_jax import arguments, data, files
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout, pretrained
from pixelrnn_jax.runs.restore import Run, load_images

_MOST_PIXELS = 12  # Matplotlib draws a few diagrams, not thousands


def parse_pixels(text: str | None) -> list[tuple[int, int]] | None:
  """Return (row, column) of each pixel in "row,column;row,column;..."; None of None.

  Raises:
    InputError: the text is not of that form.
  """
  if text is None:
    return None
  if not re.fullmatch(r"{0},{0}(;{0},{0})*".format("[0-9]{1,9}"), text):
    raise InputError(
        f"pixels={text!r}: give rows and columns from 0, as in '0,0;5,12'."
    )
  pairs = (pair.split(",") for pair in text.split(";"))
  return [(int(row), int(column)) for row, column in pairs]


def parse_examples(text: str | None) -> list[int] | None:
  """Return the numbers in "number,number,..."; None of None.

  Raises:
    InputError: the text is not of that form.
  """
  if text is None:
    return None
  if not re.fullmatch(r"{0}(,{0})*".format("[0-9]{1,9}"), text):
    raise InputError(f"examples={text!r}: give numbers of images from 0, as in '0,7'.")
  return [int(number) for number in text.split(",")]


def output_path(
    run: Run, workdir: str, output: str | None, kind: str, seed: int | None = None,
    temperature: float = 1.0,
) -> str:
  """Return the path of a picture of a run, checked.

  Args:
    run: the run.
    workdir: its work directory, or the name of a model in the package.
    output: the user's path. Without it the name says what is drawn, and the folder is
      the work directory's `samples/`, or `runs/pictures/` for a model in the package.
    kind: what is drawn.
    seed: the seed of the key, if there is one.
    temperature: the temperature of the samples.

  Raises:
    InputError: no picture can be written there.
  """
  name = f"{kind}_step_{run.step:08d}"
  name += "" if seed is None else f"_seed_{seed}"
  name += "" if temperature == 1 else f"_temperature_{temperature:g}"
  if pretrained.is_name(workdir):
    default = os.path.join(layout.PICTURES, f"{workdir}_{name}.png")
  else:
    default = os.path.join(files.expand(workdir), layout.SAMPLES, f"{name}.png")
  return check_output(output or default)


def check_output(path: str) -> str:
  """Return a path with `~` expanded.

  Raises:
    InputError: no picture can be written there.
  """
  path = files.expand(path)
  if not path.endswith(".png"):
    raise InputError(f"output={path!r}: pictures are PNG files; end it in .png.")
  if os.path.isdir(path):
    raise InputError(f"output={path!r} is a directory. Give the path of a file.")
  if part := files.unwritable_part(os.path.dirname(path)):
    raise InputError(
        f"output={path!r}: {part!r} is not a directory that can be written to."
        " Use another output."
    )
  return path


def seed_key(seed: int) -> jax.Array:
  """Return the key of a seed; raise InputError unless it is 0 to 2^32 - 1."""
  return jax.random.key(arguments.whole("seed", seed, least=0, most=2**32 - 1))


def make_folder(path: str) -> None:
  """Make the directory of a file that is about to be written."""
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)


def chosen_images(
    run: Run, split: str, moved: Mapping[str, str] | None,
    patterns: Sequence[str] | None, num: int | None, default: int,
    most: int | None = None, factors: tuple[int, ...] = (),
    examples: Sequence[int] | None = None,
) -> tuple[np.ndarray, str]:
  """Return the images of a picture: the user's own, or some of a split.

  Args:
    run: the run.
    split: the split, if there are no patterns.
    moved: see `load_images`.
    patterns: the user's own images; see `data.GivenImages`.
    num: number of images, if the user says it. A split's first ones are taken.
    default: number of images otherwise. All named files are taken.
    most: the most images that the picture holds.
    factors: the user's own images are subsampled by them.
    examples: the numbers of the images in the split, from 0, if the user chose them.

  Returns:
    uint8 [num, H, W, C], and a description.

  Raises:
    InputError: there are too few or too many images, or they cannot be read.
  """
  config = run.config
  if num is not None:
    num = arguments.whole("num", num)
  if examples is not None:
    if num is not None or patterns is not None:
      raise InputError(
          "examples are images of the split: give them without num and without own"
          " images.")
    examples = [arguments.whole("examples", each, least=0) for each in examples]
  if patterns is not None:
    images = data.GivenImages(
        patterns, config.model.image_shape, config.model.levels, factors)
    there, whose = len(images), "images are given"
    wanted = num or (there if images.named else min(default, there))
  else:
    images = load_images(run, split, moved)
    there, whose = len(images), f"images are in the {split} split"
    wanted = num or min(default, there)
    if examples is not None:
      wanted = len(examples)
      if wanted == 0 or max(examples) >= there:
        raise InputError(
            f"examples={examples}: give numbers from 0 to {there - 1}; {there}"
            f" {whose}.")
  if wanted > there:
    raise InputError(f"num={wanted}, but only {there} {whose}. Ask for fewer.")
  if most is not None and wanted > most:
    raise InputError(
        f"{wanted} images: such a picture holds at most {most}. Ask for fewer, with"
        " num."
    )
  if isinstance(images, data.GivenImages):
    return images.read(wanted), "own images"
  if examples is None:
    examples = range(wanted)
  return np.stack([images[i] for i in examples]), images.description


def choose_pixels(
    pixels: Sequence[tuple[int, int]] | None, height: int, width: int
) -> list[tuple[int, int]]:
  """Return the pixels, checked, or four that are evenly spread.

  Args:
    pixels: (row, column) of each, if the user chose them.
    height: H.
    width: W.

  Raises:
    InputError: there are too many, or one is outside the image.
  """
  if pixels is None:
    rows, columns = ((size // 4, 3 * size // 4) for size in (height, width))
    return list(dict.fromkeys((r, c) for r in rows for c in columns))
  try:
    pixels = list(pixels)
  except TypeError as error:
    raise InputError(
        f"pixels={arguments.shown(pixels)}: give a list of (row, column).") from error
  if not 1 <= len(pixels) <= _MOST_PIXELS:
    raise InputError(
        f"{len(pixels)} pixels: such a picture holds 1 to {_MOST_PIXELS}."
    )
  return [arguments.pixel(each, height, width) for each in pixels]
