"""The photographs in the package, cut into crops: `data.source=packaged_photos`.

The files are in `photos/`, whose `README.md` has authors and licences. Photographs are
held out whole, and all photographs of an author are in one part. So no crop of
validation or test comes from a photograph, a scene or a camera that was trained on.

Crops of one photograph are alike, so their likelihoods are not independent. The
standard error of a mean over them is taken over blocks of `BLOCK` x `BLOCK` pixels, as
if those were independent. It is about the photographs of the part. It cannot say how
other photographs differ from them.
"""

import functools
import hashlib
import importlib.resources

import numpy as np
from PIL import Image

from pixelrnn_jax.errors import InputError

BLOCK = 128
PHOTOS = {
    "train": (
        "aitzgorri_by_Aitzol_Berasategi", "friends_by_Aitzol_Berasategi",
        "life_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi",
        "sunset_by_Aitzol_Berasategi",
    ),
    "validation": ("Wine_by_Jakkub_Mede",),
    "test": (
        "Picture_0B_by_freespace", "Picture_1A_by_freespace",
        "seeding_by_Clements_Engelhardt",
    ),
}
_FOLDER = importlib.resources.files("pixelrnn_jax.data") / "photos"


def read(path) -> np.ndarray:
  """Return the pixels of a photograph, uint8 [Y, X, 3].

  Args:
    path: the path of the file, or its name in the package without `.webp`.

  Raises:
    InputError: it cannot be read.
  """
  if isinstance(path, str):
    path = _FOLDER / f"{path}.webp"
  try:
    with path.open("rb") as file, Image.open(file) as image:
      return np.asarray(image.convert("RGB"))
  except (OSError, SyntaxError) as error:
    raise InputError(
        f"{path} cannot be read: {error}. A Pillow with WebP is needed, as the package"
        " index has it (`python -m PIL` says); if the file is damaged, install"
        " pixelrnn_jax again."
    ) from error


def digest(pixels: np.ndarray) -> str:
  """Return the SHA-256 of an image's uint8 values, row by row."""
  return hashlib.sha256(pixels.tobytes()).hexdigest()


class PackagedPhotos:
  """Crops of the photographs, as `sources.load_source` expects a data set.

  The crops of a photograph of Y x X pixels are H x W, at the places

      (top + i dy, left + j dx),  top = (Y mod H) div 2,  left = (X mod W) div 2,

  for all i, j that leave the crop inside. For validation and test (dy, dx) = (H, W).
  Each pixel is in one crop at most, and the borders share the rest. For training the
  steps are half as long, max(1, H div 2) and max(1, W div 2), so that the crops
  overlap. The crops of all photographs of a part come in one fixed random order, so
  that the first ones (`data.max_images`) are of all photographs.

  With one channel the crops are of the photographs in grey, by Pillow's
  L = (19595 R + 38470 G + 7471 B + 32768) div 65536.
  """

  split_names = {part: part for part in PHOTOS}

  def __init__(self, image_shape: tuple[int, int, int]):
    """Read the photographs.

    Args:
      image_shape: (H, W, C) of the crops.

    Raises:
      InputError: a crop of that shape does not fit into each photograph.
    """
    self.image_shape = tuple(image_shape)
    grey = image_shape[2] == 1
    self.title = f"photographs (packaged{', in grey' if grey else ''})"
    names = [name for names in PHOTOS.values() for name in names]
    self._photos = {name: _photo(name, grey) for name in names}
    most = tuple(
        min(photo.shape[axis] for photo in self._photos.values()) for axis in (0, 1))
    if image_shape[0] > most[0] or image_shape[1] > most[1]:
      raise InputError(
          f"data.source='packaged_photos': crops of model.image_shape={image_shape} do"
          f" not fit into the smallest photograph, of {most[0]} x {most[1]} pixels. Use"
          f" a height of at most {most[0]} and a width of at most {most[1]}."
      )
    self._places = {part: self._cut(part) for part in PHOTOS}
    self.sizes = {part: len(places) for part, places in self._places.items()}
    self.in_colour = sum(self.sizes.values())  # as photographed; see `sources.py`

  def open(self, part: str, start: int, stop: int) -> np.ndarray:
    """Return the crops `start` to `stop` of `part`, uint8 [N, H, W, C]."""
    height, width, _ = self.image_shape
    photos = [self._photos[name] for name in PHOTOS[part]]
    crops = np.empty((stop - start, *self.image_shape), np.uint8)
    for crop, (photo, top, left) in zip(
        crops, self._places[part][start:stop], strict=True):
      crop[:] = photos[photo][top:top + height, left:left + width]
    return crops

  def groups(self, part: str, start: int, stop: int) -> tuple[np.ndarray, str]:
    """Return the blocks to which the crops belong.

    A crop belongs to the block of its first pixel.

    Args:
      part: the part's name.
      start: the first crop.
      stop: the last crop + 1.

    Returns:
      The number of each crop's block, int [N], and a name for the groups, in the
      plural.
    """
    places = self._places[part][start:stop]
    blocks = places // (1, BLOCK, BLOCK)
    _, numbers = np.unique(blocks, axis=0, return_inverse=True)
    photos = len(PHOTOS[part])
    kind = (
        f"blocks of {BLOCK}x{BLOCK} pixels of"
        f" {photos} photograph{'s' if photos > 1 else ''}")
    return numbers.reshape(-1), kind

  def _cut(self, part: str) -> np.ndarray:
    """Return (photograph, top, left) of the crops of a part, int [N, 3]."""
    height, width, _ = self.image_shape
    step = np.array([height, width])
    if part == "train":
      step = np.maximum(step // 2, 1)
    places = []
    for number, name in enumerate(PHOTOS[part]):
      size = np.array(self._photos[name].shape[:2])
      first = size % (height, width) // 2
      last = size - (height, width)
      tops, lefts = (
          np.arange(a, b + 1, s) for a, b, s in zip(first, last, step, strict=True))
      grid = np.stack(np.meshgrid(number, tops, lefts, indexing="ij"), axis=-1)
      places.append(grid.reshape(-1, 3))
    places = np.concatenate(places)
    # NumPy's policy freezes RandomState's stream, so the order never changes.
    return places[np.random.RandomState(0).permutation(len(places))]


@functools.lru_cache(maxsize=18)
def _photo(name: str, grey: bool) -> np.ndarray:
  """Return the pixels of a photograph of the package, uint8 [Y, X, 3] or [Y, X, 1]."""
  pixels = read(name)
  if grey:
    pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
  return pixels
