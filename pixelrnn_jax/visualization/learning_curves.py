"""Learning curves of one run or several, from their metrics."""

import os
from collections.abc import Sequence

from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference.likelihood import bound_note
from pixelrnn_jax.runs import layout
from pixelrnn_jax.runs.metrics import read_metrics, training_minutes
from pixelrnn_jax.runs.restore import read_config
from pixelrnn_jax.visualization.captions import Caption
from pixelrnn_jax.visualization.picture_requests import check_output, make_folder

PARTS = ("train", "validation")
# Labels of the axes, by unit.
UNITS = {"nats": "NLL, nats per image", "bits/dim": "NLL, bits per dimension"}
AXES = {"steps": "steps", "minutes": "minutes of training, without validations"}


def draw_curves(
    workdirs: Sequence[str], unit: str | None = None, output: str | None = None,
    against: str = "steps",
) -> str:
  """Draw learning curves of runs: training and validation, from `metrics.jsonl`.

  Args:
    workdirs: the work directories of the runs.
    unit: `nats` (per image) or `bits/dim`. The default is nats if all models are
      binary.
    output: path of the PNG. The default is in `samples/` of a single run, or in
      `runs/pictures/`.
    against: the horizontal axis, `steps` or `minutes` of training.

  Returns:
    The path of the PNG.

  Raises:
    InputError: there is no such run, it has no figures, it is given twice, or the path
      cannot be written.
  """
  if not workdirs:
    raise InputError("Learning curves are of one run or several: give a --workdir.")
  if isinstance(workdirs, (str, os.PathLike)):
    workdirs = [workdirs]
  workdirs = [files.expand(workdir) for workdir in workdirs]
  full = [os.path.abspath(workdir) for workdir in workdirs]
  if len(set(full)) < len(full):
    raise InputError("The same --workdir is given twice.")
  configs = [read_config(workdir) for workdir in workdirs]
  models = [config.model for config in configs]
  if unit is None:
    unit = "nats" if all(model.levels == 2 for model in models) else "bits/dim"
  if unit not in UNITS:
    raise InputError(f"unit={unit!r}: must be one of {', '.join(UNITS)}.")
  if against not in AXES:
    raise InputError(f"against={against!r}: must be one of {', '.join(AXES)}.")
  folder = layout.PICTURES
  if len(workdirs) == 1:
    folder = os.path.join(workdirs[0], layout.SAMPLES)
  path = check_output(output or os.path.join(folder, "curves.png"))
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
    described = [
        f"{part}: {points[f'{part} data'].removesuffix(f'; {note}')}"
        for part in PARTS if part in points]
    notes.append("; ".join([*described, *filter(None, [note])]))
  if len(set(notes)) == 1:
    title = notes[0]
  else:  # figures on different data stand side by side, so each is described
    names_by_note = {note: [] for note in notes}
    for name, note in zip(names, notes, strict=True):
      names_by_note[note].append(name)
    title = " | ".join(
        f"{', '.join(described)}: {note}"
        for note, described in names_by_note.items())
  from pixelrnn_jax.visualization import figures  # Matplotlib takes a second

  figure = figures.curves_figure(curves, UNITS[unit], title, AXES[against])
  make_folder(path)
  last = max(line["step"] for w in workdirs for line in read_metrics(w))
  figures.save_figure(figure, path, Caption(
      "learning curves", ", ".join(config.name for config in configs), int(last),
      title))
  return path


def curve_points(workdir: str, unit: str, against: str = "steps") -> dict:
  """Return the figures of a run by step or by minutes, from `metrics.jsonl`.

  Args:
    workdir: the work directory of the run.
    unit: one of `UNITS`.
    against: one of `AXES`.

  Returns:
    (step or minutes, figure) pairs by part, `train` and `validation`, and the
    description of their data by "PART data". Parts without figures are left out.

  Raises:
    InputError: the run has no figures at all.
  """
  field = {"nats": "nats_per_image", "bits/dim": "bits_per_dim"}[unit]
  points, lines = {}, read_metrics(workdir)
  places = [line["step"] for line in lines]
  if against == "minutes":
    places = training_minutes(lines, read_config(workdir).train.batch_size)
  for line, place in zip(lines, places, strict=True):
    for part in PARTS:
      figure, data = line.get(f"{part}/{field}"), line.get("data", "")
      if isinstance(figure, (int, float)) and isinstance(data, str):
        points.setdefault(part, []).append((float(place), figure))
        points[f"{part} data"] = data
  return points
