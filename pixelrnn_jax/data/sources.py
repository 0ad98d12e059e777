"""Where images come from: `load_source`, and the values that it returns.

Splits. The last `data.validation_images` of the training part are the validation split
and are never trained on. Only a user's own images may have a validation part of their
own. Then `data.max_images` keeps the first images of each split.

Values, from grey or colour values x in 0 to 255:

| model.levels | value                                                         |
|--------------|---------------------------------------------------------------|
| 256          | x                                                             |
| 2            | `data.binarization`, see `binarize.py`                        |
| other        | floor(x levels / 256)                                         |

The values of an `.npz` are 0 to levels - 1 already and are used as they are. Images of
values 0 and 1 alone are bits. A model of more levels refuses them.

With `dynamic` binarisation, training draws the bits anew each time an image is used.
Everything else sees the one fixed draw of the static rule, so that two evaluations give
the same figure. A data set that holds only 0 and 1 is used as it is.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from pixelrnn_jax.configs.schema import SPLITS, Config
from pixelrnn_jax.data import (
  binarize,
  own_images,
  packaged_mnist,
  packaged_photos,
  tfds_images,
)
from pixelrnn_jax.data.levels import check_not_black, quantise, to_levels
from pixelrnn_jax.errors import InputError

# Larger parts are read image by image from disk.
_MEMORY_BYTES = 2**30


class Images(Protocol):
  """Images uint8 [H, W, C] by index. Images in memory are one array [N, H, W, C]."""

  def __len__(self) -> int:
    """Return the number of images."""
    ...

  def __getitem__(self, index: int, /) -> np.ndarray:
    """Return image `index`."""
    ...


class Dataset(Protocol):
  """The interface of a data set for `load_source`.

  Some data sets have more: `notes` (see ImageSource), `largest` and `in_colour` (see
  `_check_kind`), `as_stored` (see OwnImages). A data set whose images are not
  independent has `groups` (see PackagedPhotos).

  Attributes:
    title: the data set's name, for descriptions and messages.
    split_names: the data set's own name of each part.
    sizes: number of images of each part.
  """

  title: str
  split_names: dict[str, str]
  sizes: dict[str, int]

  def open(self, part: str, start: int, stop: int) -> Images:
    """Return images `start` to `stop` of `part`."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSource:
  """Images by index: a Grain `RandomAccessDataSource`.

  Attributes:
    images: sequence of uint8 [H, W, C], values 0 to levels - 1.
    description: data set, version, treatment of values and range of images. It is
      printed beside every figure.
    intensities: the grey values 0 to 255 of the same images, for dynamic binarisation;
      else None.
    notes: sentences for the user, for example about a split that is not used.
    groups: the number of each image's group, int [N], for images that are not
      independent. None if every image stands for itself.
    group_kind: a name for the groups, in the plural.
  """

  images: Images = dataclasses.field(repr=False)
  description: str
  intensities: Images | None = dataclasses.field(default=None, repr=False)
  notes: tuple[str, ...] = ()
  groups: np.ndarray | None = dataclasses.field(default=None, repr=False)
  group_kind: str = ""

  def __len__(self) -> int:
    """Return the number of images."""
    return len(self.images)

  def __getitem__(self, index: int) -> np.ndarray:
    """Return image `index`, uint8 [H, W, C]."""
    return self.images[range(len(self))[index]]  # the range checks the index

  @property
  def in_memory(self) -> bool:
    """Whether the images are one array in memory."""
    return isinstance(self.images, np.ndarray)


