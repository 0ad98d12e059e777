"""Ablations: one table and one picture of several runs that differ in a few fields.

The paper's ablations are its depth table and its table of residual and skip
connections, for Row LSTMs on CIFAR-10 (section 5.4, Tables 2 and 3).
"""

import ast
import dataclasses
import datetime
import itertools
import json
import math
import os
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from pixelrnn_jax import data, files
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.fields import set_field
from pixelrnn_jax.configs.schema import SPLITS, Config
from pixelrnn_jax.errors import Diverged, InputError
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs import layout
from pixelrnn_jax.runs.metrics import read_metrics
from pixelrnn_jax.runs.optimizer import check_schedule
from pixelrnn_jax.studies.tables import format_table
from pixelrnn_jax.training import parallel, train
from pixelrnn_jax.training.evaluation import read_evaluation, with_error
from pixelrnn_jax.training.workdir import check_workdir
from pixelrnn_jax.visualization import figures
from pixelrnn_jax.visualization.captions import Caption
from pixelrnn_jax.visualization.learning_curves import UNITS, curve_points

# The paper's bits/dim on the test split of CIFAR-10, by config.
PAPER = {
    "row_lstm_cifar10_depth1": 3.30,
    "row_lstm_cifar10_depth2": 3.20,
    "row_lstm_cifar10_depth3": 3.17,
    "row_lstm_cifar10_depth6": 3.09,
    "row_lstm_cifar10_depth9": 3.08,
    "row_lstm_cifar10_depth12": 3.06,
    "row_lstm_cifar10_plain": 3.22,
    "row_lstm_cifar10_skip": 3.09,
    "row_lstm_cifar10_residual": 3.07,
    "row_lstm_cifar10_both": 3.06,
}
TABLES = {
    "depth": [name for name in PAPER if "depth" in name],
    "connections": [name for name in PAPER if "depth" not in name],
}
RESULTS = "results"  # the files .json, .md and .png in the common work directory


@dataclasses.dataclass
class Variant:
  """One of the runs.

  Attributes:
    name: the name of its work directory, and its name in the table.
    config: the configuration of the run.
    paper: the paper's figure, bits/dim, if this is one of its experiments.
  """

  name: str
  config: Config
  paper: float | None


def make_variants(
    configs: Sequence[str], vary: Sequence[str] = (), settings: Sequence[str] = ()
) -> list[Variant]:
  """Return every config with every combination of the values that are varied.

  Args:
    configs: names; see `load_config`.
    vary: "part.field=VALUE,VALUE,...".
    settings: "part.field=VALUE", for all of them.

  Raises:
    InputError: a name or field is unknown, a value is not allowed, or two runs have one
      name.
  """
  varied = [[(path, value) for value in _values(text)]
            for path, text in map(_split, vary)]
  paths = [path for path, _ in map(_split, [*vary, *settings])]
  if doubled := {path for path in paths if paths.count(path) > 1}:
    raise InputError(f"{min(doubled)} is set more than once: give it once.")
  variants = []
  for name in configs:
    for combination in itertools.product(*varied):
      config = load_config(name)
      for path, text in map(_split, settings):
        set_field(config, path, _value(text))
      for path, value in combination:
        set_field(config, path, value)
      config.validate()
      original = load_config(name)
      same = (config.model, config.data) == (original.model, original.data)
      parts = [f"{path.partition('.')[2]}={_word(v)}" for path, v in combination]
      variants.append(Variant(
          ",".join([name.replace(":", "_"), *parts]), config,
          PAPER.get(name) if same else None))
  if not variants:
    raise InputError("An ablation is of one run or several: name a config.")
  names = [variant.name for variant in variants]
  if doubled := {name for name in names if names.count(name) > 1}:
    raise InputError(f"{min(doubled)} is there more than once: name it once.")
  return variants


