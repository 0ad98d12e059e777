"""The exceptions that a user sees as one line."""

import contextlib
import re
from collections.abc import Iterator

import jax


class InputError(ValueError):
  """Bad input: a config, flag, image, directory, checkpoint or data set.

  The message says what was given, what is allowed and what to do. The programs in
  `experiments/` print it without a traceback and exit with 1.
  """


class Diverged(InputError):
  """A run whose loss, gradient or parameters are no longer finite."""


def plain_text(error: BaseException) -> str:
  """Return the text of a library's error, without the addresses of Python's objects.

  Pillow names an image that it knows only as bytes as `<_io.BytesIO object at 0x...>`.
  """
  return re.sub(r"<[^<>]* object at 0x[0-9a-f]+>", "", str(error)).strip()


@contextlib.contextmanager
def out_of_memory(advice: str) -> Iterator[None]:
  """Turn an error about memory, of a device or the host, into an InputError.

  It is a context, and a decorator of a function.

  Args:
    advice: a sentence on how to take less memory.
  """
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    text = " ".join(str(error).split())
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
      raise
    reason = text[:200].rstrip(".") or "out of memory"
    raise InputError(f"There is not enough memory: {reason}. {advice}") from error


class Interrupted(Exception):
  """A run stopped by a signal, after its checkpoint was saved.

  Attributes:
    exit_code: 128 + the signal's number, as a shell reports it.
  """

  def __init__(self, message: str, signal_number: int):
    """Make the error.

    Args:
      message: says what was stopped, and how to continue.
      signal_number: the number of the signal.
    """
    super().__init__(message)
    self.exit_code = 128 + signal_number
