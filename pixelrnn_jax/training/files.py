"""Files of a work directory."""

import errno
import os

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
EVALUATION = "evaluation.json"
SAMPLES = "samples"
LOCK = "lock"


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
