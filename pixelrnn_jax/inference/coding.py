"""Lossless compression of images: the likelihood in bytes.

    compress:    images -> bytes: -log2 p(images) bits, some 45 bytes, 11 a stream
    decompress:  bytes -> the same images

An entropy coder (`rans.py`) codes the values one after another, each with its
probability given all values before it (paper, section 2.1). For a multi-scale model the
smallest scale comes first, and the size is that of all scales, the bound.

Both directions need the same probabilities to the last bit. Two different compiled
programs may round differently, so one program serves both directions. It runs the
network value by value (`PixelRNN.by_value`). At each value it looks up the values of
the images that are given, and finds the others in the streams. It returns the integers
that stand for each value's probability. To compress, the host pushes them onto the
streams, the last value first, because a stream is popped in the opposite order.

Several images share a stream, so that the few bytes of each stream do not count. At
each value the stream has image 1, then image 2, and so on. Values are found one after
another within a stream. The streams of a device are independent of each other.

Another version of JAX or of this package, another kind of device, another processor or
another number of cores may compute other numbers, and then cannot decompress. It never
gives wrong images: after the last value, the rest of a stream must be the checksum of
its images.

Shapes: N images, H height, W width, C channels; D devices, S streams on a device, I
images in a stream, B = S I.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jaxtyping import PyTree, UInt8

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import Diverged, InputError, out_of_memory
from pixelrnn_jax.inference import rans
from pixelrnn_jax.inference.container import Container, check_name, parse
from pixelrnn_jax.inference.sampling import by_value
from pixelrnn_jax.inference.scales import ImagesLike
from pixelrnn_jax.models import Model

# Raw bits of the images that share a stream, which costs some 11 bytes. They are 512
# binary images of 28x28, or 17 images of 32x32 in colour.
_STREAM_BITS = 400_000
# The number of values in a batch, and the bounds of its images, by default.
_BATCH_VALUES, _LEAST_BATCH, _LARGEST_BATCH = 2**19, 16, 512

# The fields of the configuration on which logits depend.
_MODEL_FIELDS = (
    "kind", "image_shape", "levels", "hidden", "layers", "head_features", "kernel_size",
    "first_kernel_size", "residual", "skip", "dtype", "multi_scale")


@out_of_memory("Compress fewer images at a time, with a smaller batch_size.")
def compress(
    model: Model,
    variables: PyTree,
    images: ImagesLike,
    batch_size: int | None = None,
    progress: Callable[[int], object] | None = None,
    names: Sequence[str] = (),
) -> bytes:
  """Code images in about -log2 p(images) bits, without loss.

  Keep the images until they have been decompressed where they will be needed. Another
  machine may not be able to; see above. On a GPU set
  XLA_FLAGS=--xla_gpu_deterministic_ops=true for both directions. Otherwise each process
  chooses the fastest way to multiply anew.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    images: integers [N, H, W, C], N at least 1, raw values 0 to levels - 1.
    batch_size: largest number of images that a device takes at a time. It bounds the
      memory. The default has about half a million values, from 16 to 512 images.
    progress: called after each batch with the number of images that it coded.
    names: the names of the images, all different, or none; `read_names` returns them.

  Returns:
    Bytes for `decompress` with the same model; see `container.py`.

  Raises:
    InputError: the images have another shape, dtype or range; a name is not allowed, or
      there is not one for each image; the batch size is no whole number or below 1; the
      variables are another model's; or the call is inside `jax.jit`, `jax.vmap` or
      `jax.grad`.
    Diverged: logits are not finite.
  """
  arguments.check_on_host("compress", variables, images)
  model = arguments.unbound(model)
  arguments.check_variables(model, variables)
  config = model.config
  images = np.asarray(arguments.image_values(config, images))
  arguments.check_shape(images, config.image_shape)
  images = np.ascontiguousarray(images, np.uint8)
  names = tuple(names)
  if names and len({*names}) != len(images):
    raise InputError(
        f"{len({*names})} different names for {len(images)} images: give each a name of"
        " its own, or none."
    )
  for name in names:
    check_name(name)
  limit = _batch_limit(config, batch_size)
  devices = jax.local_devices()
  layout = _plan(config, len(images), limit, len(devices))
  streams = []
  for batch in _run(model, variables, layout, devices, images=images):
    for first, values, starts, sizes in batch.streams():
      crc = zlib.crc32(images[first : first + values.shape[0]].tobytes())
      if not np.array_equal(values, images[first : first + values.shape[0]]):
        raise RuntimeError("The coder did not look up the images that it was given.")
      streams.append(rans.push(starts.reshape(-1), sizes.reshape(-1), crc))
    if progress is not None:
      progress(batch.number)
  numbers, written_with = _numbers(devices[0], layout.devices(devices))
  return Container(
      config.image_shape, config.levels, len(images), layout.at_a_time,
      _fingerprint(config, variables), numbers, written_with, names, tuple(streams),
  ).to_bytes()


@out_of_memory("The images must be decompressed as many at a time as compressed.")
def decompress(
    model: Model,
    variables: PyTree,
    data: bytes,
    batch_size: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> UInt8[np.ndarray, "N H W C"]:
  """Return the images that `compress` was given.

  Args:
    model: the model that compressed them.
    variables: the variables that compressed them.
    data: bytes from `compress`.
    batch_size: largest number of images that a device takes at a time. A file that was
      written with a larger one than this, or than the default, is refused.
    progress: called after each batch with the number of images that it decoded.

  Returns:
    uint8 [N, H, W, C].

  Raises:
    InputError: the bytes are damaged or not from `compress`; they are of another model
      or other parameters; this machine computes other numbers; the batch is too large;
      or the call is inside `jax.jit`, `jax.vmap` or `jax.grad`.
  """
  arguments.check_on_host("decompress", variables)
  model = arguments.unbound(model)
  arguments.check_variables(model, variables)
  config = model.config
  file = parse(data)
  if (file.image_shape, file.levels) != (tuple(config.image_shape), config.levels):
    raise InputError(
        f"The compressed images are {_describe(file.image_shape, file.levels)}; this"
        f" model's are {_describe(config.image_shape, config.levels)}. Give the model"
        " that compressed them."
    )
  if file.model != _fingerprint(config, variables):
    raise InputError(
        "The images were compressed with another model: its configuration or its"
        " parameters are not the same. Give the model that compressed them, of the"
        " same checkpoint."
    )
  layout = _Layout(
      file.number, len(file.streams), file.images_in_stream, file.at_a_time)
  limit = _batch_limit(config, batch_size)
  if layout.batch > limit:
    raise InputError(
        f"The images were compressed {layout.batch:,} at a time, and are decompressed"
        f" in the same way; the limit is {limit:,}. Give batch_size={layout.batch}, if"
        " there is memory for it."
    )
  try:
    packed = [rans.unpack(stream) for stream in file.streams]
  except ValueError as error:
    raise InputError(
        f"The file of compressed images is damaged: {error}. Take another copy of it."
    ) from error
  if max(len(words) for *_, words in packed) > layout.capacity(config):
    raise InputError(
        "The file of compressed images is damaged: a stream is longer than its images"
        " can make it. Take another copy of it."
    )
  devices, decoded = jax.local_devices(), []
  for batch in _run(model, variables, layout, devices, packed=packed):
    found = enumerate(batch.streams(), start=batch.first_stream)
    for index, (_, values, *_) in found:
      left = (1, zlib.crc32(values.tobytes()), len(packed[index][2]))
      if batch.left(index) != left:
        raise InputError(_other_numbers(file, devices[0], layout.devices(devices)))
      decoded.append(values)
    if progress is not None:
      progress(batch.number)
  return np.concatenate(decoded)


def number_of_images(data: bytes) -> int:
  """Return the number of images in the bytes of `compress`; no model is needed.

  Raises:
    InputError: the bytes are damaged or not from `compress`.
  """
  return parse(data).number


def read_names(data: bytes) -> tuple[str, ...]:
  """Return the names that `compress` was given, () if none; no model is needed.

  Raises:
    InputError: the bytes are damaged or not from `compress`.
  """
  return parse(data).names


def default_batch_size(config: ModelConfig) -> int:
  """Return the default number of images that a device takes at a time."""
  fitting = _BATCH_VALUES // math.prod(config.image_shape)
  return max(_LEAST_BATCH, min(fitting, _LARGEST_BATCH))


@dataclasses.dataclass(frozen=True)
class _Layout:
  """The division of images into streams and batches.

  Attributes:
    images: N.
    streams: the number of all streams.
    in_stream: I, the images of a stream. The last stream may have fewer.
    at_a_time: S, the streams that a device takes together.
  """

  images: int
  streams: int
  in_stream: int
  at_a_time: int

  @property
  def batch(self) -> int:
    """B, the images that a device takes together."""
    return self.in_stream * self.at_a_time

  def devices(self, there: Sequence[jax.Device]) -> int:
    """Return D, the number of devices that have something to do."""
    return min(len(there), -(-self.streams // self.at_a_time))

  def capacity(self, config: ModelConfig) -> int:
    """Return the largest number of words of a stream."""
    values = self.in_stream * sum(map(math.prod, config.scale_shapes()))
    return values * rans.PRECISION // 32 + 2


def _plan(config: ModelConfig, images: int, limit: int, devices: int) -> _Layout:
  """Return the layout of images; a device takes at most `limit` of them at a time."""
  raw_bits = math.prod(config.image_shape) * math.log2(config.levels)
  in_stream = min(math.ceil(_STREAM_BITS / raw_bits), limit, images)
  streams = -(-images // in_stream)
  at_a_time = min(limit // in_stream, -(-streams // devices))
  rounds = -(-streams // (at_a_time * devices))
  if rounds > 1:  # so that no device idles in the last round
    streams = min(images, rounds * at_a_time * devices)
  in_stream = -(-images // streams)
  streams = -(-images // in_stream)
  return _Layout(images, streams, in_stream, min(at_a_time, streams))


@dataclasses.dataclass(frozen=True)
class _Batch:
  """The program's results for one batch on each device.

  Attributes:
    layout: the layout of all batches.
    first_stream: the number of the first stream here.
    values: uint8 [D S, I, H, W, C].
    starts, sizes: the integers for the probabilities, uint32 [D S, n, I] of n values.
    ends: the rest of each stream, [D S] each.
  """

  layout: _Layout
  first_stream: int
  values: np.ndarray
  starts: np.ndarray
  sizes: np.ndarray
  ends: rans.Streams

  def streams(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (number of the first image, values, starts, sizes) of each stream."""
    layout = self.layout
    for index in range(len(self.values)):
      first = (self.first_stream + index) * layout.in_stream
      count = min(layout.in_stream, layout.images - first)
      if count > 0:
        yield (first, self.values[index, :count], self.starts[index, :, :count],
               self.sizes[index, :, :count])

  def left(self, stream: int) -> tuple[int, int, int]:
    """Return the high and low word of x and the number of words read, at the end."""
    high, low, read = (int(x[stream - self.first_stream]) for x in self.ends)
    return high, low, read

  @property
  def number(self) -> int:
    """The number of images."""
    return sum(len(values) for _, values, *_ in self.streams())


