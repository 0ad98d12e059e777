"""Image data sets of TensorFlow Datasets, read without TensorFlow.

A data set that is prepared in a random-access format (`array_record`) is read by index.
Another one is prepared at its first use, if that is possible. The builders that come
with TFDS need TensorFlow for that, once, and a network. A user's own builders usually
need neither. CIFAR-10, CIFAR-100 and the two ImageNets have builders of ours, which do
not need TensorFlow.
"""

import importlib.util
import os
from typing import Any

import grain
import numpy as np

from pixelrnn_jax import files, progress
from pixelrnn_jax.data import archives
from pixelrnn_jax.errors import InputError, plain_text

_CATALOG = "https://www.tensorflow.org/datasets/catalog"


class TfdsImages:
  """The data set `name` of TFDS, as `sources.load_source` expects a data set.

  Our 'test' part is the data set's `test` split, or its `validation` split if there is
  no `test` (ImageNet). If both exist, `validation` is not used. Our validation images
  come from the end of the training part.

  TFDS stores examples in an order of its own. So `train[:50000]` here is not the same
  set of images as in other copies of the data.
  """

  def __init__(
      self, name: str, data_dir: str, image_shape: tuple[int, int, int],
      writes: bool = True,
  ):
    """Find the data set, and prepare it if necessary.

    Args:
      name: `NAME[/CONFIG][:VERSION]`.
      data_dir: the directory of TFDS's data. "" is its default.
      image_shape: the (H, W, C) that the model needs.
      writes: whether the data set may be prepared in `data_dir`. In TFDS's default
        directory it may always.

    Raises:
      InputError: there is no such data set, it is not prepared and cannot be prepared
        here, or its images do not fit `image_shape`.
    """
    data_dir = files.expand(data_dir)
    self._builder = _prepared_builder(name, data_dir, writes or not data_dir)
    *path, version = self._builder.info.full_name.split("/")
    self.title = f"tfds {'/'.join(path)}:{version}"
    self.image_shape = image_shape
    _check_feature(self._builder.info.features, self.title, self.image_shape)
    splits = self._builder.info.splits
    test = "test" if "test" in splits else "validation"
    if "train" not in splits or test not in splits:
      raise InputError(
          f"{self.title} has the splits {', '.join(splits)}; a 'train' split and a"
          " 'test' or 'validation' split are needed. Choose another data set."
      )
    self.split_names = {"train": "train", "test": test}
    unused = [name for name in splits if name not in ("train", test)]
    self.notes = []
    if unused:
      self.notes.append(
          f"splits of {self.title} that are not used: {', '.join(map(repr, unused))}"
          " (validation images are cut from the end of 'train')")
    self.sizes = {
        part: splits[split].num_examples for part, split in self.split_names.items()
    }

  def open(self, part: str, start: int, stop: int) -> "_Images":
    """Return images `start` to `stop` of `part`, each uint8 [H, W, C] when read.

    Raises:
      InputError: the data set is not in a random-access format, its files are
        missing, or its first image does not have `image_shape`.
    """
    directory = self._builder.data_dir
    try:
      # The whole split is opened, because not every format takes a part of one.
      examples = self._builder.as_data_source(split=self.split_names[part])
      there = _number_in_files(self._builder.info, self.split_names[part], examples)
    except NotImplementedError as error:
      raise InputError(
          f"{self.title} in {directory} is not in the array_record format, so its"
          " images cannot be read by index. Convert it where TensorFlow is"
          " installed, with `tfds convert_format --out_file_format=array_record"
          f" --dataset_version_dir={directory}`."
      ) from error
    except Exception as error:  # missing or damaged files raise anything
      raise InputError(
          f"{self.title} in {directory} cannot be opened: {_first_line(error)}"
          " Delete the data set's directory and prepare it again."
      ) from error
    if there != self.sizes[part]:
      raise InputError(
          f"{self.title} in {directory} says that its split {self.split_names[part]!r}"
          f" has {self.sizes[part]:,} images, and its files have {there:,}."
          " Delete the data set's directory and prepare it again.")
    images = _Images(examples, self.title, self.image_shape, start, stop)
    images[0]
    return images


class _Images:
  """The images `start` to `stop` of a TFDS data source by index."""

  def __init__(
      self, examples: Any, title: str, image_shape: tuple[int, ...], start: int,
      stop: int,
  ):
    """Make the sequence; `image_shape` is what each image must have."""
    self._examples = examples
    self._title = title
    self._shape = image_shape
    self._start, self._number = start, stop - start

  def __len__(self) -> int:
    """Return the number of images."""
    return self._number

  def __getitem__(self, index: int) -> np.ndarray:
    """Return image `index`, uint8 [H, W, C]."""
    try:
      image = self._examples[self._start + index]["image"]
    except Exception as error:  # the formats' readers and Pillow raise anything
      raise InputError(
          f"Image {index} of {self._title} cannot be read: {_first_line(error)}"
          " Delete the data set's directory and prepare it again."
      ) from error
    if image.shape != self._shape:
      raise InputError(_shape_message(self._title, image.shape, self._shape))
    return image


def _number_in_files(info: Any, split: str, examples: Any) -> int:
  """Return the number of images in the files of a split, whatever its records say.

  Args:
    info: the data set's, of TFDS.
    split: the name of the split.
    examples: TFDS's data source of the split. With array_record its length is that of
      the records.
  """
  if info.file_format is None or info.file_format.value != "array_record":
    return len(examples)
  paths = [os.fspath(path) for path in info.splits[split].filepaths]
  source: Any = grain.sources.ArrayRecordDataSource(paths)  # its base has no length
  return len(source)


