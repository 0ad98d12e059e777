"""The metrics of the steps between two lines of `metrics.jsonl`."""

import math
import time

import jax
import numpy as np

from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import Diverged
from pixelrnn_jax.inference.likelihood import bound_note, nats_to_bits_per_dim
from pixelrnn_jax.runs.optimizer import make_schedule
from pixelrnn_jax.runs.state import trained_scales
from pixelrnn_jax.training import parallel


class Window:
  """The steps since the last line of metrics."""

  def __init__(self, config: Config, updates_missed: dict[str, int]):
    """Make an empty window.

    Args:
      config: the experiment.
      updates_missed: the number of steps in which each trained scale was not trained,
        by the suffix of its metrics.
    """
    self.config = config
    self.updates_missed = updates_missed
    self.schedule = make_schedule(config.optimizer, config.train.steps)
    self.results = []
    self.images = 0  # since the clock was started
    self.start = 0.0
    self.compiled = False

  def append(self, metrics: dict) -> None:
    """Add the metrics of a step, which stay on the device."""
    self.results.append(metrics)
    if not self.compiled:
      jax.block_until_ready(metrics)  # the first step includes compilation
      self.compiled = True
      self.open()
    else:
      parallel.wait(self.results)
      self.images += self.config.train.batch_size

  def open(self) -> None:
    """Start the clock."""
    self.start = time.perf_counter()
    self.images = 0

  def close(self, step: int) -> dict[str, float]:
    """Bring the metrics to the host, and empty the window.

    Args:
      step: the number of the last step in the window.

    Returns:
      Means over the window, by name.

    Raises:
      Diverged: the loss or the gradient of a step was not finite.
    """
    results = jax.device_get(self.results)
    seconds = time.perf_counter() - self.start
    for i, result in enumerate(results):
      for name, what in (("nats", "The loss"), ("grad_norm", "The gradient")):
        if not np.isfinite(value := result[name].sum()):
          raise Diverged(diverged_message(
              f"{what} became {value}", step - len(results) + 1 + i))
    model = self.config.model
    trained = trained_scales(model, self.config.train.scale)
    images = sum(r["images"] for r in results)
    # The figures of each trained scale, and of all scales together if all are trained.
    nats = {
        suffix: math.fsum(r["nats"][i] for r in results) / images
        for i, suffix in enumerate(self.updates_missed)}
    shapes = {
        suffix: model.scale_shapes()[s]
        for s, suffix in zip(trained, self.updates_missed, strict=True)}
    if len(trained) == len(model.scale_shapes()):
      nats[""], shapes[""] = math.fsum(nats.values()), model.image_shape
    values = {}
    for suffix in sorted(nats):
      values[f"train/nats_per_image{suffix}"] = nats[suffix]
      values[f"train/bits_per_dim{suffix}"] = nats_to_bits_per_dim(
          nats[suffix], shapes[suffix])
    values["train/grad_norm"] = (
        math.fsum(r["grad_norm"] for r in results) / len(results))
    for suffix, missed in self.updates_missed.items():
      rate = np.asarray(self.schedule(step - 1 - missed))
      values[f"train/learning_rate{suffix}"] = float(rate)
    if self.images:
      values["train/images_per_second"] = self.images / seconds
    self.results = []
    return values


def summary_text(config: Config, values: dict[str, float]) -> str:
  """Return the text beside the progress bar.

  Args:
    config: the experiment.
    values: from `Window.close`.
  """
  name, unit, digits = (
      ("nats_per_image", "nats/image", 2) if config.model.levels == 2
      else ("bits_per_dim", "bits/dim", 3))
  prefix = f"train/{name}"
  text = ", ".join(
      f"{key.removeprefix(prefix).replace('_', '')} {value:.{digits}f} {unit}".strip()
      for key, value in values.items() if key.startswith(prefix))
  if bound_note(config.model) and prefix in values:
    text = f"<= {text}"
  if "train/images_per_second" in values:
    text += f", {values['train/images_per_second']:.0f} images/s"
  return text


def diverged_message(what: str, step: int) -> str:
  """Return the message of a Diverged.

  Args:
    what: the finding.
    step: the step of the finding.
  """
  return (
      f"{what} at step {step}. Training stopped; the last checkpoint before it is"
      " kept. Train in another --workdir with a lower optimizer.learning_rate or"
      " optimizer.clip_norm, or more optimizer.warmup_steps."
  )
