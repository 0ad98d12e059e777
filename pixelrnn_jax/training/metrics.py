"""Metrics: JSON lines and TensorBoard events."""

import json
import os

import jax
from tensorboardX import SummaryWriter

from pixelrnn_jax.training import files


class MetricsWriter:
  """Appends to `metrics.jsonl` and to TensorBoard events, on process 0 only."""

  def __init__(self, workdir: str, step: int):
    """Opens the files, which then hold nothing past `step`.

    Args:
      workdir: the run's work directory.
      step: that the run starts or resumes at. Lines of later steps, from before
        it was killed, are dropped: those steps are taken again.
    """
    self._file = self._events = None
    if jax.process_index() == 0:
      path = os.path.join(workdir, files.METRICS)
      _drop_after(path, step)
      self._file = open(path, "a", encoding="utf-8")
      self._events = SummaryWriter(workdir, purge_step=step + 1)

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, *_) -> None:
    if self._file is not None:
      self._file.close()
      self._events.close()

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
      self._events.add_scalar(name, value, step, summary_description=description)


def _drop_after(path: str, step: int) -> None:
  """Removes lines of later steps, and a last line cut short by a kill."""
  if not os.path.exists(path):
    return
  with open(path, encoding="utf-8") as file:
    lines = file.readlines()
  kept = [line for line in lines if _step(line) <= step]
  if kept != lines:
    files.write_text(path, "".join(kept))


def _step(line: str) -> float:
  """The step of a line; infinity for a broken one."""
  try:
    return json.loads(line)["step"]
  except ValueError:
    return float("inf")
