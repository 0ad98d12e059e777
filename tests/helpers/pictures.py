"""Comparison of pictures that programs have drawn."""

import numpy as np
from PIL import Image


def assert_same_above_the_caption(path, expected):
  """Assert that a picture is equal to `expected` above its caption.

  The picture `expected` has no caption.
  """
  picture, without = (np.asarray(Image.open(p)) for p in (path, expected))
  height = len(without)
  assert 0 < len(picture) - height < height
  np.testing.assert_array_equal(picture[:height], without)
  assert (picture[height:] == 255).any() and (picture[height:] < 128).any()
