import numpy as np
import pytest
from PIL import Image

from pixelrnn_jax.errors import InputError
from pixelrnn_jax.images import BACKGROUND, save_grid


@pytest.mark.parametrize("channels", [1, 3])
def test_grid(tmp_path, channels):
  images = np.zeros((3, 2, 4, channels), np.uint8)
  images[0] = 4  # the highest of 5 levels
  images[1, 0, 0] = 1
  path = tmp_path / "grid.png"
  save_grid(images, str(path), levels=5, columns=2, scale=8)
  grid = np.asarray(Image.open(path))
  margin = 2
  assert grid.shape[:2] == (2 * 16 + 3 * margin, 2 * 32 + 3 * margin)
  assert grid.ndim == (2 if channels == 1 else 3)
  first = grid[margin:margin + 16, margin:margin + 32]
  second = grid[margin:margin + 16, 2 * margin + 32:2 * margin + 64]
  third = grid[2 * margin + 16:2 * margin + 32, margin:margin + 32]
  fourth = grid[2 * margin + 16:2 * margin + 32, 2 * margin + 32:]
  assert (first == 255).all() and (third == 0).all()
  assert (second[:8, :8] == 64).all() and second.sum() == 64 * 64 * channels
  assert (fourth == BACKGROUND).all() and (grid[0] == BACKGROUND).all()


def test_one_pixel(tmp_path):
  save_grid(np.ones((1, 1, 1, 1), np.uint8), str(tmp_path / "a.png"), levels=2)
  grid = np.asarray(Image.open(tmp_path / "a.png"))
  assert grid[len(grid) // 2, len(grid) // 2] == 255


@pytest.mark.parametrize("images, options, message", [
    (np.zeros((2, 2, 1)), {}, "shape"),
    (np.zeros((0, 2, 2, 1)), {}, "at least 1"),
    (np.zeros((1, 2, 2, 2)), {}, "1 or 3 channels"),
    (np.full((1, 2, 2, 1), 2), {}, "0 to 1"),
    (np.zeros((1, 2, 2, 1)), {"columns": 0}, "columns=0"),
    (np.zeros((1, 2, 2, 1)), {"scale": 0}, "scale=0"),
])
def test_bad_input_writes_nothing(tmp_path, images, options, message):
  with pytest.raises(InputError, match=message):
    save_grid(images, str(tmp_path / "a.png"), levels=2, **options)
  assert not list(tmp_path.iterdir())
