"""For notebooks: a learning curve that grows while a model is trained.

    train(config, workdir, on_metrics=LiveCurve(workdir))

Needs IPython, which every notebook has.
"""

import time

from IPython.display import Image, display

from pixelrnn_jax.visualization import run_pictures


class LiveCurve:
  """Shows the learning curve of a run below the cell, and keeps it up to date.

  It is `run_pictures.draw_curves` of the whole run, so one that is resumed shows the
  steps from before, too. A model whose scales are trained one by one has figures of
  the whole only where it is validated.
  """

  def __init__(self, workdir: str, seconds: float = 5.0):
    """Shows nothing yet.

    Args:
      workdir: of the run.
      seconds: between two drawings, at least, as one takes a part of a second; but a
        validation, of which there are few, is shown at once.
    """
    self._workdir, self._seconds = workdir, seconds
    self._handle = None
    self._drawn = float("-inf")

  def __call__(self, line: dict) -> None:
    """Draws the curve, if it is time.

    Args:
      line: that was written to the run's `metrics.jsonl`.

    Raises:
      InputError: as `run_pictures.draw_curves`.
    """
    validated = "validation/nats_per_image" in line
    waited = time.monotonic() - self._drawn >= self._seconds
    if not validated and not (waited and "train/nats_per_image" in line):
      return
    image = Image(run_pictures.draw_curves([self._workdir]))
    if self._handle is None:
      self._handle = display(image, display_id=True)
    else:
      self._handle.update(image)
    self._drawn = time.monotonic()
