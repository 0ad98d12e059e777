"""Exact negative log-likelihood over every image of a split, once."""

import dataclasses
import importlib.metadata
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import cast

import jax
import numpy as np

from pixelrnn_jax import data, files, progress
from pixelrnn_jax.configs.schema import Config, ModelConfig
from pixelrnn_jax.errors import Diverged, out_of_memory
from pixelrnn_jax.inference import precision
from pixelrnn_jax.inference.likelihood import (
  bound_note,
  nats_to_bits_per_dim,
  scale_name,
)
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs import layout, pretrained
from pixelrnn_jax.runs.restore import Run, load_images, load_run
from pixelrnn_jax.training import parallel

PACKAGES = ("pixelrnn_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint",
            "grain", "numpy")
# A standard error over n groups has itself a relative error of 1 / sqrt(2 (n - 1)): a
# quarter for ten groups, a half for three.
FEWEST_GROUPS = 10


@dataclasses.dataclass
class Evaluation:
  """Negative log-likelihood over a split.

  Attributes:
    nats_per_image: mean of -log p(x), in nats.
    nats_standard_error: its standard error, from `standard_error`; None if there is
      none.
    bits_per_dim: the same mean, in bits per value of the image.
    bits_standard_error: its standard error.
    images: number of images.
    groups: the groups over which the standard error is taken, in words; "" if it is
      taken over the images.
    bound: a note that the figures are bounds, which those of all scales of a
      multi-scale model together are. "" if they are exact.
    scales: the figures of each scale of a multi-scale model, by size, the coarsest
      first. They are those of a scale given the scale before it. Their bits are per
      value of that scale.
  """

  nats_per_image: float
  nats_standard_error: float | None
  bits_per_dim: float
  bits_standard_error: float | None
  images: int
  groups: str = ""
  bound: str = ""
  scales: dict[str, "Evaluation"] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    """Return the figures as text."""
    sign = "<= " if self.bound else ""
    text = (
        f"{sign}{with_error(self.nats_per_image, self.nats_standard_error, 3)}"
        f" nats/image,"
        f" {sign}{with_error(self.bits_per_dim, self.bits_standard_error, 4)} bits/dim"
    )
    if self.bound:
      text += f" [{self.bound}"
      before = ""
      for size, figures in self.scales.items():
        text += f"; {size}{before}: {figures}"
        before = f" given {size}"
      text += "]"
    return text

  def over(self) -> str:
    """Return the images and groups of the mean and its standard error, as text."""
    if not self.groups:
      return f"{self.images} images"
    if self.nats_standard_error is None:
      return (
          f"{self.images} images of only {self.groups}, too few for a standard error")
    return f"{self.images} images, the standard error over {self.groups}"

  def record(self) -> dict:
    """Return the fields for JSON, without the empty ones."""
    fields = dict(vars(self))
    if not self.groups:
      del fields["groups"]
    if self.scales:
      fields["scales"] = {
          size: figures.record() for size, figures in self.scales.items()}
    else:
      del fields["bound"], fields["scales"]
    return fields


def with_error(figure: float, error: float | None, digits: int) -> str:
  """Return a figure as text, with its standard error if it has one."""
  if error is None:
    return f"{figure:.{digits}f}"
  return f"{figure:.{digits}f} +/- {error:.{digits}f}"


def evaluate(
    eval_step: Callable,
    params,
    source,
    config: Config,
    stop: Callable[[], bool] = lambda: False,
    label: str = "evaluating",
) -> Evaluation | None:
  """Evaluate parameters on every image of a source, once.

  Args:
    eval_step: see `image_nats`.
    params: see `image_nats`.
    source: see `image_nats`.
    config: see `image_nats`.
    stop: see `image_nats`.
    label: see `image_nats`.

  Returns:
    The figures, or None if the evaluation was ended.

  Raises:
    Diverged: an image's figure is not finite.
  """
  nats = image_nats(eval_step, params, source, config, stop, label)
  if nats is None:
    return None
  return summarize_scales(nats, config.model, source.groups, source.group_kind)


@out_of_memory(
    "Evaluation takes less with a smaller train.eval_batch_size, which is in the run's"
    " config.json.")