def load_source(config: Config, split: str, writes: bool = True) -> ImageSource:
  """Return the images of one split of `config.data`, as `config.model` needs them.

  Args:
    config: a checked configuration.
    split: 'train', 'validation' or 'test'.
    writes: whether `data.data_dir` may be written to. The config of a work directory
      may come from anybody, so nothing is written to a place that it names.

  Returns:
    An ImageSource of uint8 [H, W, C], values 0 to levels - 1. Up to 1 GiB is read
    into memory.

  Raises:
    InputError: there is no such split or data set; the data is not on this machine and
      cannot be prepared; its images do not have `config.model.image_shape` or are not
      of the model's kind; it has fewer or more images than it says; or nothing is left
      to train on.
  """
  check_split(split)
  dataset = _open_dataset(config, writes)
  part = split if split in dataset.sizes else "train"
  start, stop = _image_range(
      config, split, dataset.sizes[part], dataset.title,
      cut="validation" not in dataset.sizes)
  images = dataset.open(part, start, stop)
  if len(images) != stop - start:
    raise InputError(
        f"{dataset.title}: images {start:,} to {stop:,} of its part {part!r} were asked"
        f" for, and it gave {len(images):,} images. Its files are not those that it"
        " says it has: prepare it again.")
  size = (stop - start) * int(np.prod(config.model.image_shape))
  if size <= _MEMORY_BYTES:
    images = _read_all(images, config.model.image_shape)
  _check_kind(dataset, images, config, split)
  as_stored = getattr(dataset, "as_stored", False)
  largest = getattr(dataset, "largest", None) if as_stored else None
  notes = (*getattr(dataset, "notes", ()), *_dark(dataset, config))
  images, treatment, intensities = _values(
      images, config, split, dataset.title, largest)
  span = dataset.split_names[part] + _span(start, stop, dataset.sizes[part])
  description = ", ".join(filter(None, [dataset.title, treatment, span]))
  find_groups = getattr(dataset, "groups", None)
  groups, kind = find_groups(part, start, stop) if find_groups else (None, "")
  return ImageSource(
      images, description, intensities, notes, groups, kind)


def check_split(split: str) -> None:
  """Raise InputError unless a split has that name."""
  if split not in SPLITS:
    raise InputError(f"split={split!r}: must be one of {', '.join(SPLITS)}.")


def check_enough(config: Config, source: ImageSource) -> None:
  """Raise InputError unless the training images fill a batch."""
  if len(source) < config.train.batch_size:
    raise InputError(
        f"train.batch_size={config.train.batch_size:,}, but there are only"
        f" {len(source):,} images to train on ({source.description}). Use a smaller"
        " train.batch_size, or more images.")


def _open_dataset(config: Config, writes: bool) -> Dataset:
  """Return the data set that `data.source` names."""
  source = config.data.source
  if source == "packaged_mnist":
    return packaged_mnist.PackagedMnist()
  if source == "coloured_mnist":
    return packaged_mnist.ColouredMnist(config.model.image_shape)
  if source == "packaged_photos":
    return packaged_photos.PackagedPhotos(config.model.image_shape)
  if source.startswith("folder:"):
    return own_images.OwnImages(
        source.removeprefix("folder:"), config.data.data_dir,
        config.model.image_shape, writes)
  return tfds_images.TfdsImages(
      source.removeprefix("tfds:"), config.data.data_dir, config.model.image_shape,
      writes)


def _check_kind(dataset: Dataset, images: Images, config: Config, split: str) -> None:
  """Raise InputError for images that the model is not made for.

  Args:
    dataset: from `_open_dataset`. If known, `largest` is the largest value of all its
      images, and `in_colour` the number of images in colour.
    images: the images of the split, as read.
    config: with the model.
    split: the split's name.
  """
  model = config.model
  largest = getattr(dataset, "largest", None)
  if model.levels > 2:
    # One black image may be good. The parts may have been made in different ways.
    if isinstance(images, np.ndarray) and (split == "train" or len(images) > 1):
      title = f"{dataset.title}, split {split!r},"
      check_not_black(int(images.max(initial=0)), model.levels, title)
    elif largest is not None:
      check_not_black(largest, model.levels, dataset.title)
    return
  if largest is None and isinstance(images, np.ndarray):
    largest = int(images.max(initial=0))
  height, width, channels = model.image_shape
  colour = getattr(dataset, "in_colour", 0) or channels == 3
  if colour and (largest is None or largest > 1):
    how_many = getattr(dataset, "in_colour", 0) or "all"
    if config.data.source == "packaged_photos":
      raise InputError(
          f"{dataset.title}: photographs need more than the two values of a model of"
          f" black and white (model.levels=2). Use --config={model.kind}_photos, or"
          " --config.model.levels=256 --config.data.binarization=none.")
    raise InputError(
        f"{dataset.title}: {how_many} of its images are in colour, but the"
        " model is of black and white values (model.levels=2). Use"
        f" a model of colour images, such as --config={model.kind}_cifar10 (32x32), or"
        f" --config.model.image_shape='({height}, {width}, 3)'"
        " --config.model.levels=256 --config.data.binarization=none. To train on them"
        " in black and white all the same, save them as grey images.")


