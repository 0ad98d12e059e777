"""Files: paths of users, files that may be anything, files that are whole or as before
whenever a process dies, and locks between processes.

Every path of a user goes through `expand`. Every file that may be somebody else's is
opened with `open_file`: a pipe would wait for a writer, and a device may never end. The
system opens a lock when its holder dies.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO

from pixelrnn_jax.errors import InputError

_HOLDER = re.compile(rb"process [0-9]+ on [^\n]*")  # what a lock's file holds
_MOST_BYTES = 2**28  # of a text
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A disk that is read-only, broken or away.
_BROKEN = _NO_ROOM + (
    errno.EROFS, errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN)
# A file that is not there, not ours or something else; too many open ones.
_FAULTS = _BROKEN + (
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
    errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG, errno.EMLINK,
    errno.EBUSY, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EMFILE, errno.ENFILE,
    errno.ENOLCK)
# As TensorStore words what the system told it.
_OS_ERROR = re.compile(r"os_error_code='([0-9]+)'|\[OS error ([0-9]+):")


class NotAFile(OSError, InputError):
  """A pipe, a socket, a device, or more than can be a file of ours."""


def expand(path: str | os.PathLike) -> str:
  """Return the path with `~` or `~user` at its start as that home directory.

  A shell does so at the start of a word only, not in `--workdir=~/runs/x`.

  Raises:
    InputError: it begins with `~` and there is no such user.
  """
  text = os.fspath(path)
  expanded = os.path.expanduser(text)
  if expanded.startswith("~"):
    raise InputError(
        f"{text!r} begins with ~, and there is no such user. Write the whole path, or"
        f" ./{text} for a file of that name.")
  return expanded


def printable(text: str) -> str:
  """Return a text with what stdout cannot take, such as a path's letters, escaped."""
  encoding = getattr(sys.stdout, "encoding", None) or "ascii"
  return text.encode(encoding, "backslashreplace").decode(encoding)


def open_file(path: str) -> BinaryIO:
  """Open a regular file for reading, by way of links too.

  Raises:
    OSError: it cannot be opened; NotAFile: it is a pipe, a socket or a device.
  """
  _check_regular(os.stat(path), path)  # opening some devices has effects
  file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
  try:
    _check_regular(os.fstat(file.fileno()), path)
  except OSError:
    file.close()
    raise
  return file


def create_file(path: str) -> BinaryIO:
  """Open a new file for writing, instead of the one that has this name of ours.

  A link of that name is not followed: it could lead to any file of the user's.

  Raises:
    OSError: it cannot be made.
  """
  if os.path.lexists(path):
    os.unlink(path)
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
  return open(os.open(path, flags, 0o666), "wb")


def _check_regular(status: os.stat_result, path: str) -> None:
  """Raise OSError unless a file is a regular one."""
  if stat.S_ISDIR(status.st_mode):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
  if not stat.S_ISREG(status.st_mode):
    raise NotAFile(errno.EINVAL, "It is a pipe, a socket or a device", path)


def write_text(path: str, text: str) -> None:
  """Writes a file that, whenever the process dies, is whole or as before."""
  temporary = f"{path}.tmp"
  with create_file(temporary) as file:
    file.write(text.encode())
  os.replace(temporary, path)


def write_bytes(path: str, content: bytes) -> None:
  """Write a file that, whenever the process dies, is whole or as before.

  Unlike those of a work directory it may stand among files of the user's: no other
  file is touched.
  """
  folder, name = os.path.split(path)
  temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}.tmp")
  file = open(temporary, "xb")
  try:
    with file:
      file.write(content)
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def read_text(path: str) -> str:
  """The text of a file, whatever is damaged in it; "" if there is none.

  Raises:
    OSError: it cannot be read; NotAFile: it is no regular file, or has more than
      256 MiB.
  """
  if not os.path.exists(path):
    return ""
  with open_file(path) as file:
    if os.fstat(file.fileno()).st_size > _MOST_BYTES:
      raise NotAFile(errno.EINVAL, f"It has more than {_MOST_BYTES:,} bytes", path)
    return file.read(_MOST_BYTES).decode(errors="replace")


def disk_fault(
    error: BaseException | None, faults: tuple[int, ...] = _FAULTS
) -> str:
  """What was wrong with a disk, and what to do; "" if the error is another one.

  Of this error or one behind it, by its number or, as TensorStore's errors have
  none, by its text. Of an error that was being handled when this one came, only a
  broken disk counts: a missing file may have been expected there.
  """
  if error is None:
    return ""
  number = error.errno if isinstance(error, OSError) else None
  if match := _OS_ERROR.search(str(error)):
    number = int(match[1] or match[2])
  if number is None:
    number = next((n for n in _NO_ROOM if os.strerror(n) in str(error)), None)
  if number in faults:
    advice = "Make room" if number in _NO_ROOM else "Mend that"
    return f"{describe(error) or os.strerror(number)}. {advice}"
  if error.__cause__ is not None:
    return disk_fault(error.__cause__, faults)
  return disk_fault(error.__context__, _BROKEN)


def describe(error: BaseException) -> str:
  """The file and what the system says of it, as far as an OSError has them."""
  if not isinstance(error, OSError) or not error.strerror:
    return ""
  return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


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
  Where the file system knows no locks, nothing is held. That the file says who holds
  it is a service: a disk that does not take it, or has gone since, changes nothing.
  A file of that name that holds something else is the user's, and stays as it is.

  Args:
    path: of the lock's file, in a directory that is there.
    wait: for the other process to leave; else LockHeld is raised.

  Raises:
    LockHeld: see above.
    OSError: the file cannot be opened, or is a link or no regular file.
  """
  flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
  descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
  # Unbuffered: what could not be written is not tried again on closing.
  with open(descriptor, "a+b", buffering=0) as file:
    _check_regular(os.fstat(descriptor), path)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
      file.seek(0)
      holder = file.read(200).decode(errors="replace").strip()
      raise LockHeld(holder or "unknown process") from None
    except OSError:
      yield
      return
    file.seek(0)
    content = file.read(1000)
    ours = not content or _HOLDER.fullmatch(content)
    if ours:
      with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    try:
      yield
    finally:
      if ours:
        with contextlib.suppress(OSError):
          file.truncate(0)