def image_nats(
    eval_step: Callable,
    params,
    source,
    config: Config,
    stop: Callable[[], bool] = lambda: False,
    label: str = "evaluating",
) -> np.ndarray | None:
  """Return the negative log-likelihood of every image of a source.

  Args:
    eval_step: from `parallel.make_eval_step`.
    params: the model's parameters, from `parallel.replicate`.
    source: images, from `data.load_source`.
    config: for the batch size and the image's shape.
    stop: called after each batch. True ends the evaluation.
    label: the label of the progress bar.

  Returns:
    Nats of each of the model's S scales, float64 [N, S], in the order of the images;
    None if the evaluation was ended.
  """
  results = []
  batches = data.eval_batches(
      source, config.train.eval_batch_size, jax.process_index(),
      jax.process_count())
  total = math.ceil(len(source) / config.train.eval_batch_size)
  for images, mask in progress.bar(
      label, total, "batches", batches, disable=jax.process_index() > 0):
    images, mask = parallel.pad(images), parallel.pad(mask)
    results.append(
        eval_step(params, parallel.shard(images), parallel.shard(mask)))
    parallel.wait(results)
    if stop():
      return None
  results = jax.device_get(results)
  return np.concatenate([nats[mask] for nats, mask in results]).astype(np.float64)


def summarize_scales(
    nats: np.ndarray, config: ModelConfig, groups: np.ndarray | None = None,
    kind: str = "",
) -> Evaluation:
  """Return the figures of the negative log-likelihoods of a model's scales.

  Args:
    nats: float64 [N, S].
    config: the configuration of the model.
    groups: see `summarize`.
    kind: see `summarize`.

  Raises:
    Diverged: some of the nats are not finite.
  """
  total = summarize(nats.sum(axis=1), config.image_shape, groups, kind)
  total.bound = bound_note(config)
  if total.bound:
    total.scales = {
        scale_name(config, s): summarize(nats[:, s], shape, groups, kind)
        for s, shape in enumerate(config.scale_shapes())}
  return total


def summarize(
    nats: np.ndarray, image_shape: tuple[int, int, int],
    groups: np.ndarray | None = None, kind: str = "",
) -> Evaluation:
  """Return the figures of negative log-likelihoods.

  Args:
    nats: the nats of the images, float64 [N].
    image_shape: (H, W, C) of an image.
    groups: the number of each image's group, [N], for images that are not independent;
      see `standard_error`.
    kind: a name for the groups, in the plural.

  Raises:
    Diverged: some of the nats are not finite.
  """
  broken = np.count_nonzero(~np.isfinite(nats))
  if broken:
    raise Diverged(
        f"The negative log-likelihood of {broken} of {nats.size} images is not"
        " finite: the model has diverged, or the images hold values that it does"
        " not know."
    )
  mean = float(np.mean(nats))
  error = standard_error(nats, groups)
  return Evaluation(
      nats_per_image=mean,
      nats_standard_error=error,
      bits_per_dim=nats_to_bits_per_dim(mean, image_shape),
      bits_standard_error=(
          None if error is None else nats_to_bits_per_dim(error, image_shape)),
      images=int(nats.size),
      groups="" if groups is None else f"{np.unique(groups).size} {kind}",
  )


def standard_error(
    values: np.ndarray, groups: np.ndarray | None = None
) -> float | None:
  """Return the standard error of the mean of values, which may come in groups.

  The G groups are independent of each other. The values within a group need not be.
  With N values in all and their mean m,

      error^2 = G / (G - 1) sum_g (sum_{i in g} (x_i - m))^2 / N^2.

  This is the cluster-robust variance of a mean. With one value in each group it is the
  sample variance over N.

  Args:
    values: float64 [N].
    groups: the number of each value's group, [N]; None if every value is a group.

  Returns:
    The error; None for a single value, or for fewer than `FEWEST_GROUPS` groups.
  """
  sums, fewest = values - np.mean(values), 2
  if groups is not None:
    _, numbers = np.unique(groups, return_inverse=True)
    sums, fewest = np.bincount(numbers, sums), FEWEST_GROUPS
  count = sums.size
  if count < fewest:
    return None
  return float(np.sqrt(count / (count - 1) * np.sum(sums**2)) / values.size)


def evaluated_config(config: ModelConfig, as_trained: bool = False) -> ModelConfig:
  """Return the configuration with which a model is evaluated.

  Products in bfloat16 are accurate enough for training, but not for figures. They shift
  likelihoods by a part of a nat and more. So such a model is evaluated in float32, with
  the same parameters.

  Args:
    config: the configuration of the training.
    as_trained: whether to keep bfloat16.
  """
  if as_trained or config.dtype != "bfloat16":
    return config
  return dataclasses.replace(config, dtype="float32")