def _run(
    model: Model, variables: PyTree, layout: _Layout, there: Sequence[jax.Device],
    images: np.ndarray | None = None,
    packed: Sequence[tuple[int, int, np.ndarray]] | None = None,
) -> Iterator[_Batch]:
  """Run the program over all batches, with images or with streams.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    layout: how the images are divided.
    there: the devices. Those that have nothing to do are not used.
    images: uint8 [N, H, W, C], to be coded.
    packed: for each stream the result of `rans.unpack`, to be decoded.

  Raises:
    Diverged: logits are not finite.
  """
  config = model.config
  devices = tuple(there[: layout.devices(there)])
  shape = (len(devices), layout.at_a_time)
  program = _make_program(cast(Any, model), devices, layout.at_a_time, layout.in_stream)
  together = shape[0] * shape[1]
  for first in range(0, layout.streams, together):
    indices = np.arange(
        first * layout.in_stream, (first + together) * layout.in_stream)
    real = indices < layout.images
    batch = np.zeros((len(indices), *config.image_shape), np.uint8)
    if images is not None:
      batch[real] = images[indices[real]]
    scales = ops.pyramid(batch, config.multi_scale)
    scales = tuple(x.reshape(shape[0], layout.batch, *x.shape[1:]) for x in scales)
    # The images that fill up the last batch are given in both directions, so that the
    # network sees the same.
    given = ~real | (images is not None)
    words = np.zeros((together, layout.capacity(config)), np.uint32)
    x = np.zeros((2, together), np.uint32)
    some = () if packed is None else packed[first : first + together]
    for index, (high, low, found) in enumerate(some):
      x[:, index] = high, low
      words[index, : len(found)] = found
    state: list[Any] = [*x.reshape(2, *shape), np.zeros(shape, np.int32)]
    streams = rans.Streams(*state)
    # Without compilation it would be another program, and it would take hours.
    with jax.disable_jit(False):
      results = program(
          variables, scales, given.reshape(*shape, layout.in_stream),
          words.reshape(*shape, -1), streams)
    values, starts, sizes, ends, finite = jax.tree.map(np.asarray, results)
    if not finite.all():
      raise Diverged(
          "The model's logits are not finite: it has diverged, or its parameters are"
          " damaged. Nothing can be compressed with it."
      )

    def by_stream(x):  # [D, n, I, S] to [D S, n, I]
      return np.moveaxis(x, 3, 1).reshape(together, *x.shape[1:3])

    yield _Batch(
        layout, first,
        values.reshape(together, layout.in_stream, *values.shape[2:]),
        by_stream(starts), by_stream(sizes),
        rans.Streams(*(x.reshape(together) for x in ends)))


