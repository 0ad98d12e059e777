"""Captions of pictures: a text below, and metadata in the PNG file."""

import dataclasses
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelrnn_jax.version import __version__

_TEXT, _PAPER = 0, 255  # grey values of a caption below images
_LEADING, _MARGIN = 4, 6  # pixels between lines, and around the text


@dataclasses.dataclass(frozen=True)
class Caption:
  """The content of a picture in words.

  Attributes:
    what: the picture in words, such as "64 samples".
    config: the configuration's name.
    step: the step of the parameters; None if they are not trained.
    data: description of the images that are shown, or that the model was trained on.
    seed: the seed of the picture's random numbers; None if it has none.
  """

  what: str
  config: str
  step: int | None = None
  data: str = ""
  seed: int | None = None

  def __str__(self) -> str:
    """Return the text below the picture."""
    step = "untrained" if self.step is None else f"step {self.step}"
    seed = "" if self.seed is None else f"seed {self.seed}"
    facts = filter(None, [self.what, f"{self.config}, {step}", seed, self.data])
    return "; ".join(facts)

  def metadata(self) -> dict[str, str]:
    """Return the metadata of the PNG file, by keyword."""
    facts = {
        "Title": self.what, "config": self.config, "step": self.step,
        "seed": self.seed, "data": self.data,
        "Software": f"pixelrnn_jax {__version__}"}
    return {key: str(x) for key, x in facts.items() if x not in (None, "")}


def add_caption(pixels: np.ndarray, caption: Caption) -> np.ndarray:
  """Return a picture with its caption below it.

  Args:
    pixels: uint8 [h, w, 1 or 3].
    caption: the text.

  Returns:
    uint8 [H, w, 1 or 3], whose first h rows are the picture.
  """
  font = ImageFont.load_default()
  # The font has no other letters.
  text = str(caption).encode("latin-1", "replace").decode("latin-1")
  width = pixels.shape[1]
  lines = _wrap(text, font, width - 2 * _MARGIN)
  left, top, right, bottom = font.getbbox("Mg")
  line_height = int(bottom - top) + _LEADING
  strip = Image.new("L", (width, len(lines) * line_height + 2 * _MARGIN), _PAPER)
  draw = ImageDraw.Draw(strip)
  for number, line in enumerate(lines):
    draw.text((_MARGIN, _MARGIN + number * line_height), line, fill=_TEXT, font=font)
  below = np.broadcast_to(
      np.asarray(strip)[..., None], (strip.height, width, pixels.shape[2]))
  return np.concatenate([pixels, below])


def _wrap(text: str, font: Any, width: int) -> list[str]:
  """Return a text's lines in a font, each of at most `width` pixels if possible."""
  lines = [""]
  for word in text.split():
    longer = f"{lines[-1]} {word}".strip()
    if lines[-1] and font.getlength(longer) > width:
      lines.append(word)
    else:
      lines[-1] = longer
  return lines
