"""Files of compressed images: from image files and back, beside other codecs.

`inference/coding.py` compresses arrays. The functions here compress files, with a
trained model by its name; see `experiments/compress.py`. Nothing is written before all
is known to be good. No file of the user's is replaced unless they say so.
"""

import dataclasses
import io
import math
import os
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from PIL import Image

from pixelrnn_jax import arguments, data, files, progress
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.data.image_files import decode
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference import coding
from pixelrnn_jax.inference.likelihood import bound_note, log_prob
from pixelrnn_jax.runs.restore import Run, load_images, load_run
from pixelrnn_jax.studies import image_codecs
from pixelrnn_jax.studies.tables import describe_machine, format_table

_MOST_NAMES = 5  # in a message


@dataclasses.dataclass
class Sizes:
  """Bytes of the same images.

  Attributes:
    together: the bytes of one file of all images.
    each: the bytes of a file for each image, summed; None if it was not measured.
  """

  together: int
  each: int | None = None


def compress_images(
    workdir: str,
    patterns: Sequence[str] | None = None,
    split: str = "test",
    num: int | None = None,
    output: str | None = None,
    which: str = "last",
    batch_size: int | None = None,
    convert: bool = False,
    overwrite: bool = False,
    compare: bool = True,
    moved: Mapping[str, str] | None = None,
) -> str:
  """Compress images, check that they come back, and compare with other codecs.

  Args:
    workdir: the work directory of the run, or the name of a model in the package.
    patterns: the user's own images; see `data.GivenImages`.
    split: its images are taken, if there are no patterns.
    num: number of images, the first ones. The default is all.
    output: the file to write. None writes none.
    which: `last` or `best` checkpoint.
    batch_size: see `coding.compress`.
    convert: whether files that the model cannot represent are taken too. Then the image
      comes back as the model sees it (cropped, resized, in grey, binarised).
    overwrite: whether an existing output is replaced.
    compare: whether other codecs are measured too.
    moved: see `load_images`.

  Returns:
    A summary with the images, sizes, NLL and seconds, as a Markdown table.

  Raises:
    InputError: there is no such run or there are no images, files would not come back
      as they were, or the output exists or cannot be written. See also
      `coding.compress`.
  """
  if num is not None:
    num = arguments.whole("num", num)
  if output is not None:
    output = _check_output(output, overwrite)
  run = load_run(workdir, which)
  images, names, description = _read(run, patterns, split, num, convert, moved)
  variables = {"params": run.params}
  start = time.perf_counter()
  with progress.bar("compressing", len(images), "images") as bar:
    content = coding.compress(
        run.model, variables, images, batch_size, bar.update, names)
  middle = time.perf_counter()
  with progress.bar("checking", len(images), "images") as bar:
    decoded = coding.decompress(run.model, variables, content, batch_size, bar.update)
  end = time.perf_counter()
  if not np.array_equal(decoded, images):
    raise RuntimeError("The images did not come back. Nothing was written.")
  if output is not None:
    _write_output(content, output, overwrite)
  sizes = {f"pixelrnn_jax, {run.config.name}": Sizes(len(content))}
  if compare:
    sizes |= measure_codecs(images, run.config.model.levels)
  nats = _nats(run, images, batch_size)
  return "\n".join([
      f"{len(images):,} images ({description}); {run.config.name}, step {run.step};"
      f" {describe_machine()}",
      format_sizes(images.size, nats / math.log(2), run.config.model, sizes),
      f"Compressed in {middle - start:.1f} s, decompressed in {end - middle:.1f} s, the"
      " first with compilation; the decompressed images are the same."
      + (f" Written to {output}." if output is not None else ""),
  ])


