"""Pictures of images, checked pixel by pixel."""


import numpy as np
import pytest
from PIL import Image

from pixelrnn_jax.errors import InputError
from pixelrnn_jax.visualization.grids import (
  BACKGROUND,
  HIDDEN,
  save_completions,
  save_grid,
  save_grown,
)


@pytest.mark.parametrize("channels", [1, 3])
def test_grid(tmp_path, channels):
  images = np.zeros((3, 2, 4, channels), np.uint8)
  images[0] = 4  # the highest value of 5 levels
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


@pytest.mark.parametrize("number, height, width, scale", [
    (16, 28, 28, 6),  # an image has at most 192 pixels
    (64, 28, 28, 5), (100, 28, 28, 4),  # a picture has at most 1280
    (4, 10, 64, 3), (2500, 28, 28, 1)])
def test_the_default_scale(tmp_path, number, height, width, scale):
  path = str(tmp_path / "grid.png")
  save_grid(np.zeros((number, height, width, 1), np.uint8), path, levels=2)
  columns = round(number ** 0.5)
  margin = max(1, scale * width // 16)
  assert Image.open(path).size == (
      columns * (scale * width + margin) + margin,
      columns * (scale * height + margin) + margin)


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


def some_completions(channels, number=2):
  """Return images, a mask and three completions of each image.

  They agree where the mask is true.
  """
  rng = np.random.default_rng(0)
  images = rng.integers(0, 5, (number, 4, 6, channels), np.uint8)
  known = rng.random((number, 4, 6)) < 0.5
  drawn = rng.integers(0, 5, (number, 3, 4, 6, channels), np.uint8)
  return images, known, np.where(known[:, None, ..., None], images[:, None], drawn)


@pytest.mark.parametrize("channels", [1, 3])
def test_completions(tmp_path, channels):
  images, known, completions = some_completions(channels)
  path, scale = tmp_path / "a.png", 16
  save_completions(images, known, completions, str(path), levels=5, scale=scale)
  picture = np.asarray(Image.open(path))
  gap, high, wide = 6, 4 * scale, 6 * scale
  assert picture.shape == (2 * high + 3 * gap, 5 * wide + 10 * gap, 3)
  # A strip shows the masked image, three completions and the original. The gaps between
  # these three parts are larger.
  lefts = np.cumsum([gap, wide + 3 * gap, wide + gap, wide + gap, wide + 3 * gap])
  rest = np.ones(picture.shape[:2], bool)
  for n in range(2):
    top = gap + n * (high + gap)
    panels = [picture[top:top + high, left:left + wide] for left in lefts]
    for left in lefts:
      rest[top:top + high, left:left + wide] = False
    whole = [
        np.round(x * 63.75).astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
        for x in [images[n], *completions[n], images[n]]]
    for panel, expected in zip(panels[1:], whole[1:], strict=True):
      np.testing.assert_array_equal(panel, np.broadcast_to(expected, panel.shape))
    mask = known[n].repeat(scale, 0).repeat(scale, 1)
    expected = np.broadcast_to(whole[0], panels[0].shape)[mask]
    np.testing.assert_array_equal(panels[0][mask], expected)
    # Hidden pixels are striped, whatever the image.
    colours = np.unique(panels[0][~mask].reshape(-1, 3), axis=0)
    np.testing.assert_array_equal(colours, sorted(HIDDEN))
  assert (picture[rest] == BACKGROUND).all()


def test_many_completions_fill_several_columns(tmp_path):
  images, known, completions = some_completions(1, number=40)
  path = tmp_path / "a.png"
  save_completions(images, known, completions, str(path), levels=5, scale=1)
  picture = np.asarray(Image.open(path))
  # There are round(sqrt(40 x 4 / (5 x 6))) = 2 columns of 20 strips. The gaps are 1, 3
  # and 6.
  strip = 5 * 6 + 2 + 2 * 3
  assert picture.shape == (20 * 5 + 1, 2 * strip + 6 + 2, 3)
  for n in (0, 1, 7, 39):
    top, left = 1 + n // 2 * 5, 1 + n % 2 * (strip + 6) + strip - 6
    np.testing.assert_array_equal(
        picture[top:top + 4, left:left + 6, 0], np.round(images[n, ..., 0] * 63.75))


def test_one_mask_for_all_images(tmp_path):
  images, known, completions = some_completions(3)
  for name, mask in [("a.png", known[0]), ("b.png", np.stack([known[0]] * 2))]:
    save_completions(images, mask, completions, str(tmp_path / name), levels=5)
  assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("change, message", [
    (lambda i, k, c: (i[0], k, c), "takes \\[N, H, W, C\\]"),
    (lambda i, k, c: (i + 1, k, c), "0 to 4"),
    (lambda i, k, c: (i, k[:, :3], c), "known must be bool"),
    (lambda i, k, c: (i, k.astype(int), c), "known must be bool"),
    (lambda i, k, c: (i, k, c[:1]), r"\[2, K, 4, 6, 1\]"),
    (lambda i, k, c: (i, k, c[:, 0]), "K of at least 1"),
    (lambda i, k, c: (i, k, c[:, :0]), "K of at least 1"),
    (lambda i, k, c: (i, k, c + 1), "0 to 4"),
])
def test_bad_completions_write_nothing(tmp_path, change, message):
  images, known, completions = change(*some_completions(1))
  with pytest.raises(InputError, match=message):
    save_completions(images, known, completions, str(tmp_path / "a.png"), levels=5)
  assert not list(tmp_path.iterdir())


def test_grown_images_stand_beside_their_small_one(tmp_path):
  rng = np.random.default_rng(0)
  small = rng.integers(0, 5, (2, 2, 3, 1))
  grown = rng.integers(0, 5, (2, 3, 4, 6, 1))
  originals = rng.integers(0, 5, (2, 4, 6, 1))
  path = tmp_path / "a.png"
  save_grown(small, grown, str(path), 5, originals, scale=16)
  pixels = np.asarray(Image.open(path))
  large = lambda x: np.kron(x[..., 0], np.ones((16, 16))) * 63.75  # noqa: E731
  gap = 6
  for n in range(2):
    top = gap + n * (64 + gap)
    left = gap
    # A pixel of the small image is as large as the 2 x 2 pixels that it stands for.
    enlarged = np.kron(small[n, ..., 0], np.ones((32, 32))) * 63.75
    for image, next_gap in (
        (enlarged, 3 * gap), *((large(x), gap) for x in grown[n][:-1]),
        (large(grown[n][-1]), 3 * gap), (large(originals[n]), gap)):
      shown = pixels[top : top + 64, left : left + 96]
      assert np.ptp(shown, axis=-1).max() == 0
      np.testing.assert_allclose(shown[..., 0], image, atol=0.5)
      left += 96 + next_gap
    assert left == pixels.shape[1]
  save_grown(small, grown, str(path), 5, scale=16)
  without = np.asarray(Image.open(path))
  np.testing.assert_array_equal(
      without[:, :-gap], pixels[:, : without.shape[1] - gap])


@pytest.mark.parametrize("small, grown, originals, message", [
    ((2, 2, 3), (2, 1, 4, 6, 1), None, "takes .N, H, W, C."),
    ((2, 2, 3, 1), (2, 4, 6, 1), None, "Large images of shape"),
    ((2, 2, 3, 1), (2, 0, 4, 6, 1), None, "K of at least 1"),
    ((2, 2, 3, 1), (3, 1, 4, 6, 1), None, "Large images of shape"),
    ((2, 2, 3, 1), (2, 1, 4, 5, 1), None, r"\[2, K, 4, 6, 1\]"),
    ((2, 2, 3, 1), (2, 1, 4, 6, 1), (2, 2, 3, 1), "Originals of shape"),
])
def test_grown_images_of_the_wrong_shapes(tmp_path, small, grown, originals, message):
  zeros = [None if s is None else np.zeros(s, int) for s in (small, grown, originals)]
  with pytest.raises(InputError, match=message):
    save_grown(zeros[0], zeros[1], str(tmp_path / "a.png"), 2, zeros[2])
  assert not list(tmp_path.iterdir())