@functools.lru_cache(maxsize=8)
def _make_program(
    model: Model, devices: tuple[jax.Device, ...], streams: int, images: int
) -> Callable:
  """Return the program of both directions, for a batch on each device.

  Args:
    model: from `build_model`.
    devices: D of them.
    streams: S.
    images: I.

  Returns:
    A function of

    - variables;
    - the images of each scale, [D, B, h, w, C], in the order of streams;
    - which of them are given, bool [D, S, I];
    - the words of the streams, uint32 [D, S, W];
    - `rans.Streams` of [D, S].

    It returns

    - the images of the last scale;
    - the start and the size of each value's interval, uint32 [D, n, I, S] for the n
      values of all scales in the order of coding;
    - the streams after the last value;
    - whether all logits were finite, [D].
  """
  levels = model.config.levels

  def one_device(variables, scales, given, words, packed):

    def choose(scale, state, logits, row, column, channel):
      packed, finite = state
      finite &= jnp.isfinite(logits).all()
      sizes = rans.frequencies(logits).reshape(streams, images, levels)
      ends = jnp.cumsum(sizes, axis=-1, dtype=jnp.uint32)
      looked_up = scales[scale][:, row, column, channel].reshape(streams, images)

      def one_image(packed, xs):  # of each stream, one image after another
        sizes, ends, given, looked_up = xs
        value = jnp.where(given, looked_up, rans.find(packed, ends))
        size, end = (
            jnp.take_along_axis(x, value[:, None], axis=-1)[:, 0]
            for x in (sizes, ends))
        popped = rans.pop(packed, words, end - size, size)
        packed = jax.tree.map(
            lambda old, new: jnp.where(given, old, new), packed, popped)
        return packed, (value, end - size, size)

      xs = (sizes, ends, given, looked_up.astype(jnp.int32))
      packed, (values, *interval) = jax.lax.scan(
          one_image, packed, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), xs))
      return (packed, finite), values.T.reshape(-1), interval

    results, (packed, finite) = by_value(
        model, variables, choose, streams * images, state=(packed, jnp.bool_(True)))
    intervals = zip(*(_in_order(collected) for _, collected in results), strict=True)
    starts, sizes = (jnp.concatenate(x) for x in intervals)
    return results[-1][0], starts, sizes, packed, finite

  return jax.pmap(one_device, in_axes=(None, 0, 0, 0, 0), devices=devices)


