"""Progress bars: on a terminal, in a notebook, or as plain lines in a log."""

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from pixelrnn_jax import files

# Seconds between two updates of a bar, and between two lines in a log. Work that takes
# less time has no line.
BAR_INTERVAL, LINE_INTERVAL = 0.5, 30.0
_LINE = (
    "{desc}: {n_fmt}/{total_fmt} {unit} ({percentage:.0f}%), {elapsed} elapsed,"
    " {remaining} left{postfix}")


def bar(
    label: str, total: int, unit: str, iterable: Iterable | None = None,
    initial: int = 0, leave: bool = False, disable: bool = False,
    unit_scale: bool = False,
) -> tqdm:
  """Return a progress bar that suits the place that stderr goes to.

  A terminal gets tqdm's bar. A notebook gets the same bar in a place of its own below
  the cell. A file or pipe gets a line of text every `LINE_INTERVAL` seconds, with no
  control characters.

  Args:
    label: a name for the work.
    total: number of units.
    unit: name of the units, in the plural.
    iterable: its items are counted, one unit each. Without it, call `update`.
    initial: number of units that were done before.
    leave: whether the bar stays when it is closed.
    disable: whether to show nothing.
    unit_scale: whether large numbers are written as 1.2k.
  """
  if sys.stderr is None:  # closed by whoever started the program
    disable = True
  if disable:
    place: dict[str, Any] = {}
  elif in_notebook():
    place = dict(file=_Display(), mininterval=BAR_INTERVAL)
  elif on_terminal():
    place = dict(mininterval=BAR_INTERVAL)
  else:
    place = dict(file=_Lines(), mininterval=LINE_INTERVAL, delay=LINE_INTERVAL,
                 bar_format=_LINE)
  return tqdm(
      iterable, label, total, leave, unit=unit, initial=initial, disable=disable,
      unit_scale=unit_scale, **place)


def say(message: str) -> None:
  """Print a line to stdout, above a bar on the same terminal, at once."""
  tqdm.write(files.printable(message))
  sys.stdout.flush()


def on_terminal() -> bool:
  """Return whether stderr is a terminal that can move its cursor."""
  terminal = sys.stderr is not None and sys.stderr.isatty()
  return terminal and os.environ.get("TERM") != "dumb"


def in_notebook() -> bool:
  """Return whether this is the kernel of a notebook."""
  ipython = sys.modules.get("IPython")
  return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class _Text:
  """A file for tqdm: it shows a bar's text without control characters."""

  def write(self, text: str) -> None:
    # tqdm draws or clears a bar with "\r". Its other writes move the cursor.
    if "\r" in text:
      self.show(text.replace("\x1b[A", "").strip())

  def flush(self) -> None:
    """Do nothing: every write is shown at once."""

  def show(self, text: str) -> None:
    """Show the text of the whole bar; "" clears it."""
    raise NotImplementedError


class _Lines(_Text):
  """Writes each new text as a line to stderr."""

  def __init__(self):
    self._last = ""

  def show(self, text: str) -> None:
    if text and text != self._last:
      self._last = text
      with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class _Display(_Text):
  """Shows the text in one place below the cell of a notebook.

  stdout and stderr are different outputs there, so a bar on stderr would leave pieces
  between the lines of stdout. When a bar is cleared, the cell's next bar uses its place
  again, so that no empty places pile up.
  """

  _free: dict[int, list] = {}  # places without a bar, by the number of the cell's run

  def __init__(self):
    from IPython import display, get_ipython

    cell = get_ipython().execution_count
    self._places = self._free.setdefault(cell, [])
    for other in set(self._free) - {cell}:
      del self._free[other]
    self._display = display.display
    self._place = self._places.pop() if self._places else None

  def show(self, text: str) -> None:
    content = {"text/plain": text}
    if self._place is not None:
      self._place.update(content, raw=True)
    elif text:
      self._place = self._display(content, raw=True, display_id=True)
    if not text and self._place is not None:
      self._places.append(self._place)
      self._place = None
