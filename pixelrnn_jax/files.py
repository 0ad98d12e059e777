"""Files: whole or as before whenever a process dies, and locks between processes.

The system opens a lock when its holder dies.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator


def write_text(path: str, text: str) -> None:
  """Writes a file that, whenever the process dies, is whole or as before."""
  temporary = f"{path}.tmp"
  with open(temporary, "w", encoding="utf-8") as file:
    file.write(text)
  os.replace(temporary, path)


def read_text(path: str) -> str:
  """The text of a file, whatever is damaged in it; "" if there is none."""
  if not os.path.exists(path):
    return ""
  with open(path, encoding="utf-8", errors="replace") as file:
    return file.read()


def no_room(error: BaseException | None) -> str:
  """How the system says that there was no room to write; "" if it does not.

  Of this error or one behind it, by its number or, as TensorStore's errors have
  none, by its text.
  """
  if error is None:
    return ""
  for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
    reason = os.strerror(number)
    if getattr(error, "errno", None) == number or reason in str(error):
      return reason
  return no_room(error.__cause__ or error.__context__)


def unwritable_part(directory: str) -> str:
  """What keeps one from writing into a directory, or from making it.

  Returns:
    The part of its path that is there and no directory that can be written to;
    "" if there is none.
  """
  part = os.path.abspath(directory)
  while not os.path.lexists(part):
    part = os.path.dirname(part)
  good = os.path.isdir(part) and os.access(part, os.W_OK | os.X_OK)
  return "" if good else part


class LockHeld(Exception):
  """Another process holds the lock; the text says which, where it is known."""


@contextlib.contextmanager
def hold_lock(path: str, wait: bool) -> Iterator[None]:
  """A context that only one process of this machine is in at a time.

  The file stays, empty; it is the system's lock on it that counts. So a process
  that was killed holds nothing, and what it started does not inherit the lock.
  Where the file system knows no locks, nothing is held.

  Args:
    path: of the lock's file, in a directory that is there.
    wait: for the other process to leave; else LockHeld is raised.

  Raises:
    LockHeld: see above.
    OSError: the file cannot be opened.
  """
  file = open(path, "a+", encoding="utf-8")
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
      file.seek(0)
      raise LockHeld(file.read(200).strip() or "unknown process") from None
    except OSError:
      yield
      return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    try:
      yield
    finally:
      file.truncate(0)
