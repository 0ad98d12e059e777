"""Reading and writing files safely, faults of a disk, and locks between processes.

- Every path of a user goes through `expand`.
- Every file that may be somebody else's is opened with `open_file`. It refuses a pipe,
  which would wait for a writer, and a device, which may never end.
- `write_text` and `write_bytes` replace a file as a whole. If the process dies, the
  file is as it was before.
- The system releases a lock of `hold_lock` when its holder dies.
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

_HOLDER = re.compile(rb"process [0-9]+ on [^\n]*")  # the content of a lock's file
_MOST_BYTES = 2**28  # of a text file that is read
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A disk that is read-only, broken or away.
_BROKEN = _NO_ROOM + (
    errno.EROFS, errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN)
# A file that is missing, not ours or of another kind; too many open files.
_FAULTS = _BROKEN + (
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
    errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG, errno.EMLINK,
    errno.EBUSY, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EMFILE, errno.ENFILE,
    errno.ENOLCK)
# How TensorStore words an error of the system.
_OS_ERROR = re.compile(r"os_error_code='([0-9]+)'|\[OS error ([0-9]+):")


class NotAFile(OSError, InputError):
  """A pipe, a socket, a device, or a file that is too large to be one of ours."""


def expand(path: str | os.PathLike) -> str:
  """Return the path with `~` or `~user` at its start as that home directory.

  A shell expands `~` at the start of a word only, not in `--workdir=~/runs/x`.

  Raises:
    InputError: it begins with `~` and there is no such user, or holds a NUL.
  """
  text = os.fspath(path)
  if "\0" in text:
    raise InputError(f"{text!r} is no path: it holds a NUL character.")
  expanded = os.path.expanduser(text)
  if expanded.startswith("~"):
    raise InputError(
        f"{text!r} begins with ~, and there is no such user. Write the whole path, or"
        f" ./{text} for a file of that name.")
  return expanded


def printable(text: str) -> str:
  """Return a text in which characters that stdout cannot print are escaped."""
  encoding = getattr(sys.stdout, "encoding", None) or "ascii"
  return text.encode(encoding, "backslashreplace").decode(encoding)


def open_file(path: str) -> BinaryIO:
  """Open a regular file for reading; links are followed.

  Raises:
    OSError: it cannot be opened.
    NotAFile: it is a pipe, a socket or a device.
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
  """Open a new file for writing, and remove an old one of that name.

  A link of that name is not followed, because it could lead to any file of the user's.

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
  """Replace a file of a work directory, as a whole or not at all.

  Raises:
    OSError: it cannot be written.
  """
  temporary = f"{path}.tmp"
  with create_file(temporary) as file:
    file.write(text.encode())
  os.replace(temporary, path)


def write_bytes(path: str, content: bytes) -> None:
  """Replace a file in a user's folder, as a whole or not at all.

  The temporary file has a random name, so that no other file is touched.

  Raises:
    OSError: it cannot be written.
  """
  # Not longer than the name itself, which may have the most bytes that a name has.
  temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.tmp")
  file = open(temporary, "xb")
  try:
    with file:
      file.write(content)
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def read_text(path: str) -> str:
  """Return the text of a file, with damaged letters replaced; "" if there is none.

  Raises:
    OSError: it cannot be read.
    NotAFile: it is no regular file, or has more than 256 MiB.
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
  """Return what was wrong with a disk, and what to do; "" for another error.

  The number of an error tells. TensorStore's errors have none, so their text tells. If
  the error itself is not of a disk, its cause may be. If there is no cause, the error
  that was being handled when this one came may be of a broken disk. Other faults do not
  count there: a missing file may have been expected.

  Args:
    error: any error.
    faults: the numbers that count.
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
  """Return an OSError's file and what the system says of it; "" for other errors."""
  if not isinstance(error, OSError) or not error.strerror:
    return ""
  return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def unwritable_part(directory: str) -> str:
  """Return the part of a path that prevents writing into it, or making it.

  Returns:
    The deepest part that exists, if it is no directory that can be written to; else "".
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
  """Hold a lock that only one process of this machine can hold at a time.

  The lock is the system's, on an open file. So a process that was killed holds nothing,
  and the processes that it started do not inherit the lock. Where the file system knows
  no locks, nothing is held.

  The file itself stays when the lock is released, empty. While the lock is held, the
  file says by whom. That is a service only: if it cannot be written, the lock is held
  all the same. A file of that name with other content is the user's. It stays as it is.

  Args:
    path: the path of the lock's file. Its directory must exist.
    wait: whether to wait for the other process. Otherwise LockHeld is raised.

  Raises:
    LockHeld: another process holds the lock.
    OSError: the file cannot be opened, or is a link or no regular file.
  """
  flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
  descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
  # Unbuffered, so that closing does not try a failed write again.
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
