"""How often progress bars are drawn."""

import os


def progress_interval() -> float:
  """Seconds between updates of a progress bar: few where a file takes them."""
  return 0.5 if os.isatty(2) else 30.0
