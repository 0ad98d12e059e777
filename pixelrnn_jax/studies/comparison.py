"""Trained models on the same images, with paired errors, beside lossless formats.

An image that is hard for one model is hard for another. So the differences of two
models, image by image, vary far less than the figures themselves. Each row has the mean
difference from the first model, and that mean's standard error.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import cast

import jax
import numpy as np

from pixelrnn_jax.data.sources import ImageSource
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference.likelihood import bound_note, nats_to_bits_per_dim
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs.restore import load_images, load_run
from pixelrnn_jax.studies import image_codecs
from pixelrnn_jax.studies.tables import describe_machine, format_table
from pixelrnn_jax.training import parallel
from pixelrnn_jax.training.evaluation import (
  evaluated_config,
  image_nats,
  standard_error,
  summarize,
  with_error,
)


@dataclasses.dataclass
class Row:
  """A model's figures.

  Attributes:
    name: the name of the work directory.
    kind: the kind of the network.
    parameters: number of parameters.
    step: the step of the checkpoint.
    bits: bits per value of each image, float64 [N].
    bound: whether they are upper bounds (several scales).
  """

  name: str
  kind: str
  parameters: int
  step: int
  bits: np.ndarray
  bound: bool


def compare(
    workdirs: Sequence[str], split: str = "test", which: str = "last",
    say: Callable[[str], None] = print,
) -> str:
  """Evaluate runs on the same images, and compress those with other codecs.

  Args:
    workdirs: the work directories of the runs, or names of models in the package. The
      differences are from the first one.
    split: `test`, `validation` or `train`.
    which: `last` or `best` checkpoint.
    say: called with a line for each run that is begun.

  Returns:
    A Markdown table, and a description of its images.

  Raises:
    InputError: there is no such run, or two runs have different images.
  """
  runs = [load_run(workdir, which) for workdir in workdirs]
  sources = [load_images(run, split) for run in runs]
  first = sources[0]
  for workdir, source in zip(workdirs[1:], sources[1:], strict=True):
    if not _same(first, source):
      raise InputError(
          f"{workdir} is on other images than {workdirs[0]} ({source.description}, not"
          f" {first.description}): their figures cannot be compared. Evaluate each by"
          " itself with experiments/evaluate.py."
      )
  rows = []
  for workdir, run in zip(workdirs, runs, strict=True):
    say(f"{workdir}: {len(first):,} images")
    nats = cast(np.ndarray, image_nats(
        parallel.make_eval_step(build_model(evaluated_config(run.config.model))),
        parallel.replicate(run.params), first, run.config))
    rows.append(Row(
        name=workdir, kind=run.config.model.kind,
        parameters=sum(x.size for x in jax.tree.leaves(run.params)), step=run.step,
        bits=nats_to_bits_per_dim(nats.sum(axis=1), run.config.model.image_shape),
        bound=bool(bound_note(run.config.model))))
  levels = runs[0].config.model.levels
  images = np.stack([first[i] for i in range(len(first))])
  return format_comparison(rows, first, codec_bits(images, levels))


def codec_bits(images: np.ndarray, levels: int) -> dict[str, float]:
  """Return bits per value by codec, for all images side by side as one.

  Args:
    images: uint8 [N, H, W, C], values 0 to levels - 1.
    levels: number of values.
  """
  together = image_codecs.sheet(images)
  return {
      name: 8 * len(encode(together, levels)) / images.size
      for name, encode in image_codecs.available(levels).items()}


def format_comparison(
    rows: Sequence[Row], source: ImageSource, codecs: dict[str, float]
) -> str:
  """Return the table of `compare`.

  Args:
    rows: the rows of the models.
    source: the images.
    codecs: bits per value by name.
  """
  lines = []
  for row in rows:
    sign = "<= " if row.bound else ""
    difference = row.bits - rows[0].bits
    # A bound may be any distance above the figure, so nothing follows from it.
    paired = "" if row is rows[0] or row.bound or rows[0].bound else with_error(
        float(np.mean(difference)), standard_error(difference, source.groups), 4)
    lines.append([
        f"`{row.name}`", row.kind, f"{row.parameters:,}", f"{row.step:,}",
        sign + with_error(
            float(np.mean(row.bits)), standard_error(row.bits, source.groups), 4),
        paired])
  for name, bits in codecs.items():
    lines.append([f"{name}, lossless", "", "", "", f"{bits:.4f}", ""])
  header = ["", "kind", "parameters", "steps", "bits/dim", "minus the first"]
  # `over` depends on the images alone, but needs some figures.
  over = summarize(rows[0].bits, (1, 1, 1), source.groups, source.group_kind).over()
  return "\n".join([
      format_table(header, lines), "",
      f"{source.description}: {over}. Codecs: all images side by side as one image,"
      f" bits for each value. {describe_machine()}."])


def _same(first: ImageSource, second: ImageSource) -> bool:
  """Return whether two sources have the same images."""
  return len(first) == len(second) and all(
      np.array_equal(first[i], second[i]) for i in range(len(first)))
