"""Pictures of a trained run.

They show samples, completions, large images grown from small ones, conditional
distributions, likelihoods and receptive fields.

Each function restores a checkpoint, writes one PNG and returns its path. By default it
is in the work directory's `samples/`. The name of a model in the package stands for a
work directory, too; its pictures are in `runs/pictures/`. Nothing is written before all
arguments have been checked and the picture is drawn. Each picture says what it shows,
below itself or above, and in the metadata of its file.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax import arguments, ops, progress
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference.likelihood import log_probs, scale_name
from pixelrnn_jax.inference.receptive_field import receptive_field
from pixelrnn_jax.inference.sampling import check_temperature, complete, sample
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs import layout
from pixelrnn_jax.runs.restore import load_run
from pixelrnn_jax.visualization.captions import Caption
from pixelrnn_jax.visualization.grids import save_completions, save_grid, save_grown
from pixelrnn_jax.visualization.picture_requests import (
  check_output,
  choose_pixels,
  chosen_images,
  make_folder,
  output_path,
  seed_key,
)

_MOST_IMAGES = 24  # Matplotlib draws a few diagrams, not thousands


def draw_samples(
    workdir: str,
    num: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    which: str = "last",
    output: str | None = None,
    batch_size: int = 32,
) -> str:
  """Draw a grid of samples.

  Args:
    workdir: the work directory of the run.
    num: number of samples.
    temperature: see `sample`.
    seed: the seed of the key. The first samples of a seed do not depend on `num`.
    which: `last` or `best` checkpoint.
    output: path of the PNG.
    batch_size: images that a device draws at a time.

  Returns:
    The path of the PNG.

  Raises:
    InputError: there is no such run or checkpoint, a number is out of range, or the
      path cannot be written.
  """
  num = arguments.whole("num", num)
  batch_size = arguments.whole("batch_size", batch_size)
  check_temperature(temperature)
  run = load_run(workdir, which)
  path = output_path(run, workdir, output, "samples", seed, temperature)
  with progress.bar("sampling", num, "images") as bar:
    images = np.asarray(sample(
        run.model, {"params": run.params}, seed_key(seed), num, temperature,
        batch_size, bar.update))
  make_folder(path)
  trained = f"trained on {run.data}" if run.data else ""
  save_grid(images, path, run.config.model.levels, caption=Caption(
      f"{num} samples{_at(temperature)}", run.config.name, run.step, trained, seed))
  return path


def draw_completions(
    workdir: str,
    num: int | None = None,
    completions: int = 4,
    known_rows: int | None = None,
    split: str = "test",
    patterns: Sequence[str] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    which: str = "last",
    output: str | None = None,
    batch_size: int = 32,
    moved: Mapping[str, str] | None = None,
    examples: Sequence[int] | None = None,
) -> str:
  """Draw images whose lower part is hidden, completions of them, and originals.

  Args:
    workdir: see `draw_samples`.
    num: number of images. The default is 8 of the split, of folders or an `.npz`, or
      all files.
    completions: number of completions of each image.
    known_rows: rows at the top that are kept. The default is half of them.
    split: its first images are taken, if there are no patterns.
    patterns: the user's own images; see `data.GivenImages`.
    temperature: see `draw_samples`.
    seed: see `draw_samples`.
    which: see `draw_samples`.
    output: see `draw_samples`.
    batch_size: see `draw_samples`.
    moved: see `load_images`.
    examples: the numbers of the split's images, from 0, in place of `num`.

  Returns:
    The path of the PNG.

  Raises:
    InputError: see `draw_samples`; also for images that do not fit the model.
  """
  completions = arguments.whole(
      "completions", completions, most=arguments.MOST_IMAGES)
  batch_size = arguments.whole("batch_size", batch_size)
  check_temperature(temperature)
  run = load_run(workdir, which)
  height = run.config.model.image_shape[0]
  known_rows = height // 2 if known_rows is None else arguments.whole(
      "known_rows", known_rows, least=None)
  if not 0 <= known_rows < height:
    raise InputError(
        f"known_rows={known_rows}: must be from 0 (all is hidden) to {height - 1}"
        f" (all but one of the {height} rows are kept)."
    )
  path = output_path(run, workdir, output, "completions", seed, temperature)
  images, described = chosen_images(
      run, split, moved, patterns, num, 8, examples=examples)
  known = np.zeros(images.shape[1:3], bool)
  known[:known_rows] = True
  with progress.bar("completing", len(images) * completions, "images") as bar:
    completed = complete(
        run.model, {"params": run.params}, seed_key(seed),
        images.repeat(completions, axis=0), known, temperature, batch_size,
        bar.update)
  completed = completed.reshape(len(images), completions, *images.shape[1:])
  make_folder(path)
  save_completions(
      images, known, completed, path, run.config.model.levels, caption=Caption(
          f"hidden, {completions} completions{_at(temperature)}, original",
          run.config.name, run.step, described, seed))
  return path


def draw_grown(
    workdir: str,
    num: int | None = None,
    grown: int = 4,
    split: str = "test",
    patterns: Sequence[str] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    which: str = "last",
    output: str | None = None,
    batch_size: int = 32,
    moved: Mapping[str, str] | None = None,
    examples: Sequence[int] | None = None,
) -> str:
  """Draw small images, and large ones that a multi-scale model makes of them.

  Args:
    workdir: see `draw_samples`.
    num: number of small images; see `draw_completions`.
    grown: number of large images of each small one.
    split: its first images are taken, if there are no patterns. They are subsampled to
      the smallest scale, and shown as the originals.
    patterns: the user's own images; see `data.GivenImages`. They have the smallest
      scale's size, or any other and are subsampled to it.
    temperature: see `draw_samples`.
    seed: see `draw_samples`.
    which: see `draw_samples`.
    output: see `draw_samples`.
    batch_size: see `draw_samples`.
    moved: see `load_images`.
    examples: see `draw_completions`.

  Returns:
    The path of the PNG.

  Raises:
    InputError: see `draw_completions`; also for a model of a single scale.
  """
  grown = arguments.whole("grown", grown, most=arguments.MOST_IMAGES)
  batch_size = arguments.whole("batch_size", batch_size)
  check_temperature(temperature)
  run = load_run(workdir, which)
  model = run.config.model
  if not model.multi_scale:
    raise InputError(
        f"The model of {workdir!r} has a single scale: there is nothing to grow an"
        " image from. Give the --workdir of a multi-scale run, such as"
        " multi_scale_mnist's."
    )
  path = output_path(run, workdir, output, "grown", seed, temperature)
  images, described = chosen_images(
      run, split, moved, patterns, num, 8, factors=model.multi_scale,
      examples=examples)
  originals = None
  if patterns is None:
    originals, images = images, ops.pyramid(images, model.multi_scale)[0]
  with progress.bar("growing", len(images) * grown, "images") as bar:
    large = np.asarray(sample(
        run.model, {"params": run.params}, seed_key(seed),
        temperature=temperature, batch_size=batch_size, progress=bar.update,
        small=images.repeat(grown, axis=0)))
  large = large.reshape(len(images), grown, *large.shape[1:])
  make_folder(path)
  original = "" if originals is None else ", original"
  save_grown(images, large, path, model.levels, originals, caption=Caption(
      f"small image, {grown} grown from it{_at(temperature)}{original}",
      run.config.name, run.step, described, seed))
  return path


def draw_conditionals(
    workdir: str,
    num: int | None = None,
    pixels: Sequence[tuple[int, int]] | None = None,
    split: str = "test",
    patterns: Sequence[str] | None = None,
    which: str = "last",
    output: str | None = None,
    moved: Mapping[str, str] | None = None,
    examples: Sequence[int] | None = None,
) -> str:
  """Draw p(value | all values before it) in given images.

  For binary models it is the probability of a 1 at every pixel. For others it is a
  diagram of all values' probabilities, for each channel of chosen pixels. For a
  multi-scale model the probabilities are those of the largest scale, given the smaller
  ones, whose values come before.

  Args:
    workdir: see `draw_samples`.
    num: number of images. The default is 2 of the split (6 for binary models), or all
      files.
    pixels: (row, column) of up to 12 pixels. The default is four, evenly spread.
    split: see `draw_completions`.
    patterns: see `draw_completions`.
    which: see `draw_samples`.
    output: see `draw_samples`.
    moved: see `load_images`.
    examples: see `draw_completions`.

  Returns:
    The path of the PNG.

  Raises:
    InputError: see `draw_completions`; also for pixels outside the image, or pixels and
      a binary model.
  """
  run = load_run(workdir, which)
  config = run.config.model
  binary = config.levels == 2
  if binary and pixels is not None:
    raise InputError(
        "Of a binary model every pixel's probability is shown: leave the pixels out."
    )
  chosen = [] if binary else choose_pixels(pixels, *config.image_shape[:2])
  path = output_path(run, workdir, output, "conditionals")
  images, described = chosen_images(
      run, split, moved, patterns, num, 6 if binary else 2, _MOST_IMAGES,
      examples=examples)

  @jax.jit
  def conditionals(params, image):
    # One array, or a tuple with one for each scale.
    logits = jax.tree.leaves(run.model.apply({"params": params}, image[None]))[-1]
    probabilities = jax.nn.softmax(logits[0])
    if binary:
      return probabilities[..., 1]
    rows, columns = np.array(chosen).T
    return probabilities[rows, columns]

  with progress.bar("conditionals", len(images), "images") as bar:
    drawn = []
    for image in images:
      drawn.append(np.asarray(conditionals(run.params, jnp.asarray(image))))
      bar.update()
  from pixelrnn_jax.visualization import figures  # Matplotlib takes a second

  probabilities = np.stack(drawn)
  if binary:
    figure = figures.probabilities_figure(images, probabilities)
  else:
    figure = figures.conditionals_figure(images, probabilities, chosen)
  make_folder(path)
  figures.save_figure(figure, path, Caption(
      "conditional distributions", run.config.name, run.step, described), below=True)
  return path


def draw_nll(
    workdir: str,
    num: int | None = None,
    split: str = "test",
    patterns: Sequence[str] | None = None,
    which: str = "last",
    output: str | None = None,
    moved: Mapping[str, str] | None = None,
    examples: Sequence[int] | None = None,
) -> str:
  """Draw -log2 p(value | all values before it) at every value of images, in bits.

  Each image has its sum above it. The title has the data and its treatment. For a
  multi-scale model the figures are those of the largest scale alone, given the smaller
  ones.

  Args:
    workdir: see `draw_samples`.
    num: number of images. The default is 6 of the split (3 in colour), or all files.
    split: see `draw_completions`.
    patterns: see `draw_completions`.
    which: see `draw_samples`.
    output: see `draw_samples`.
    moved: see `load_images`.
    examples: see `draw_completions`.

  Returns:
    The path of the PNG.

  Raises:
    InputError: see `draw_completions`; also for a figure that is not finite.
  """
  run = load_run(workdir, which)
  config = run.config.model
  path = output_path(run, workdir, output, "nll")
  images, description = chosen_images(
      run, split, moved, patterns, num, 6 if config.image_shape[2] == 1 else 3,
      _MOST_IMAGES, examples=examples)

  drawn = []
  nats_of = jax.jit(lambda params, image: -jax.tree.leaves(
      log_probs(run.model, {"params": params}, image[None]))[-1][0])
  with progress.bar("likelihoods", len(images), "images") as bar:
    for image in images:
      drawn.append(np.float64(nats_of(run.params, jnp.asarray(image))))
      bar.update()
  nats = np.stack(drawn)
  if not np.isfinite(nats).all():
    raise InputError(
        f"Likelihoods at step {run.step} are not finite: the model has diverged, or"
        " the images hold values that it does not know."
    )
  from pixelrnn_jax.visualization import figures  # Matplotlib takes a second

  bits = nats / math.log(2)
  totals = zip(nats.sum(axis=(1, 2, 3)), bits.mean(axis=(1, 2, 3)), strict=True)
  titles = [f"{n:.1f} nats, " + (
      f"{n / math.log(2):.1f} bits" if config.levels == 2 else f"{b:.3f} bits/dim")
      for n, b in totals]
  title = (
      f"-log2 p(value | all values before it), bits; {description};"
      f" {run.config.name}, step {run.step}"
  )
  *smaller, size = [scale_name(config, s) for s in range(len(config.scale_shapes()))]
  if smaller:
    title += f"; {size} given {smaller[-1]} alone, without the smaller scales' own"
  figure = figures.nll_figure(images, bits, config.levels, titles, title)
  make_folder(path)
  figures.save_figure(figure, path, Caption(
      "-log2 p(value | all values before it), bits", run.config.name, run.step,
      description))
  return path


def draw_receptive_field(
    config: Config | None = None,
    workdir: str | None = None,
    pixel: tuple[int, int] | None = None,
    num: int = 8,
    seed: int = 0,
    which: str = "last",
    output: str | None = None,
) -> str:
  """Draw what the logits of a pixel see, from gradients, as the paper's Figure 4.

  Give either a config or a work directory.

  Args:
    config: its model is drawn with random parameters.
    workdir: the work directory of a trained run.
    pixel: (row, column). The default is the middle one.
    num: number of random images over which gradients are averaged.
    seed: the seed of the images and, with a config, of the parameters.
    which: `last` or `best` checkpoint of the run.
    output: path of the PNG. The default is in `samples/` of the run, or in
      `runs/pictures/`.

  Returns:
    The path of the PNG.

  Raises:
    InputError: both or neither of config and workdir are given, the model has several
      scales, or the pixel is outside the image; otherwise see `draw_samples`.
  """
  run = None
  if workdir is not None and config is None:
    run = load_run(workdir, which)
    config = run.config
  elif config is None or workdir is not None:
    raise InputError(
        "Receptive fields are drawn of a config, with random parameters, or of the"
        " run of a work directory: give one of them, --config or --workdir."
    )
  height, width, channels = config.model.image_shape
  pixel = (height // 2, width // 2) if pixel is None else arguments.pixel(
      pixel, height, width)
  kind = f"receptive_field_{pixel[0]}_{pixel[1]}"
  if run and workdir is not None:
    path = output_path(run, workdir, output, kind)
  else:
    name = re.sub(r"\W", "_", config.name)
    path = check_output(
        output or os.path.join(layout.PICTURES, f"{name}_{kind}.png"))
  # In bfloat16 small gradients would be lost.
  precise = ops.at_least_float32(config.model.dtype)
  model = build_model(dataclasses.replace(config.model, dtype=str(precise)))
  params_key, field_key = jax.random.split(seed_key(seed))
  if run:
    variables = {"params": run.params}
  else:
    images = jnp.zeros((1, height, width, channels), jnp.uint8)
    variables = jax.jit(model.init)(params_key, images)
  field = np.asarray(receptive_field(model, variables, pixel, field_key, num))
  if not np.isfinite(field).all():
    raise InputError("The gradients are not finite: the model has diverged.")
  from pixelrnn_jax.visualization import figures  # Matplotlib takes a second

  name = f"{config.name}, " + (f"step {run.step}" if run else "untrained")
  figure = figures.receptive_field_figure([field.sum(axis=-1)], [name], pixel)
  make_folder(path)
  figures.save_figure(figure, path, Caption(
      f"receptive field of pixel {pixel[0]},{pixel[1]}", config.name,
      run.step if run else None, f"{num} random images", seed))
  return path


def _at(temperature: float) -> str:
  """Return the temperature for a caption, if it is not 1."""
  return "" if temperature == 1 else f" at temperature {temperature:g}"
