"""The images that come with the package: binarised MNIST and a coloured version.

`README.md` in this folder describes `packaged_mnist.npz`. Both classes have the
interface that `sources.load_source` expects of a data set: `title`, `split_names` and
`sizes` of the parts 'train' and 'test', and `open(part, start, stop)`.
"""

import hashlib
import importlib.resources

import numpy as np

_FILE = importlib.resources.files("pixelrnn_jax.data") / "packaged_mnist.npz"


def _read(name: str) -> np.ndarray:
  """Return an array of the packaged file."""
  with _FILE.open("rb") as file, np.load(file, allow_pickle=False) as archive:
    return archive[name]


class PackagedMnist:
  """MNIST binarised once: 60,000 and 10,000 images, uint8 [28, 28, 1], 0 or 1."""

  title = "MNIST (packaged)"
  image_shape = (28, 28, 1)
  split_names = {"train": "train", "test": "test"}
  sizes = {"train": 60_000, "test": 10_000}

  def open(self, part: str, start: int, stop: int) -> np.ndarray:
    """Return images `start` to `stop` of `part`, uint8 [N, 28, 28, 1]."""
    packed = _read(f"{part}_images")[start:stop]
    bits = np.unpackbits(packed, axis=1, count=28 * 28)
    return bits.reshape(-1, *self.image_shape)


class ColouredMnist:
  """RGB images drawn from the packaged digits, for smoke runs and tests.

  The digit is resized to H x W by area. With its coverage a in [0, 1] of a pixel, a
  foreground colour f and a background colour b in 16 to 239 (drawn once an image), and
  noise e in -8 to 7 (drawn once a value),

      x = floor(a f + (1 - a) b) + e.

  Random numbers are SHAKE-256 of the part's name and the image's index, and all
  arithmetic is in integers, so the images are the same everywhere. A perfect model
  needs about 4 bits/dim, those of the noise. Figures on this set mean nothing beyond
  that.
  """

  title = "coloured MNIST (synthetic)"
  split_names = PackagedMnist.split_names
  sizes = PackagedMnist.sizes

  def __init__(self, image_shape: tuple[int, int, int]):
    """Describe the data set.

    Args:
      image_shape: (H, W, 3).
    """
    self.image_shape = tuple(image_shape)

  def open(self, part: str, start: int, stop: int) -> "_ColouredDigits":
    """Return images `start` to `stop` of `part`, each uint8 [H, W, 3] when read."""
    digits = PackagedMnist().open(part, start, stop)[..., 0]
    return _ColouredDigits(digits, part, start, self.image_shape)


class _ColouredDigits:
  """The images of ColouredMnist by index."""

  def __init__(
      self, digits: np.ndarray, part: str, start: int, image_shape: tuple[int, ...]
  ):
    """Make the sequence.

    Args:
      digits: uint8 [N, 28, 28], 0 or 1.
      part: the part's name.
      start: the index of the first digit in the part.
      image_shape: (H, W, 3).
    """
    self._digits = digits
    self._part = part
    self._start = start
    self._shape = image_shape
    self._rows = _area_weights(image_shape[0])
    self._columns = _area_weights(image_shape[1])

  def __len__(self) -> int:
    """Return the number of images."""
    return len(self._digits)

  def __getitem__(self, index: int) -> np.ndarray:
    """Return image `index`, uint8 [H, W, 3]."""
    digit = self._digits[index].astype(np.int64)
    cover = (self._rows @ digit @ self._columns.T)[..., None]  # 0 to 28 * 28
    key = f"pixelrnn_jax coloured MNIST 1 {self._part} {self._start + index}"
    size = int(np.prod(self._shape))
    random = np.frombuffer(
        hashlib.shake_256(key.encode()).digest(6 + size), np.uint8).astype(np.int64)
    foreground, background = 16 + random[:6].reshape(2, 3) * 224 // 256
    noise = random[6:].reshape(self._shape) % 16 - 8
    whole = 28 * 28
    mixed = (cover * foreground + (whole - cover) * background) // whole
    return (mixed + noise).astype(np.uint8)


def _area_weights(size: int) -> np.ndarray:
  """Return overlaps of `size` equal cells with 28 pixels, int64 [size, 28].

  The unit is 1 / (28 size) of the whole, so that each row sums to 28.
  """
  cell = np.arange(size)[:, None] * 28
  pixel = np.arange(28)[None, :] * size
  overlap = np.minimum(cell + 28, pixel + size) - np.maximum(cell, pixel)
  return np.maximum(overlap, 0)
