"""The exceptions that a user sees as one line."""


class InputError(ValueError):
  """Bad input: a config, flag, image, directory, checkpoint or data set.

  The message says what was given, what is allowed and what to do. The
  programs in `experiments/` print it without a traceback and exit with 1.
  """


class Diverged(InputError):
  """A run whose loss, gradient or parameters are no longer finite."""


class Interrupted(Exception):
  """A run stopped by a signal, after its checkpoint was saved.

  Attributes:
    exit_code: 128 + the signal's number, as a shell reports it.
  """

  def __init__(self, message: str, signal_number: int):
    super().__init__(message)
    self.exit_code = 128 + signal_number