def _in_order(collected) -> list[jax.Array]:
  """Return two arrays [H W C, ...] from C pairs [H, W, ...], one for each channel."""
  stacked = (jnp.stack(x, axis=2) for x in zip(*collected, strict=True))
  return [x.reshape(-1, *x.shape[3:]) for x in stacked]


def _batch_limit(config: ModelConfig, batch_size: int | None) -> int:
  """Return the largest batch; raise InputError unless it is a whole number."""
  if batch_size is None:
    return default_batch_size(config)
  return arguments.whole("batch_size", batch_size)


def _describe(shape: Sequence[int], levels: int) -> str:
  height, width, channels = shape
  return f"{height}x{width}x{channels} of {levels} levels"


def _fingerprint(config: ModelConfig, variables) -> bytes:
  """Return 8 bytes of a digest of the configuration and all parameters."""
  fields = {name: getattr(config, name) for name in _MODEL_FIELDS}
  digest = hashlib.sha256(json.dumps(fields).encode())
  leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
  for path, leaf in sorted(leaves, key=lambda x: jax.tree_util.keystr(x[0])):
    array = np.asarray(leaf)
    digest.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
    digest.update(array.tobytes())
  return digest.digest()[:8]


def _numbers(device: jax.Device, count: int) -> tuple[bytes, str]:
  """Return a digest, 4 bytes, and words for all that logits' last bits depend on."""
  words = f"{jax.__version__} {device.platform}"
  if device.device_kind != device.platform:
    words += f" {device.device_kind}"
  words += f" {count}"
  package = ""  # where it runs without having been installed
  with contextlib.suppress(importlib.metadata.PackageNotFoundError):
    package = importlib.metadata.version("pixelrnn_jax")
  settings: Any = jax.config
  everything = [
      words, package, jaxlib.version.__version__, platform.machine(), _processor(),
      os.environ.get("XLA_FLAGS", ""), str(settings.jax_default_matmul_precision),
      bool(settings.jax_enable_x64)]
  return hashlib.sha256(json.dumps(everything).encode()).digest()[:4], words


