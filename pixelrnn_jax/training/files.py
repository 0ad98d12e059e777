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
  """The text of a file; "" if there is none."""
  if not os.path.exists(path):
    return ""
  with open(path, encoding="utf-8") as file:
    return file.read()


def is_disk_full(error: BaseException | None) -> bool:
  """Whether there was no room to write, for this error or one behind it."""
  if error is None:
    return False
  text = str(error)  # TensorStore's errors have no number
  return (
      getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
      or any(os.strerror(n) in text for n in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
      or is_disk_full(error.__cause__ or error.__context__)
  )


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