def _prepared_builder(name: str, data_dir: str, writes: bool) -> Any:
  """Return a TFDS builder whose data is on disk; prepare the data if `writes`."""
  # The import takes half a second, and only this kind of source needs it.
  import tensorflow_datasets as tfds

  from pixelrnn_jax.data import cifar, downsampled_imagenet, imagenet_resized

  place = data_dir or "TFDS's default directory"
  try:
    builder = tfds.builder(name, data_dir=data_dir or None)
  except tfds.core.DatasetNotFoundError as error:
    raise InputError(
        f"data.source='tfds:{name}': TensorFlow Datasets knows no such data set, and"
        f" there are no files of it in {place}. Its names are listed at {_CATALOG};"
        " a data set of your own must be prepared before it is used, in"
        " --config.data.data_dir=DIR."
    ) from error
  except Exception as error:  # TFDS raises anything from bad names and versions
    raise InputError(
        f"data.source='tfds:{name}' cannot be opened: {_first_line(error)} It must be"
        f" tfds:NAME[/CONFIG][:VERSION] with a name from {_CATALOG}, or of files in"
        f" {place}."
    ) from error
  if builder.is_prepared():
    return builder
  if not writes:
    raise InputError(
        f"tfds:{name} is not in {data_dir}, where the run's config says that it is."
        " If it is in another directory, pass --config.data.data_dir=DIR.")
  advice = "Make room, or mend what it says, and start again."
  ours = next(
      (module for module in (cifar, downsampled_imagenet, imagenet_resized)
       if builder.name in module.NAMES), None)
  if ours is None:
    _check_can_prepare(name, builder)
    advice = _how_to_prepare(name, builder)
  else:
    needed = archives.Needed(
        f"tfds:{name}", archives.recorded(builder, ours.archive_names(builder)),
        str(_by_hand(builder)), ours.advice(builder), ours.GONE)
    needed.check_reachable()
  try:
    root = str(builder.data_dir_root)
    os.makedirs(root, exist_ok=True)
    # Another process may be preparing it. Then there is nothing to do after the wait.
    with files.hold_lock(os.path.join(root, "pixelrnn_jax.lock"), wait=True):
      if ours is not None:
        builder = ours.make_builder(builder, _by_hand(builder))
      if not builder.is_prepared():
        if ours is not None:
          needed.provide()
        if not progress.on_terminal():
          tfds.disable_progress_bar()
        builder.download_and_prepare(file_format="array_record")
  except InputError:
    raise
  except Exception as error:  # builders and downloads raise anything
    raise InputError(
        f"tfds:{name} could not be prepared: {_first_line(error)} {advice}"
    ) from error
  return builder


def _by_hand(builder: Any) -> Any:
  """Return TFDS's directory for files that users get by hand."""
  return builder.data_dir_root / "downloads" / "manual"


def _check_can_prepare(name: str, builder: Any) -> None:
  """Raise InputError, within seconds, if preparing is bound to fail."""
  # TFDS's own builders write images and open archives with TensorFlow.
  from_tfds = type(builder).__module__.startswith("tensorflow_datasets.")
  if from_tfds and not _has_tensorflow():
    raise InputError(
        f"tfds:{name} is not in {builder.data_dir_root}, and TensorFlow, which is"
        " needed once to prepare it (not to read it), is not installed here."
        f" {_how_to_prepare(name, builder)}"
    )
  downloads = builder.url_infos or {}
  missing = [
      url for url, info in downloads.items()
      if not (info.filename and (_by_hand(builder) / info.filename).exists())
  ]
  if missing and not archives.any_answers(missing):
    raise InputError(
        f"tfds:{name} is not in {builder.data_dir_root} and cannot be downloaded:"
        f" its server does not answer. {_how_to_prepare(name, builder)}"
    )


def _how_to_prepare(name: str, builder: Any) -> str:
  """Return the commands that the user has to run, in one line."""
  return (
      "Prepare it, here or on another machine, with `pip install tensorflow-cpu` and"
      " `tfds build --file_format=array_record"
      f" --data_dir={builder.data_dir_root} {name}`; if the files are in another"
      " directory, pass --config.data.data_dir=DIR."
  )


def _has_tensorflow() -> bool:
  """Return whether TensorFlow is installed."""
  return importlib.util.find_spec("tensorflow") is not None


def _check_feature(
    features: Any, title: str, image_shape: tuple[int, int, int]
) -> None:
  """Raise InputError unless `features['image']` can be uint8 [H, W, C]."""
  feature = dict(getattr(features, "items", tuple)()).get("image")
  shape = getattr(feature, "shape", None)
  dtype = getattr(feature, "np_dtype", None)
  if not isinstance(shape, tuple) or len(shape) != 3 or dtype != np.uint8:
    raise InputError(
        f"{title} has no feature 'image' of uint8 [H, W, C]; its features are"
        f" {' '.join(str(features).split())}. Choose another data set, or prepare a"
        " copy of this one that has such a feature."
    )
  # None stands for a size that is known only when an image is read.
  if any(a is not None and a != b for a, b in zip(shape, image_shape, strict=True)):
    raise InputError(_shape_message(title, shape, image_shape))


def _shape_message(title: str, shape: tuple, wanted: tuple) -> str:
  """Return the message for images of another shape."""
  return (
      f"{title} has images of shape {tuple(shape)}, but model.image_shape is"
      f" {tuple(wanted)}. Set model.image_shape to the shape of the images, or"
      " choose a data set that fits; images are never resized. Configs of colour images"
      " are those of CIFAR-10 and ImageNet, of binary grey ones those of MNIST."
  )


def _first_line(error: Exception) -> str:
  """Return the error's kind and the first line of its text, as a sentence."""
  lines = plain_text(error).splitlines() or ["no message"]
  return f"{type(error).__name__}: {lines[0].rstrip('.')}."
