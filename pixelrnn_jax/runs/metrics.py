"""Metrics: JSON lines and TensorBoard events."""

import json
import os
import time
from collections.abc import Callable

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout


class MetricsWriter:
  """Appends to `metrics.jsonl` and to TensorBoard events, on process 0 only."""

  def __init__(
      self, workdir: str, step: int,
      on_metrics: Callable[[dict], None] | None = None,
      validated: bool = True,
  ):
    """Opens the files, which then hold nothing past `step`.

    Args:
      workdir: the run's work directory.
      step: that the run starts or resumes at. Lines of later steps, from before
        it was killed, are dropped: those steps are taken again.
      on_metrics: called with each line once it is written.
      validated: whether a validation at `step` counts; else its line is dropped,
        as it is made anew.
    """
    self._on_metrics = on_metrics
    self._file = self._events = None
    if jax.process_index() == 0:
      path = os.path.join(workdir, layout.METRICS)
      _drop_after(path, step, validated)
      self._file = open(path, "a", encoding="utf-8")
      # Not SummaryWriter: its thread dies of a full disk, and the run then waits
      # for it forever.
      self._events = EventsWriter(os.path.join(workdir, "events"))
      self._write_event(step + 1, session_log=SessionLog(status=SessionLog.START))

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, kind, *_) -> None:
    for file in filter(None, (self._file, self._events)):
      try:
        file.close()
      except OSError:  # what could not be written then cannot be now
        if kind is None:
          raise

  def write(self, step: int, values: dict[str, float], description: str) -> None:
    """One line, {"step": step, **values, "data": description}.

    Args:
      step: steps taken so far.
      values: names and figures.
      description: of the data that the figures are of.
    """
    if self._file is None:
      return
    line = {"step": step, **values, "data": description}
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()
    for name, value in values.items():
      self._write_event(
          step, summary=scalar(name, value, summary_description=description))
    self._events.flush()
    if self._on_metrics:
      self._on_metrics(line)

  def _write_event(self, step: int, **content) -> None:
    self._events.write_event(Event(wall_time=time.time(), step=step, **content))


def read_metrics(workdir: str) -> list[dict]:
  """The lines of a run's `metrics.jsonl`, but for one cut short by a kill.

  Raises:
    InputError: there are none.
  """
  path = os.path.join(files.expand(workdir), layout.METRICS)
  lines = files.read_text(path).split("\n")
  metrics = [json.loads(line) for line in lines if _step(line) < float("inf")]
  if not metrics:
    raise InputError(
        f"{path} holds no figures yet: the run has not come to its first"
        " train.log_every steps. Train on with experiments/train.py."
    )
  return metrics


def _drop_after(path: str, step: int, validated: bool) -> None:
  """Removes lines of later steps and broken ones; ends the last one.

  Args:
    path: of the file.
    step: the last one to keep.
    validated: whether the validation at `step` is kept.
  """
  text = files.read_text(path)
  kept = [
      line for line in text.split("\n")
      if _step(line) < step or _step(line) == step
      and (validated or not _is_validation(line))]
  kept = "".join(line + "\n" for line in kept)
  if kept != text:
    files.write_text(path, kept)


def _is_validation(line: str) -> bool:
  """Whether a line, which is a good one, holds figures of a validation."""
  return any(name.startswith("validation/") for name in json.loads(line))


def _step(line: str) -> float:
  """The step of a line; infinity for a broken one."""
  try:
    return float(json.loads(line)["step"])
  except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
    return float("inf")
