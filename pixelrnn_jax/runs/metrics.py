"""Metrics: JSON lines and TensorBoard events."""

import json
import math
import os
import re
import time
from collections.abc import Callable
from typing import Any

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout

_EVENTS: Any = event_pb2  # its classes are made at run time
_BEGINNING = re.compile(r'(?=\{"step":)')  # of a line


class MetricsWriter:
  """Appends to `metrics.jsonl` and to TensorBoard events, on process 0 only.

  It is a context. Other processes may call its methods, which then do nothing.
  """

  def __init__(
      self, workdir: str, step: int,
      on_metrics: Callable[[dict], None] | None = None,
      validated: bool = True,
  ):
    """Open the files, and remove lines beyond `step`.

    Args:
      workdir: the run's work directory.
      step: the step at which the run starts or resumes. Lines of later steps, from
        before it was killed, are dropped, because those steps are taken again.
      on_metrics: called with each line once it is written.
      validated: whether a validation at `step` counts. Otherwise its line is dropped,
        because it is made anew.
    """
    self._on_metrics = on_metrics
    self._file = self._events = None
    if jax.process_index() == 0:
      path = os.path.join(workdir, layout.METRICS)
      _drop_after(path, step, validated)
      self._file = open(path, "a", encoding="utf-8")
      # SummaryWriter is not used. Its thread dies of a full disk, and the run would
      # then wait for it forever.
      self._events = EventsWriter(os.path.join(workdir, "events"))
      log = _EVENTS.SessionLog
      self._write_event(step + 1, session_log=log(status=log.START))

  def __enter__(self) -> "MetricsWriter":
    """Return itself."""
    return self

  def __exit__(self, kind, *_) -> None:
    """Close the files; after another error, their own errors are ignored.

    An EventsWriter that cannot write does not close its file either. The file is closed
    when nothing refers to the writer any more, so the references are removed.
    """
    opened = self._file, self._events
    self._file = self._events = None
    for file in filter(None, opened):
      try:
        file.close()
      except OSError:
        if kind is None:
          raise

  def write(self, step: int, values: dict[str, float], description: str) -> None:
    """Write one line, {"step": step, **values, "data": description}.

    Args:
      step: steps taken so far.
      values: names and figures.
      description: the description of the data of the figures.
    """
    if self._file is None or self._events is None:
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
    """Write an event of TensorBoard."""
    if self._events is not None:
      event = _EVENTS.Event(wall_time=time.time(), step=step, **content)
      self._events.write_event(event)


def read_metrics(workdir: str) -> list[dict]:
  """Return the lines of a run's `metrics.jsonl`, without one cut short by a kill.

  Raises:
    InputError: there are none.
  """
  path = os.path.join(files.expand(workdir), layout.METRICS)
  metrics = [content for _, content in _lines(files.read_text(path))]
  if not metrics:
    raise InputError(
        f"{path} holds no figures yet: the run has not come to its first"
        " train.log_every steps. Train on with experiments/train.py."
    )
  return metrics


def training_minutes(lines: list[dict], batch_size: int) -> list[float]:
  """Return the minutes of training up to each line, without validations.

  They follow from the images/s of the lines. The steps of a line without a speed have
  the speed of the next line that has one.

  Args:
    lines: the lines of one run, in order, from `read_metrics`.
    batch_size: images a step.
  """
  minutes, now, last, waiting = [], 0.0, 0, 0
  for line in lines:
    waiting += max(0, line["step"] - last)
    last = line["step"]
    speed = line.get("train/images_per_second")
    if isinstance(speed, (int, float)) and speed > 0:
      now += waiting * batch_size / speed / 60
      waiting = 0
    minutes.append(now)
  return minutes


def thin(lines: list[dict], batch_size: int, points: int = 60) -> list[dict]:
  """Return fewer lines: all validations, and means over windows of training steps.

  Steps and minutes (`training_minutes`) up to each line stay as they are.

  Args:
    lines: the lines of one run, in order, from `read_metrics`.
    batch_size: images a step.
    points: approximate number of lines of training that are left.
  """
  minutes = training_minutes(lines, batch_size)
  width = -(-lines[-1]["step"] // points)
  thinned, window, since = [], [], (0, 0.0)  # the step and minutes of the last line
  for line, now, later in zip(lines, minutes, [*lines[1:], None], strict=True):
    if _is_validation(line):
      thinned.append(line)
      continue
    window.append(line)
    # A window ends before a validation, which then keeps its minutes.
    full = line["step"] - since[0] >= width or later is None or _is_validation(later)
    if not full or now == since[1]:
      continue
    means = {
        name: round(math.fsum(each[name] for each in window) / len(window), 4)
        for name in line if name.startswith(("train/nats", "train/bits"))}
    speed = (line["step"] - since[0]) * batch_size / (now - since[1]) / 60
    thinned.append({
        "step": line["step"], **means, "train/images_per_second": round(speed, 4),
        "data": line.get("data", "")})
    window, since = [], (line["step"], now)
  return thinned


def _drop_after(path: str, step: int, validated: bool) -> None:
  """Remove lines of later steps and broken ones, and end each line.

  Args:
    path: the path of the file.
    step: the last one to keep.
    validated: whether the validation at `step` is kept.
  """
  text = files.read_text(path)

  def is_kept(line: dict) -> bool:
    return line["step"] < step or (
        line["step"] == step and (validated or not _is_validation(line)))

  kept = "".join(
      f"{line}\n" for line, content in _lines(text) if is_kept(content))
  if kept != text:
    files.write_text(path, kept)


def _is_validation(line: dict) -> bool:
  """Return whether a line holds figures of a validation."""
  return any(name.startswith("validation/") for name in line)


def _lines(text: str) -> list[tuple[str, dict]]:
  """Return the good lines of a file, each with its content.

  A line may follow one that lost its end, or what a fault of the disk left there. Each
  begins with its step, and no text within a line can hold that beginning.
  """
  found = []
  for line in text.split("\n"):
    for part in _BEGINNING.split(line):
      try:
        content, end = _DECODER.raw_decode(part)
        step = content["step"]
      except (ValueError, TypeError, KeyError, RecursionError):
        continue
      if type(step) in (int, float) and 0 <= step < math.inf:
        found.append((part[:end], content))
  return found


def _whole(digits: str) -> int:
  """Return a whole number; ValueError for one that no run counts, and no float is."""
  if len(digits) > 20:
    raise ValueError(digits[:20])
  return int(digits)


_DECODER = json.JSONDecoder(parse_int=_whole)