def evaluate_run(
    workdir: str, split: str = "test", which: str = "last",
    moved: Mapping[str, str] | None = None, as_trained: bool = False,
) -> dict:
  """Evaluate a checkpoint, print the figures and write `evaluation.json`.

  Args:
    workdir: the work directory of the run, or the name of a model in the package. For
      such a model nothing is written.
    split: `test`, `validation` or `train`.
    which: `last` or `best` checkpoint.
    moved: see `load_images`.
    as_trained: evaluate a model of bfloat16 in bfloat16, not in float32.

  Returns:
    The record; see `report`.

  Raises:
    InputError: there is no such split, checkpoint or run, or no data.
  """
  data.check_split(split)
  workdir = files.expand(workdir)
  return evaluate_restored(
      load_run(workdir, which), split, which, moved, as_trained,
      None if pretrained.is_name(workdir) else workdir)


def evaluate_restored(
    run: Run, split: str = "test", which: str = "last",
    moved: Mapping[str, str] | None = None, as_trained: bool = False,
    workdir: str | None = None,
) -> dict:
  """Evaluate parameters that have been read, and print the figures.

  Args:
    run: from `load_run`.
    split: see `evaluate_run`.
    which: how the checkpoint was chosen, for the record.
    moved: see `evaluate_run`.
    as_trained: see `evaluate_run`.
    workdir: where to write `evaluation.json`. None writes nothing.

  Returns:
    The record; see `report`.

  Raises:
    InputError: there is no data.
  """
  source = load_images(run, split, moved)
  model = evaluated_config(run.config.model, as_trained)
  eval_step = parallel.make_eval_step(build_model(model))
  params = parallel.replicate(run.params)
  evaluation = evaluate(eval_step, params, source, run.config)
  return report(
      workdir, run.config, run.step, which, split, source.description,
      cast(Evaluation, evaluation), model.dtype)


def report(
    workdir: str | None,
    config: Config,
    step: int,
    which: str,
    split: str,
    description: str,
    evaluation: Evaluation,
    dtype: str,
) -> dict:
  """Print an evaluation and write it to `evaluation.json`, on process 0.

  Args:
    workdir: the work directory of the run. None writes nothing.
    config: the configuration of the run.
    step: the step of the checkpoint.
    which: how the checkpoint was chosen, `last` or `best`.
    split: the split that was evaluated.
    description: the description of the data.
    evaluation: the figures.
    dtype: the dtype of the products that the figures were computed with.

  Returns:
    The record: the figures, and the split, data, checkpoint, device and versions.
  """
  record = {
      **evaluation.record(),
      "split": split,
      "data": description,
      "config": config.name,
      "checkpoint": which,
      "step": step,
      "dtype": dtype,
      "products": precision.describe(dtype),
      "device": f"{jax.device_count()} {jax.devices()[0].device_kind}",
      "versions": {name: _version(name) for name in PACKAGES},
  }
  if jax.process_index() == 0:
    # Neither a disk that fails nor a reader that is gone takes the figures away.
    try:
      if workdir is not None:
        files.write_text(
            os.path.join(workdir, layout.EVALUATION),
            json.dumps(record, indent=2) + "\n")
    finally:
      progress.say(
          f"{split}: {evaluation} over {evaluation.over()} ({description};"
          f" {which} checkpoint, step {step}; products in {record['products']})"
      )
  return record


def read_evaluation(workdir: str, step: int) -> dict | None:
  """Return the record of the test split and the last checkpoint, from `report`.

  Figures of a model in bfloat16 do not count.

  Args:
    workdir: the work directory of the run.
    step: the step of the checkpoint.

  Returns:
    The record; None if there is none, or if it is of another split or checkpoint.
  """
  text = files.read_text(os.path.join(workdir, layout.EVALUATION))
  try:
    record = json.loads(text or "{}")
  except (ValueError, RecursionError):
    return None
  wanted = {"split": "test", "checkpoint": "last", "step": step}
  good = isinstance(record, dict) and wanted.items() <= record.items()
  return record if good and record.get("dtype") != "bfloat16" else None


def _version(package: str) -> str:
  """Return the version of an installed package."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return "not installed"