def _processor() -> list:
  """Return a CPU's name, its features and the number of cores for this process."""
  found = {}
  with contextlib.suppress(OSError):  # only Linux has the file
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
      for line in file:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
  names = [found.get(key, "") for key in ("model name", "flags", "Features")]
  cores = (
      len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
      else os.cpu_count())
  return [platform.processor(), *names, cores]


def _other_numbers(file: Container, device: jax.Device, count: int) -> str:
  """Return the message for a stream that does not end with its images' checksum."""
  numbers, here = _numbers(device, count)
  message = (
      "Decompressing did not arrive at the images that were compressed. No image is"
      " returned, as some of them would be wrong.")
  if numbers == file.numbers:
    return (
        f"{message} The model and all that numbers are known to depend on are the same"
        f" (JAX, devices: {here}), so the file is damaged, or the numbers differ from"
        " run to run, as on a GPU without XLA_FLAGS=--xla_gpu_deterministic_ops=true."
    )
  return (
      f"{message} The numbers are not those that they were compressed with: then JAX,"
      f" device and number of devices were '{file.written_with}', here they are"
      f" '{here}'. Where these are the same, the processor, its cores, XLA_FLAGS, JAX's"
      " precision, or the version of jaxlib or pixelrnn_jax is not. Decompress where"
      " they were compressed."
  )
