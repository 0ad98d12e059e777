"""The one exception for input that a user can mend."""


class InputError(ValueError):
  """Bad input: a config, flag, image, directory, checkpoint or data set.

  The message says what was given, what is allowed and what to do. The
  programs in `experiments/` print it without a traceback and exit with 1.
  """
