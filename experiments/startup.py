"""The first actions of a program, before its imports: closed streams, and Ctrl-C.

This file imports nothing but the standard library, so that it loads at once.
"""

import os
import select
import signal
import sys
import threading

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def begin() -> None:
  """Open the standard streams that are closed, and let Ctrl-C end the program.

  Whoever starts a program may close its streams. The next file that is opened would
  then have the number of stderr, and get its messages. So /dev/null takes that place.

  There is nothing to save yet when a program is interrupted in its imports. So the
  signal ends it without a traceback, as it ends a program that is not Python's.
  `interruptible` comes after the imports.
  """
  for number, (name, mode) in enumerate(_STREAMS):
    try:
      os.fstat(number)
    except OSError:
      opened = os.open(os.devnull, os.O_RDWR)
      if opened != number:
        os.dup2(opened, number)
        os.close(opened)
      os.set_inheritable(number, True)
    if getattr(sys, name) is None:
      setattr(sys, name, open(number, mode, closefd=False))
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    _set_interrupt(signal.SIG_DFL)


def interruptible() -> None:
  """Let the first Ctrl-C raise KeyboardInterrupt, and a second one end the program.

  After the first one the program only leaves. Where Python cannot raise an exception,
  as in a finalizer, the first one ends the program too. A signal that is ignored, as in
  the background of a shell script, stays so.
  """

  def interrupt(*_) -> None:
    _set_interrupt(signal.SIG_DFL)
    raise KeyboardInterrupt

  def hook(unraisable: "sys.UnraisableHookArgs") -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
      before(unraisable)
      return
    os.write(2, b"SIGINT: stopped.\n")
    _set_interrupt(signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)

  if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
    before, sys.unraisablehook = sys.unraisablehook, hook
    _set_interrupt(interrupt)


def reader_is_gone() -> bool:
  """Return whether stdout or stderr is a pipe that nobody reads, as after `head`."""
  poll = select.poll()
  for number in (1, 2):
    poll.register(number, 0)  # errors are reported always
  return any(events & select.POLLERR for _, events in poll.poll(0))


def discard_output() -> None:
  """Let what is still written to stdout and stderr go nowhere, as when Python ends."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  for number in (1, 2):
    os.dup2(nowhere, number)
  os.close(nowhere)


def _set_interrupt(handler) -> None:
  """Set what SIGINT does; only the main thread may."""
  if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, handler)
