"""For notebooks: a learning curve that grows while a model is trained.

    train(config, workdir, on_metrics=LiveCurve(workdir))

Needs IPython, which every notebook has.
"""

import time

from IPython.display import Image, display

from pixelrnn_jax.visualization.learning_curves import draw_curves


class LiveCurve:
  """Shows the learning curve of a run below the cell, and keeps it up to date.

  The curve is that of `learning_curves.draw_curves`, over the whole run. So a run that
  is resumed shows its earlier steps too. A model whose scales are trained one by one
  has figures of the whole only from validations.
  """

  def __init__(self, workdir: str, seconds: float = 5.0):
    """Show nothing yet.

    Args:
      workdir: the work directory of the run.
      seconds: the least time between two drawings, as one takes a part of a second. A
        validation, of which there are few, is shown at once.
    """
    self._workdir, self._seconds = workdir, seconds
    self._handle = None
    self._drawn = float("-inf")

  def __call__(self, line: dict) -> None:
    """Draw the curve, if it is time.

    Args:
      line: the line that was written to the run's `metrics.jsonl`.

    Raises:
      InputError: see `learning_curves.draw_curves`.
    """
    validated = "validation/nats_per_image" in line
    waited = time.monotonic() - self._drawn >= self._seconds
    if not validated and not (waited and "train/nats_per_image" in line):
      return
    image = Image(draw_curves([self._workdir]))
    if self._handle is None:
      self._handle = display(image, display_id=True)
    else:
      self._handle.update(image)
    self._drawn = time.monotonic()
