"""Pictures of a trained run: samples, completions, large images grown from small
ones, conditional distributions, likelihoods, receptive fields, learning curves.

Each function restores a checkpoint or reads the metrics, writes one PNG and returns
its path, by default in the work directory's `samples/`; of a model that comes with the
package, whose name stands for the work directory, in the current one. Nothing is
written before everything that was asked for has been checked and drawn.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax import data, files, ops, progress
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference.likelihood import bound_note, log_probs, scale_name
from pixelrnn_jax.inference.receptive_field import receptive_field
from pixelrnn_jax.inference.sampling import check_temperature, complete, sample
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs import layout, pretrained
from pixelrnn_jax.runs.metrics import read_metrics, training_minutes
from pixelrnn_jax.runs.restore import Run, load_images, load_run, read_config
from pixelrnn_jax.visualization.grids import save_completions, save_grid, save_grown

# Matplotlib draws a few diagrams of a few images, not thousands.
_MOST_IMAGES, _MOST_PIXELS = 24, 12
# Of learning curves, as axes are labelled.
UNITS = {"nats": "NLL, nats per image", "bits/dim": "NLL, bits per dimension"}
AXES = {"steps": "steps", "minutes": "minutes of training, without validations"}


def draw_samples(
    workdir: str,
    num: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    which: str = "last",
    output: str | None = None,
    batch_size: int = 32,
) -> str:
  """Draws a grid of samples.

  Args:
    workdir: of the run.
    num: how many.
    temperature: see `sample`.
    seed: of the key; the first samples of one seed do not depend on `num`.
    which: `last` or `best` checkpoint.
    output: path of the PNG.
    batch_size: images that a device draws at a time.

  Raises:
    InputError: no such run or checkpoint, bad numbers, or a path that cannot be
      written.
  """
  _check_at_least(1, num=num, batch_size=batch_size)
  check_temperature(temperature)
  run = load_run(workdir, which)
  path = _output_path(run, workdir, output, "samples", seed, temperature)
  with progress.bar("sampling", num, "images") as bar:
    images = sample(
        run.model, {"params": run.params}, jax.random.key(seed), num, temperature,
        batch_size, bar.update)
  _make_folder(path)
  save_grid(images, path, run.config.model.levels)
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
) -> str:
  """Draws images whose lower part is hidden, completions of them, and originals.

  Args:
    num: images; by default 8 of the split, of folders or an `.npz`, or all files.
    completions: of each image.
    known_rows: rows at the top that are kept; half of them by default.
    split: whose first images are taken, if there are no files.
    patterns: the user's own images, see `data.GivenImages`.
    moved: where the data of the split is now, see `load_images`.
    The others: see `draw_samples`.

  Raises:
    InputError: as `draw_samples`, and for images that do not fit the model.
  """
  _check_at_least(1, completions=completions, batch_size=batch_size)
  check_temperature(temperature)
  run = load_run(workdir, which)
  height = run.config.model.image_shape[0]
  known_rows = height // 2 if known_rows is None else known_rows
  if not 0 <= known_rows < height:
    raise InputError(
        f"known_rows={known_rows}: must be from 0 (all is hidden) to {height - 1}"
        f" (all but one of the {height} rows are kept)."
    )
  path = _output_path(run, workdir, output, "completions", seed, temperature)
  images, _ = _images(run, split, moved, patterns, num, 8)
  known = np.zeros(images.shape[1:3], bool)
  known[:known_rows] = True
  with progress.bar("completing", len(images) * completions, "images") as bar:
    completed = complete(
        run.model, {"params": run.params}, jax.random.key(seed),
        images.repeat(completions, axis=0), known, temperature, batch_size,
        bar.update)
  completed = completed.reshape(len(images), completions, *images.shape[1:])
  _make_folder(path)
  save_completions(images, known, completed, path, run.config.model.levels)
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
) -> str:
  """Draws small images and large ones that a multi-scale model makes of them.

  Args:
    num: small images; by default 8 of the split, of folders or an `.npz`, or all files.
    grown: large images of each small one.
    split: whose first images are taken, if there are no files: they are subsampled
      to the smallest scale and shown as the originals.
    patterns: the user's own images, see `data.GivenImages`: of the smallest scale's
      size, or of any other, to be subsampled to it.
    moved: where the data of the split is now, see `load_images`.
    The others: see `draw_samples`.

  Raises:
    InputError: as `draw_completions`, and for a model of a single scale.
  """
  _check_at_least(1, grown=grown, batch_size=batch_size)
  check_temperature(temperature)
  run = load_run(workdir, which)
  model = run.config.model
  if not model.multi_scale:
    raise InputError(
        f"The model of {workdir!r} has a single scale: there is nothing to grow an"
        " image from. Give the --workdir of a multi-scale run, such as"
        " multi_scale_mnist's."
    )
  path = _output_path(run, workdir, output, "grown", seed, temperature)
  images, _ = _images(
      run, split, moved, patterns, num, 8, factors=model.multi_scale)
  originals = None
  if patterns is None:
    originals, images = images, ops.pyramid(images, model.multi_scale)[0]
  with progress.bar("growing", len(images) * grown, "images") as bar:
    large = sample(
        run.model, {"params": run.params}, jax.random.key(seed),
        temperature=temperature, batch_size=batch_size, progress=bar.update,
        small=images.repeat(grown, axis=0))
  large = large.reshape(len(images), grown, *large.shape[1:])
  _make_folder(path)
  save_grown(images, large, path, model.levels, originals)
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
) -> str:
  """Draws p(value | all values before it) in given images.

  For binary models, the probability of a 1 at every pixel; for others, a diagram
  of all values' probabilities for each channel of chosen pixels. Of a multi-scale
  model the largest scale's, given the smaller ones, whose values come before.

  Args:
    num: images; by default 2 of the split (6 for binary models), or all files.
    pixels: (row, column) of up to 12 pixels; by default four, evenly spread.
    The others: see `draw_completions`.

  Raises:
    InputError: as `draw_completions`, for pixels outside the image, or pixels
      and a binary model.
  """
  run = load_run(workdir, which)
  config = run.config.model
  binary = config.levels == 2
  if binary and pixels is not None:
    raise InputError(
        "Of a binary model every pixel's probability is shown: leave the pixels out."
    )
  chosen = [] if binary else _choose_pixels(pixels, *config.image_shape[:2])
  path = _output_path(run, workdir, output, "conditionals")
  images, _ = _images(
      run, split, moved, patterns, num, 6 if binary else 2, _MOST_IMAGES)

  @jax.jit
  def conditionals(params, image):
    logits = run.model.apply({"params": params}, image[None])
    if config.multi_scale:
      logits = logits[-1]
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
  _make_folder(path)
  figures.save_figure(figure, path)
  return path


def draw_nll(
    workdir: str,
    num: int | None = None,
    split: str = "test",
    patterns: Sequence[str] | None = None,
    which: str = "last",
    output: str | None = None,
    moved: Mapping[str, str] | None = None,
) -> str:
  """Draws -log2 p(value | all values before it) at every value of images, in bits.

  Above each image its sum, above all the data and what was done to it. Of a
  multi-scale model the largest scale's alone, given the smaller ones.

  Args:
    num: images; by default 6 of the split (3 in colour), or all files.
    The others: see `draw_completions`.

  Raises:
    InputError: as `draw_completions`, and where a figure is not finite.
  """
  run = load_run(workdir, which)
  config = run.config.model
  path = _output_path(run, workdir, output, "nll")
  images, description = _images(
      run, split, moved, patterns, num, 6 if config.image_shape[2] == 1 else 3,
      _MOST_IMAGES)

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
  of_images = zip(
      nats.sum(axis=(1, 2, 3)), bits.mean(axis=(1, 2, 3)), strict=True)
  titles = [f"{n:.1f} nats, " + (
      f"{n / math.log(2):.1f} bits" if config.levels == 2 else f"{b:.3f} bits/dim")
      for n, b in of_images]
  title = (
      f"-log2 p(value | all values before it), bits; {description};"
      f" {run.config.name}, step {run.step}"
  )
  if config.multi_scale:
    sizes = [scale_name(config, s) for s in range(len(config.multi_scale) + 1)]
    title += f"; {sizes[-1]} given {sizes[-2]} alone, without the smaller scales' own"
  figure = figures.nll_figure(images, bits, config.levels, titles, title)
  _make_folder(path)
  figures.save_figure(figure, path)
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
  """Draws what the logits of a pixel see, from gradients, as the paper's Figure 4.

  Args:
    config: of a model that is drawn with random parameters, or
    workdir: of a trained run.
    pixel: (row, column); by default the middle one.
    num: random images that gradients are averaged over.
    seed: of the images and, with a config, of the parameters.
    which: `last` or `best` checkpoint of the run.
    output: path of the PNG; by default in `samples/` of the run, or in the current
      directory.

  Raises:
    InputError: both or neither of config and workdir, a multi-scale model, a pixel
      outside the image, or as `draw_samples`.
  """
  if (config is None) == (workdir is None):
    raise InputError(
        "Receptive fields are drawn of a config, with random parameters, or of the"
        " run of a work directory: give one of them, --config or --workdir."
    )
  run = load_run(workdir, which) if config is None else None
  config = run.config if run else config
  height, width, channels = config.model.image_shape
  pixel = (height // 2, width // 2) if pixel is None else pixel
  kind = f"receptive_field_{pixel[0]}_{pixel[1]}"
  if run:
    path = _output_path(run, workdir, output, kind)
  else:
    name = re.sub(r"\W", "_", config.name)
    path = _check_output(output or f"{name}_{kind}.png")
  # In bfloat16 small gradients would be lost.
  precise = jnp.promote_types(config.model.dtype, jnp.float32)
  model = build_model(dataclasses.replace(config.model, dtype=str(precise)))
  of_params, of_field = jax.random.split(jax.random.key(seed))
  if run:
    variables = {"params": run.params}
  else:
    images = jnp.zeros((1, height, width, channels), jnp.uint8)
    variables = jax.jit(model.init)(of_params, images)
  field = np.asarray(receptive_field(model, variables, pixel, of_field, num))
  if not np.isfinite(field).all():
    raise InputError("The gradients are not finite: the model has diverged.")
  from pixelrnn_jax.visualization import figures  # Matplotlib takes a second

  name = f"{config.name}, " + (f"step {run.step}" if run else "untrained")
  figure = figures.receptive_field_figure([field.sum(axis=-1)], [name], pixel)
  _make_folder(path)
  figures.save_figure(figure, path)
  return path


def draw_curves(
    workdirs: Sequence[str], unit: str | None = None, output: str | None = None,
    against: str = "steps",
) -> str:
  """Draws learning curves of runs: training and validation, from `metrics.jsonl`.

  Args:
    workdirs: of the runs.
    unit: `nats` (per image) or `bits/dim`; by default nats if all of the models are
      binary.
    against: the horizontal axis, `steps` or `minutes` of training.
    output: path of the PNG; by default in `samples/` of a single run, or in the
      current directory.

  Raises:
    InputError: no such run, no figures in it, the same run twice, or a path that
      cannot be written.
  """
  if not workdirs:
    raise InputError("Learning curves are of one run or several: give a --workdir.")
  workdirs = [files.expand(workdir) for workdir in workdirs]
  full = [os.path.abspath(workdir) for workdir in workdirs]
  if len(set(full)) < len(full):
    raise InputError("The same --workdir is given twice.")
  models = [read_config(workdir).model for workdir in workdirs]
  if unit is None:
    unit = "nats" if all(model.levels == 2 for model in models) else "bits/dim"
  if unit not in UNITS:
    raise InputError(f"unit={unit!r}: must be one of {', '.join(UNITS)}.")
  if against not in AXES:
    raise InputError(f"against={against!r}: must be one of {', '.join(AXES)}.")
  folder = os.path.join(workdirs[0], layout.SAMPLES) if len(workdirs) == 1 else ""
  path = _check_output(output or os.path.join(folder, "curves.png"))
  curves, notes = [], []
  short = [os.path.basename(path) for path in full]
  names = short if len(set(short)) == len(short) else list(workdirs)
  for workdir, model, name in zip(workdirs, models, names, strict=True):
    points = curve_points(workdir, unit, against)
    if not points:
      raise InputError(
          f"{workdir!r} has no figures in {unit} of a whole model: nothing to draw.")
    curves.append((name, points.get("train", []), points.get("validation", [])))
    note = bound_note(model)
    of_data = [
        f"{part}: {points[f'{part} data'].removesuffix(f'; {note}')}"
        for part in ("train", "validation") if part in points]
    notes.append("; ".join([*of_data, *filter(None, [note])]))
  if len(set(notes)) == 1:
    title = notes[0]
  else:  # figures on different data stand side by side: say of which is what
    title = " | ".join(
        f"{name}: {note}" for name, note in zip(names, notes, strict=True))
  from pixelrnn_jax.visualization import figures  # Matplotlib takes a second

  figure = figures.curves_figure(curves, UNITS[unit], title, AXES[against])
  _make_folder(path)
  figures.save_figure(figure, path)
  return path


def curve_points(workdir: str, unit: str, against: str = "steps") -> dict:
  """The figures of a run by step or by minutes, from `metrics.jsonl`.

  Args:
    workdir: of the run.
    unit: one of `UNITS`.
    against: one of `AXES`.

  Returns:
    (step or minutes, figure) pairs by part, `train` and `validation`, and by "PART
    data" what they are of; without those that the run has no figures of.

  Raises:
    InputError: it has none at all.
  """
  field = {"nats": "nats_per_image", "bits/dim": "bits_per_dim"}[unit]
  points, lines = {}, read_metrics(workdir)
  places = [line["step"] for line in lines]
  if against == "minutes":
    places = training_minutes(lines, read_config(workdir).train.batch_size)
  for line, place in zip(lines, places, strict=True):
    for part in ("train", "validation"):
      figure, of = line.get(f"{part}/{field}"), line.get("data", "")
      if isinstance(figure, (int, float)) and isinstance(of, str):
        points.setdefault(part, []).append((float(place), figure))
        points[f"{part} data"] = of
  return points


def parse_pixels(text: str) -> list[tuple[int, int]]:
  """(row, column) of each pixel in "row,column;row,column;...".

  Raises:
    InputError: the text is not of that form.
  """
  if not re.fullmatch(r"\d+,\d+(;\d+,\d+)*", text):
    raise InputError(
        f"pixels={text!r}: give rows and columns from 0, as in '0,0;5,12'."
    )
  return [tuple(map(int, pair.split(","))) for pair in text.split(";")]


def _check_at_least(least: int, **values: int) -> None:
  """Raises InputError for a value below `least`."""
  for name, value in values.items():
    if value < least:
      raise InputError(f"{name}={value}: must be at least {least}.")


def _output_path(
    run: Run, workdir: str, output: str | None, kind: str, seed: int | None = None,
    temperature: float = 1.0,
) -> str:
  """`output`, or a name that says what is drawn; InputError if it is no good."""
  name = f"{kind}_step_{run.step:08d}"
  name += "" if seed is None else f"_seed_{seed}"
  name += "" if temperature == 1 else f"_temperature_{temperature:g}"
  if pretrained.is_name(workdir):
    default = f"{workdir}_{name}.png"
  else:
    default = os.path.join(files.expand(workdir), layout.SAMPLES, f"{name}.png")
  return _check_output(output or default)


def _check_output(path: str) -> str:
  """The path, `~` expanded; InputError if no picture can be written there."""
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


def _make_folder(path: str) -> None:
  """The directory of a file that is about to be written."""
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)


def _images(
    run: Run, split: str, moved: Mapping[str, str] | None,
    patterns: Sequence[str] | None, num: int | None, default: int,
    most: int | None = None, factors: tuple[int, ...] = (),
) -> tuple[np.ndarray, str]:
  """uint8 [num, H, W, C] of the user's own, or the first of a split, and what they are.

  With `factors` the user's own are subsampled by them.
  """
  config = run.config
  if num is not None:
    _check_at_least(1, num=num)
  if patterns is not None:
    given = data.GivenImages(
        patterns, config.model.image_shape, config.model.levels, factors)
    there, whose = len(given), "images are given"
    wanted = num or (there if given.named else min(default, there))
  else:
    source = load_images(run, split, moved)
    there, whose = len(source), f"images are in the {split} split"
    wanted = num or min(default, there)
  if wanted > there:
    raise InputError(f"num={wanted}, but only {there} {whose}. Ask for fewer.")
  if most is not None and wanted > most:
    raise InputError(
        f"{wanted} images: such a picture holds at most {most}. Ask for fewer, with"
        " num."
    )
  if patterns is not None:
    return given.read(wanted), "own images"
  return np.stack([source[i] for i in range(wanted)]), source.description


def _choose_pixels(
    pixels: Sequence[tuple[int, int]] | None, height: int, width: int
) -> list[tuple[int, int]]:
  """The pixels, checked, or four that are evenly spread."""
  if pixels is None:
    rows, columns = ((size // 4, 3 * size // 4) for size in (height, width))
    return list(dict.fromkeys((r, c) for r in rows for c in columns))
  if not 1 <= len(pixels) <= _MOST_PIXELS:
    raise InputError(
        f"{len(pixels)} pixels: such a picture holds 1 to {_MOST_PIXELS}."
    )
  for row, column in pixels:
    if not (0 <= row < height and 0 <= column < width):
      raise InputError(
          f"There is no pixel {row},{column}: rows are 0 to {height - 1}, columns 0"
          f" to {width - 1}."
      )
  return list(pixels)
