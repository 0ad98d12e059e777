"""SIGTERM and SIGINT: finish the step, save, then stop."""

import os
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
  """A context in which the first SIGTERM or SIGINT is only remembered.

  The second one acts as it would have outside, and so does the first one after
  `release`. In a thread other than the main one signals cannot be caught, and are not.

  Attributes:
    received: the signal's number, or 0.
  """

  def __init__(self):
    self.received = 0
    self._previous = {}

  def __enter__(self) -> "StopSignals":
    if threading.current_thread() is threading.main_thread():
      self._previous = {s: signal.signal(s, self._remember) for s in SIGNALS}
    return self

  def __exit__(self, *_) -> None:
    self.release()

  def release(self) -> None:
    """Let signals act as they did before the context, from now on."""
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

  def _remember(self, number: int, _) -> None:
    self.received = number
    name = signal.Signals(number).name
    # Not print: the signal may have come in the middle of one.
    os.write(2, f"\n{name}: stopping after this step, again: at once\n".encode())
    self.release()