def decompress_images(
    workdir: str,
    path: str,
    folder: str,
    which: str = "last",
    batch_size: int | None = None,
    overwrite: bool = False,
) -> list[str]:
  """Write the images of a compressed file as PNG files.

  Args:
    workdir: the work directory of the run that compressed them, or the name of a model
      in the package.
    path: the path of the compressed file.
    folder: the folder of the PNG files. It is made if it does not exist.
    which: `last` or `best` checkpoint.
    batch_size: see `coding.decompress`.
    overwrite: whether existing files are replaced.

  Returns:
    The paths, in the order of the images. They are below the folder. The images have
    their old names with .png at the end, or their numbers.

  Raises:
    InputError: the file cannot be read, is damaged or is of another model; files exist
      already; or the folder cannot be written to.
  """
  path, folder = files.expand(path), files.expand(folder)
  try:
    with files.open_file(path) as file:
      content = file.read()
  except OSError as error:
    raise InputError(
        f"{path!r} cannot be read: {error.strerror}. Give a file that compress.py has"
        " written."
    ) from error
  names = coding.read_names(content)
  if part := files.unwritable_part(folder):
    raise InputError(
        f"output={folder!r}: {part!r} is not a directory that can be written to. Use"
        " another output."
    )
  targets = _targets(folder, names, overwrite)
  run = load_run(workdir, which)
  number = coding.number_of_images(content)
  with progress.bar("decompressing", number, "images") as bar:
    images = coding.decompress(
        run.model, {"params": run.params}, content, batch_size, bar.update)
  if not names:
    width = len(str(len(images) - 1))
    numbers = [f"{number:0{width}d}" for number in range(len(images))]
    targets = _targets(folder, numbers, overwrite)
  pixels = to_pixels(images, run.config.model.levels)
  for target, image in zip(targets, pixels, strict=True):
    try:
      os.makedirs(os.path.dirname(target), exist_ok=True)
      if os.path.lexists(target) and not overwrite:  # made since the check
        raise FileExistsError(None, "it is there already")
      files.write_bytes(target, _png(image))
    except OSError as error:
      raise InputError(
          f"{target!r} cannot be written: {error.strerror}. Use another output."
      ) from error
  return targets


def measure_codecs(images: np.ndarray, levels: int) -> dict[str, Sizes]:
  """Return the sizes of other codecs, by name; see `image_codecs.py`.

  Args:
    images: uint8 [N, H, W, C], values 0 to levels - 1.
    levels: number of values.
  """
  together, sizes = image_codecs.sheet(images), {}
  for name, encode in image_codecs.available(levels).items():
    with progress.bar(name, len(images), "images", images) as bar:
      each = sum(len(encode(image, levels)) for image in bar)
    sizes[name] = Sizes(len(encode(together, levels)), each)
  return sizes


def format_sizes(
    values: int, bits: float, config: ModelConfig, sizes: Mapping[str, Sizes]
) -> str:
  """Return a Markdown table of sizes.

  Args:
    values: number of values of all images.
    bits: the negative log-likelihood of all images, in bits.
    config: the configuration of the model.
    sizes: by codec.
  """
  bound = "<= " if bound_note(config) else ""

  def row(name, size):
    return [name, f"{size:,.0f}", f"{8 * size / values:.4f}"]

  rows = [[*row(f"{bound}the model's NLL", bits / 8), "", ""]]
  for name, size in sizes.items():
    each = ["", ""] if size.each is None else row("", size.each)[1:]
    rows.append([*row(name, size.together), *each])
  return format_table(
      ["lossless", "bytes, all in one", "bits a value", "bytes, a file each",
       "bits a value"], rows)


