"""Locks between processes, which the system opens when their holder dies."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator


class Held(Exception):
  """Another process holds the lock; the text says which, where it is known."""


@contextlib.contextmanager
def hold(path: str, wait: bool) -> Iterator[None]:
  """A context that only one process of this machine is in at a time.

  The file stays, empty; it is the system's lock on it that counts. So a process
  that was killed holds nothing, and what it started does not inherit the lock.
  Where the file system knows no locks, nothing is held.

  Args:
    path: of the lock's file, in a directory that is there.
    wait: for the other process to leave; else Held is raised.

  Raises:
    Held: see above.
    OSError: the file cannot be opened.
  """
  file = open(path, "a+", encoding="utf-8")
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
      file.seek(0)
      raise Held(file.read(200).strip() or "unknown process") from None
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
