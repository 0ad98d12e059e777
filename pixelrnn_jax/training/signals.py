"""SIGTERM and SIGINT: finish the step, save, then stop."""

import contextlib
import os
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
  """A context in which the first SIGTERM or SIGINT is only remembered.

  The second one acts as it would have outside. After `release` the first one does so
  too. Signals can be caught in the main thread only. In another thread the context does
  nothing.

  Attributes:
    received: the signal's number, or 0.
  """

  def __init__(self):
    """Start without a signal."""
    self.received = 0
    self._previous = {}

  def __enter__(self) -> "StopSignals":
    """Catch the signals, and return itself."""
    if threading.current_thread() is threading.main_thread():
      self._previous = {s: signal.signal(s, self._remember) for s in SIGNALS}
    return self

  def __exit__(self, *_) -> None:
    """Put back the handlers."""
    self.release()

  def release(self) -> None:
    """Let signals act as they did before the context, from now on."""
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

  def _remember(self, number: int, _) -> None:
    """Remember a signal, tell the user, and let the next one act at once."""
    self.received = number
    name = signal.Signals(number).name
    # print is not used, because the signal may have come in the middle of one.
    with contextlib.suppress(OSError):  # nobody may read it
      os.write(2, f"\n{name}: stopping after this step, again: at once\n".encode())
    self.release()
