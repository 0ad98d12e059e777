"""Random changes of training images: a left-right mirror, and other colours.

They are for small data sets of natural images. A model that has seen the colours of a
few photographs only gives almost no probability to others. The paper trains without.

No rule stretches a histogram, which would leave gaps in it that no photograph has. Only
training images are changed. Likelihoods of validation and test are of the images as
they are.

Shapes: H height, W width, C channels.
"""

import numpy as np
from jaxtyping import UInt8

# How far a channel's least value may be moved below 0, or its greatest above 255, where
# it is cut off: a quarter of the range. With 0, a channel that spans the whole range
# would never move, and no value would be cut off, as it often is in photographs.
_BEYOND = 64


def mirror(
    image: UInt8[np.ndarray, "H W C"], rng: np.random.Generator
) -> UInt8[np.ndarray, "H W C"]:
  """Return the image's left-right mirror image with probability 1/2, else the image."""
  return image[:, ::-1] if rng.integers(2) else image


def colours(
    image: UInt8[np.ndarray, "H W C"], rng: np.random.Generator
) -> UInt8[np.ndarray, "H W C"]:
  """Mirror with probability 1/2; independently, change colours with probability 1/2.

  To change the colours, the channels change places at random. Then a number s_c is
  added to each channel c:

      x <- clip(x + s_c, 0, 255)
      s_c uniform from -min_c - 64 to 255 - max_c + 64, a whole number

  with the channel's least and greatest value. So the channel keeps its contrast. Only
  values that are cut off at 0 or 255 lose it, as in an overexposed photograph.

  A channel of a small range r = max_c - min_c can be cut off as a whole and is flat
  then, 0 or 255 everywhere. It happens to 2 (65 - r) of 384 - r numbers s_c, 29 % at
  r = 10, and to none above r = 64.

  Args:
    image: raw values 0 to 255.
    rng: the random generator.
  """
  image = mirror(image, rng)
  if rng.integers(2):
    image = image[..., rng.permutation(image.shape[-1])]
    least, most = (f(image, axis=(0, 1)).astype(int) for f in (np.min, np.max))
    shift = rng.integers(-least - _BEYOND, 256 - most + _BEYOND)
    image = np.clip(image + shift, 0, 255).astype(np.uint8)
  return image


RULES = {"mirror": mirror, "colours": colours}