def ablate(variants: Sequence[Variant], workdir: str) -> list[dict]:
  """Train and evaluate every variant, and compare them.

  Each variant has a work directory of its name in `workdir`; see `train`. It continues
  from its newest checkpoint, and a complete one is not trained again. After each
  variant, `results.md`, `results.json` and `results.png` in `workdir` hold all that are
  done. If a variant diverges, the others are trained all the same. It is named below
  their table, and the same call tries it again from its last checkpoint.

  Args:
    variants: from `make_variants`.
    workdir: made if it does not exist.

  Returns:
    A record of each variant: its figures (see `Evaluation`) and their data.

  Raises:
    InputError: a config, its data or its work directory cannot be used, or `workdir` is
      that of a single run. Then nothing was written. Otherwise see `train`.
    Diverged: some variants diverged. It is raised after the others are done.
    Interrupted: SIGTERM or SIGINT came. The same call continues.
  """
  workdir = files.expand(workdir)
  workdirs = [os.path.join(workdir, variant.name) for variant in variants]
  if os.path.exists(os.path.join(workdir, layout.CONFIG)):
    raise InputError(
        f"--workdir={workdir} is the work directory of a single run. Use another one:"
        " it will hold those of all runs."
    )
  loaded = {}  # training images
  for variant, folder in zip(variants, workdirs, strict=True):
    config = variant.config
    config.validate()
    parallel.check_batch_size(config.train)
    check_schedule(config)
    check_workdir(config, folder)
    needed = repr((config.data, config.model.image_shape, config.model.levels))
    if needed not in loaded:
      sources = [data.load_source(config, split) for split in SPLITS]
      loaded[needed] = sources[0]
    data.check_enough(config, loaded[needed])
  diverged, records = [], []
  for number, (variant, folder) in enumerate(zip(variants, workdirs, strict=True)):
    if jax.process_index() == 0:
      print(f"{variant.name}: {number + 1} of {len(variants)}", flush=True)
    try:
      train(variant.config, folder)
    except Diverged as error:
      diverged.append(f"{variant.name}: {error}")
      if jax.process_index() == 0:
        print(diverged[-1], flush=True)
    records = [
        record for variant, folder in zip(variants, workdirs, strict=True)
        if (record := _record(variant, folder))]
    if records and jax.process_index() == 0:
      try:
        _write(records, diverged, workdir)
      except OSError as error:
        raise InputError(
            f"The results of {workdir} could not be written: {error}. Mend that; the"
            " same command goes on from there."
        ) from error
  if diverged:
    raise Diverged("; ".join(diverged))
  return records


def format_results(records: Sequence[dict], diverged: Sequence[str] = ()) -> str:
  """Return the records of `ablate` as a Markdown table with notes.

  Args:
    records: the records of the runs that are done.
    diverged: a line for each run that diverged.
  """
  unit, figure, error = _fields(records)
  datas = sorted({record["data"] for record in records})
  head = ["run", "parameters", "steps", "minutes", f"validation, {unit}",
          f"test, {unit}", "above the best", "paper",
          *(["data"] if len(datas) > 1 else [])]
  lines = []
  digits = 2 if unit == "nats" else 4
  for r in records:
    sign = "<= " if "bound" in r else ""
    # A bound cannot be compared, and figures on other data cannot.
    comparable = [
        other[figure] for other in records
        if other["data"] == r["data"] and "bound" not in other]
    above = "" if sign else f"{r[figure] - min(comparable):.{digits}f}"
    validation = r[f"validation_{figure}"]
    lines.append([
        f"`{r['run']}`", f"{r['parameters']:,}", f"{r['step']:,}",
        f"{r['minutes']:.1f}",
        f"{sign}{validation:.{digits}f}",
        sign + with_error(r[figure], r[error], digits),
        above,
        f"{r['paper']:.2f}" if r["paper"] and unit == "bits/dim" else "",
        *([r["data"]] if len(datas) > 1 else [])])

  def all_of(values):
    return " and ".join(sorted({str(value) for value in values}))

  notes = [
      f"{'; '.join(datas)}; {all_of(r['images'] for r in records)} images; last"
      " checkpoints; +/- is the standard error over the"
      f" {all_of(r.get('groups', 'images') for r in records)}, of one seed; minutes of"
      f" steps; {all_of(r['device'] for r in records)}, JAX"
      f" {all_of(r['versions']['jax'] for r in records)},"
      f" {all_of(r['date'] for r in records)}.",
      *sorted({f"<=: {r['bound']}." for r in records if "bound" in r}),
      *(f"Diverged: {line}" for line in diverged)]
  return "\n".join([format_table(head, lines), "", *notes])