def to_pixels(images: np.ndarray, levels: int) -> np.ndarray:
  """Return values 0 to levels - 1 as grey or colour values 0 to 255, uint8.

  Two levels become black and white. Other values become the least values that training
  reads as them. So reading the written files gives the same images.
  """
  if levels == 2:
    return images * np.uint8(255)
  # The least x with floor(x levels / 256) = value.
  return (-(-(images.astype(np.int32) * 256) // levels)).astype(np.uint8)


def _read(
    run: Run, patterns: Sequence[str] | None, split: str, num: int | None,
    convert: bool, moved: Mapping[str, str] | None,
) -> tuple[np.ndarray, tuple[str, ...], str]:
  """Return images, their names (() if they have none), and a description."""
  config = run.config.model
  if patterns is None:
    source = load_images(run, split, moved)
    images = np.stack([source[n] for n in range(_number(num, len(source)))])
    return images, (), source.description
  given = data.GivenImages(patterns, config.image_shape, config.levels)
  number = _number(num, len(given))
  images, paths = given.read(number), given.paths[:number]
  pixels = to_pixels(images, config.levels)
  changed = [
      path for path, image in zip(paths, pixels, strict=True)
      if path is not None and not _same(path, image)]
  if changed and not convert:
    some = ", ".join(map(repr, changed[:_MOST_NAMES]))
    some += f" and {len(changed) - _MOST_NAMES} more" if changed[_MOST_NAMES:] else ""
    height, width, channels = config.image_shape
    raise InputError(
        f"{len(changed)} of {number} images would not come back as they are, as the"
        f" model's images are {height} pixels high, {width} wide and have"
        f" {channels} channel(s) of {config.levels} levels: {some}. Take a model that"
        " fits them, or say --convert, to keep what the model sees of them."
    )
  return images, _names(paths), "own images" + (
      f", {len(changed)} of them converted" if changed else "")


def _number(num: int | None, there: int) -> int:
  """Return the number of images to take of those that exist."""
  if num is not None and num > there:
    raise InputError(f"num={num}, but there are {there} images. Ask for fewer.")
  return num or there


def _same(path: str, pixels: np.ndarray) -> bool:
  """Return whether a file has these pixels; grey ones are three equal channels."""
  there = decode(path, 3).pixels
  return there.shape[:2] == pixels.shape[:2] and bool((there == pixels).all())


def _names(paths: Sequence[str | None]) -> tuple[str, ...]:
  """Return the names below the common folder; () if an image has no path."""
  full = [os.path.abspath(path) for path in paths if path is not None]
  if len(full) < len(paths):
    return ()
  if len(set(full)) < len(full):
    raise InputError("An image is given twice. Give each once.")
  folder = os.path.commonpath([os.path.dirname(path) for path in full])
  return tuple(os.path.relpath(path, folder).replace(os.sep, "/") for path in full)


def _targets(folder: str, names: Sequence[str], overwrite: bool) -> list[str]:
  """Return the paths of the PNG files; raise InputError if one cannot be written."""
  targets = [
      os.path.join(folder, *name.split("/")) + (
          "" if name.lower().endswith(".png") else ".png") for name in names]
  folders = {os.path.dirname(target) for target in targets}
  if len({target.lower() for target in targets}) < len(targets) or (
      folders & set(targets)):
    raise InputError(
        "Two of the images' names are one file here. Nothing was written; the names"
        " can be read with pixelrnn_jax.inference.coding.read_names, the images with"
        " prnn.decompress."
    )
  there = [target for target in targets if os.path.lexists(target)]
  if there and not overwrite:
    raise InputError(
        f"{len(there)} of {len(targets)} files are there already, {there[0]!r} for one."
        " Use another output, or say --overwrite."
    )
  if part := next(filter(os.path.isdir, targets), None):
    raise InputError(f"{part!r} is a directory. Use another output.")
  return targets


def _check_output(path: str, overwrite: bool) -> str:
  """Return the path; raise InputError if no file can be written there."""
  path = files.expand(path)
  if os.path.isdir(path):
    raise InputError(f"output={path!r} is a directory. Give the path of a file.")
  if os.path.lexists(path) and not overwrite:
    raise InputError(
        f"output={path!r} is there already. Use another output, or say --overwrite.")
  if part := files.unwritable_part(os.path.dirname(path)):
    raise InputError(
        f"output={path!r}: {part!r} is not a directory that can be written to. Use"
        " another output."
    )
  return path


def _write_output(content: bytes, path: str, overwrite: bool) -> None:
  """Write a file; raise InputError if that fails, or it was made meanwhile."""
  _check_output(path, overwrite)
  try:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    files.write_bytes(path, content)
  except OSError as error:
    raise InputError(
        f"output={path!r} cannot be written: {error.strerror}. Use another output."
    ) from error


def _nats(run: Run, images: np.ndarray, batch_size: int | None) -> float:
  """Return -log p of all images, or the bound of a multi-scale model."""
  size = batch_size or coding.default_batch_size(run.config.model)
  size = min(size, len(images))
  nats = 0.0
  for start in range(0, len(images), size):
    batch = images[start : start + size]
    # The last batch is filled up, so that one program serves.
    filled = np.concatenate([batch, np.repeat(images[:1], size - len(batch), axis=0)])
    some = jax.device_get(log_prob(run.model, {"params": run.params}, filled))
    nats -= float(some[: len(batch)].astype(np.float64).sum())
  return nats


def _png(pixels: np.ndarray) -> bytes:
  """Return a PNG file of grey or colour values, uint8 [H, W, C]."""
  file = io.BytesIO()
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
  return file.getvalue()