def _dark(dataset: Dataset, config: Config) -> list[str]:
  """Return a note if no value is more than a quarter of the largest grey value.

  Args:
    dataset: from `_open_dataset`.
    config: with the model.
  """
  largest, levels = getattr(dataset, "largest", None), config.model.levels
  levels_as_stored = getattr(dataset, "as_stored", False) and 2 < levels < 256
  if largest is None or levels_as_stored or not 1 < largest < 64:
    return []
  return [
      f"no value of the images is above {largest} of 255: they are nearly black. If"
      " they were stored with fewer levels, save them as an .npz and set"
      f" model.levels={largest + 1} or more"]


def _image_range(
    config: Config, split: str, size: int, title: str, cut: bool
) -> tuple[int, int]:
  """Return the range of a split's images in a part of the data set.

  Args:
    config: with the data's fields.
    split: the split's name.
    size: images of the part.
    title: the title of the data set, for messages.
    cut: whether the training part holds the validation split too.

  Returns:
    The first image, and the last + 1.
  """
  start, stop = 0, size
  if cut and split != "test":
    boundary = size - config.data.validation_images
    if boundary < 1:
      raise InputError(
          f"data.validation_images={config.data.validation_images}, but the"
          f" training part of {title} has only {size} images: nothing would be"
          " left to train on. Use a smaller number."
      )
    start, stop = (0, boundary) if split == "train" else (boundary, size)
  if config.data.max_images:
    stop = min(stop, start + config.data.max_images)
  return start, stop


def _span(start: int, stop: int, size: int) -> str:
  """Return the range as TFDS writes it: '[:50000]', '[50000:]', '' for all."""
  if (start, stop) == (0, size):
    return ""
  return f"[{start or ''}:{stop if stop < size else ''}]"


def _read_all(images: Images, image_shape: tuple[int, int, int]) -> np.ndarray:
  """Return all images, uint8 [N, H, W, C]."""
  if isinstance(images, np.ndarray):
    return images
  array = np.empty((len(images), *image_shape), np.uint8)
  for index in range(len(images)):
    array[index] = images[index]
  return array


def _values(
    images: Images, config: Config, split: str, title: str, largest: int | None
) -> tuple[Images, str, Images | None]:
  """Return values 0 to levels - 1, their treatment, and grey values if needed.

  Args:
    images: as read.
    config: with the model and the rule of binarisation.
    split: the split's name.
    title: the title of the data set, for messages.
    largest: the largest value, if values are used as they are; otherwise None.
  """
  levels, rule = config.model.levels, config.data.binarization
  if largest is not None and largest < levels < 256:
    return images, f"{levels} levels as stored", None
  if largest is not None and levels > 2:
    # With more than 2 levels, values are checked and not changed.
    return to_levels(images, levels, title, largest), "", None
  if config.data.source == "packaged_mnist":
    return images, "static binarisation", None
  if levels == 256:
    return images, "", None
  if levels > 2:
    quantised = _map(functools.partial(quantise, levels=levels), images)
    return quantised, f"{levels} levels (floor(x {levels} / 256))", None
  if isinstance(images, np.ndarray) and images.max(initial=0) <= 1:
    return images, "binary as published", None
  if rule == "threshold":
    return _map(binarize.threshold, images), "binarised at 128", None
  bits = _map(binarize.static, images)
  if rule == "static":
    return bits, "static binarisation", None
  if split == "train":
    return bits, "dynamic binarisation (drawn at each use in training)", images
  return bits, "one fixed draw (training: dynamic binarisation)", None


def _map(function: Callable[[np.ndarray], np.ndarray], images: Images) -> Images:
  """Apply `function` to each image: an array now, others when an image is read."""
  if isinstance(images, np.ndarray):
    return np.stack([function(image) for image in images])
  return _Mapped(function, images)


class _Mapped:
  """A sequence of `function(image)`."""

  def __init__(self, function: Callable[[np.ndarray], np.ndarray], images: Images):
    """Make the sequence."""
    self._function = function
    self._images = images

  def __len__(self) -> int:
    """Return the number of images."""
    return len(self._images)

  def __getitem__(self, index: int, /) -> np.ndarray:
    """Return `function` of image `index`."""
    return self._function(self._images[index])