def _split(text: str) -> tuple[str, str]:
  """Split "part.field=VALUE" in two."""
  path, equals, value = text.partition("=")
  if not equals or not value:
    raise InputError(
        f"{text!r}: give a field and its value, as in 'model.layers=3' or, to vary it,"
        " 'model.layers=1,2,3'."
    )
  return path, value


def _value(text: str):
  """Return a number, True, a tuple, ..., or the text itself."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text


def _values(text: str) -> list:
  """Return the values of "VALUE,VALUE,..."; a tuple is one value."""
  values = _value(f"({text},)")
  return list(values) if isinstance(values, tuple) else text.split(",")


def _word(value) -> str:
  """Return a value as part of a directory's name."""
  return re.sub(r"[^\w.+-]+", "_", str(value)).strip("_")


def _record(variant: Variant, folder: str) -> dict | None:
  """Return the record of a run; None if it is not done."""
  config = variant.config
  record = read_evaluation(folder, config.train.steps)
  if record is None:
    return None
  metrics = read_metrics(folder)
  validation = [line for line in metrics if "validation/nats_per_image" in line][-1]
  seconds = before = 0
  for line in metrics:
    if speed := line.get("train/images_per_second"):
      seconds += (line["step"] - before) * config.train.batch_size / speed
      before = line["step"]
  images = jax.ShapeDtypeStruct((1, *config.model.image_shape), jnp.uint8)
  variables = jax.eval_shape(build_model(config.model).init, jax.random.key(0), images)
  evaluated = os.path.getmtime(os.path.join(folder, layout.EVALUATION))
  return record | {
      "run": variant.name,
      "parameters": sum(x.size for x in jax.tree.leaves(variables)),
      "validation_nats_per_image": validation["validation/nats_per_image"],
      "validation_bits_per_dim": validation["validation/bits_per_dim"],
      "minutes": seconds / 60,
      "binary": config.model.levels == 2,
      "paper": variant.paper,
      "date": str(datetime.date.fromtimestamp(evaluated)),
  }


def _fields(records: Sequence[dict]) -> tuple[str, str, str]:
  """Return the unit, and the names of the figure and its standard error."""
  if all(record["binary"] for record in records):
    return "nats", "nats_per_image", "nats_standard_error"
  return "bits/dim", "bits_per_dim", "bits_standard_error"


def _write(records: list[dict], diverged: list[str], workdir: str) -> None:
  """Print the table, and write the results."""
  table = format_results(records, diverged)
  print(f"\n{table}\n", flush=True)
  path = os.path.join(workdir, RESULTS)
  files.write_text(f"{path}.md", f"{table}\n")
  files.write_text(f"{path}.json", json.dumps(records, indent=2) + "\n")
  unit, figure, error = _fields(records)
  curves = []
  for record in records:
    points = curve_points(os.path.join(workdir, record["run"]), unit)
    curves.append(
        (record["run"], points.get("train", []), points.get("validation", [])))
  drawn = figures.ablation_figure(
      [record[figure] for record in records],
      [math.nan if record[error] is None else record[error] for record in records],
      ["bound" in record for record in records],
      [record["paper"] if unit == "bits/dim" else None for record in records],
      curves, UNITS[unit], table.partition("\n\n")[2])
  names = sorted({record["config"] for record in records})
  steps = max(record["step"] for record in records)
  figures.save_figure(drawn, f"{path}.png", Caption(
      "test figures and learning curves of several runs", ", ".join(names), steps,
      "; ".join(sorted({record["data"] for record in records}))))
