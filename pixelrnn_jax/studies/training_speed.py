"""The speed of the scans and of the training steps, beside the machine's limits.

Shapes: H height, W width, B batch, h hidden units, K kernel width, G = 4h.

Arithmetic is counted from shapes, with two operations for a multiply-add. Only the
model's own matrix products count. Products at weights that a mask hides do not count,
nor those at offset positions of the skewed map, nor anything elementwise. Every pixel
counts alike: products with the zeros beyond an edge are counted, as is usual for
convolutions. A backward pass counts as two forward passes.

Batches are split over all devices. A CPU's devices are parts of it, so its rates and
its memory are those of the whole CPU. An accelerator's memory is that of each device.

The floor of a scan is the time that its parts would take one after another. Each part
runs at the rate that the machine reaches with nothing else to do (`Rates`). The parts
are the counted products, the tanh of four gates and a cell state for each unit, and the
bytes that have to be read or written:

    forward   read the gates' inputs (4h); write the states (h)
    backward  also write and read again the derivatives of each step: 4h of the gates,
              and 2h that are at least float32, or of the products' dtype if the choice
              `saved` is `narrow`; read the states and their gradient (2h); write the
              gradient of the gates (4h)

The floor of a whole step is the time of its products alone.
"""

import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import Config, ModelConfig, TrainConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models import Model, build_model
from pixelrnn_jax.models.pixel_rnn import PixelRNN
from pixelrnn_jax.runs.optimizer import make_optimizer
from pixelrnn_jax.runs.state import TrainState, init_state
from pixelrnn_jax.studies.timing import call_seconds
from pixelrnn_jax.training import parallel
from pixelrnn_jax.training.step import AXIS


@dataclasses.dataclass
class Work:
  """The necessary work of a run; see the top of this file.

  Attributes:
    operations: operations of products, two for a multiply-add.
    bytes: read or written.
    tanh: values.
  """

  operations: float
  bytes: float = 0.0
  tanh: float = 0.0


@dataclasses.dataclass
class Rates:
  """The rates that all devices together reach, each with nothing else to do.

  Attributes:
    operations: operations of the largest matrix product.
    bytes: read and written, copying 128 MiB.
    tanh: values, of 2^18 of them, which a CPU's caches hold; of 2^24 elsewhere.
  """

  operations: float
  bytes: float
  tanh: float

  def floor(self, work: Work) -> dict[str, float]:
    """Return the seconds for each part of the work, by name."""
    return {
        "products": work.operations / self.operations,
        "bytes": work.bytes / self.bytes,
        "tanh": work.tanh / self.tanh,
    }


@dataclasses.dataclass
class Measurement:
  """One line of the table.

  Attributes:
    name: the name of the program.
    compile_seconds: the time to compile the program.
    seconds: the median time of a run.
    spread: the shortest and the longest time of a run.
    images: number of images that a run covers.
    work: the counted work of a run.
    memory: bytes of arguments, results and temporaries together, as the compiler plans
      them, of a CPU or of each accelerator. None if the compiler does not say.
  """

  name: str
  compile_seconds: float
  seconds: float
  spread: tuple[float, float]
  images: int
  work: Work
  memory: int | None

  def record(self, rates: Rates) -> dict:
    """Return the fields, images/s, the fraction of the peak and the floor, for JSON."""
    rate = self.work.operations / self.seconds
    return dataclasses.asdict(self) | {
        "images_per_second": self.images / self.seconds,
        "flops_per_second": rate,
        "fraction_of_peak": rate / rates.operations,
        "floor_seconds": rates.floor(self.work),
    }


@dataclasses.dataclass
class Prepared:
  """A compiled program with its arguments: all that is left is to time it.

  It keeps its arguments on the devices as long as it lives.

  Attributes:
    run: starts the program once, on the same arguments each time, and returns its
      results at once, before they are computed. A training step takes the state that
      its last run returned.
    name: see `Measurement`.
    compile_seconds: see `Measurement`.
    images: see `Measurement`.
    work: see `Measurement`.
    memory: see `Measurement`.
  """

  run: Callable[[], object]
  name: str
  compile_seconds: float
  images: int
  work: Work
  memory: int | None

  def time(self, repeats: int) -> Measurement:
    """Run the program once to warm up and then time it.

    Each run is waited for before the next one starts, so its time includes the start of
    the program. Nothing is copied from the host or to it.

    Args:
      repeats: timed runs, at least 1.

    Returns:
      The median of their seconds, with the shortest and the longest.
    """
    seconds = _times(self.run, repeats)
    return Measurement(
        self.name, self.compile_seconds, statistics.median(seconds),
        (min(seconds), max(seconds)), self.images, self.work, self.memory)


def _prepare(
    name: str, function: Callable, arguments: tuple, images: int, work: Work,
    devices: int,
) -> Prepared:
  """Compile a function of `pmap`."""
  start = time.perf_counter()
  compiled = function.lower(*arguments).compile()
  return Prepared(
      lambda: compiled(*arguments), name, time.perf_counter() - start, images, work,
      memory(compiled, devices))


def measure_rates(dtype: str, repeats: int) -> Rates:
  """Measure the rates of all devices, of products in `dtype`, the rest in float32."""
  cpu = jax.default_backend() == "cpu"
  megabytes = jnp.zeros((2**25,), jnp.float32)  # 128 MiB, read and written
  values = jax.random.normal(jax.random.key(0), (2**18 if cpu else 2**24,))

  def repeated(count, function):
    # All are in one program, because a single run can be too short to time.
    return jax.jit(lambda x: lax.fori_loop(0, count, lambda _, x: function(x), x))

  copies, many = 4, 32
  copy = repeated(copies, lambda x: x + 1.0)
  tanh = repeated(many, jnp.tanh)
  # The rates are measured on the first device. A CPU's may use all of its cores.
  devices = 1 if cpu else jax.device_count()
  return Rates(
      devices * product_peak(dtype, repeats),
      devices * copies * 2 * megabytes.nbytes
      / min(_times(lambda: copy(megabytes), repeats)),
      devices * many * values.size / min(_times(lambda: tanh(values), repeats)))


def product_peak(
    dtype: str, repeats: int, sizes=(512, 1024, 2048, 4096, 8192, 16384)
) -> float:
  """Return the most operations/s of a square matrix product of some size."""
  peak = 0.0
  for size in sizes:
    a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    product = jax.jit(jnp.matmul)
    best = min(_times(lambda a=a, f=product: f(a, a), repeats))
    peak = max(peak, 2 * size**3 / best)
    if 8 * best > 2.0:  # the next one would take too long here
      break
  return peak


def check_one_scale(config: ModelConfig) -> None:
  """Raise InputError for a multi-scale model: the figures are of one network."""
  if config.multi_scale:
    raise InputError(
        f"model.multi_scale={tuple(config.multi_scale)}: the figures are of one"
        " network: measure the scales of a multi-scale model by themselves, with"
        " --config.model.multi_scale='()' and --config.model.image_shape."
    )


def scan_measurements(
    config: ModelConfig, batch: int, implementations: list[str], repeats: int
) -> list[Measurement]:
  """Measure the recurrence of one layer alone; see `prepare_scans`."""
  return [
      scan.time(repeats) for scan in prepare_scans(config, batch, implementations)]


def prepare_scans(
    config: ModelConfig, batch: int, implementations: list[str]
) -> list[Prepared]:
  """Compile the recurrence of one layer alone, for the LSTM kinds.

  Each implementation runs over all devices. On a CPU with several devices it also runs
  on one of them, which may use all of the cores. The Diagonal BiLSTM's scan includes
  skew and unskew. `autodiff` has one image in a map, as in the paper. `fused` has as
  many images in a map as the layer takes.

  Raises:
    InputError: a multi-scale model, or the batch cannot be split evenly over the
      devices.
  """
  check_one_scale(config)
  if config.kind == "pixel_cnn":
    return []
  height, width, _ = config.image_shape
  h = config.hidden
  directions, taps = (
      (1, config.kernel_size) if config.kind == "row_lstm" else (2, 2))
  positions = directions * height * width * batch
  narrow = jnp.dtype(config.dtype).itemsize
  saved = narrow if config.choices.resolve().saved == "narrow" else max(narrow, 4)
  operations = 2.0 * positions * taps * h * 4 * h
  forward = Work(operations, positions * h * 5 * narrow, positions * h * 5)
  both = Work(
      3 * operations,
      forward.bytes
      + positions * h * (2 * (4 * narrow + 2 * saved) + (2 + 4) * narrow),
      forward.tanh)
  prepared = []
  parallel.check_batch_size(TrainConfig(batch_size=batch))
  counts = [jax.device_count()]
  if counts[0] > 1 and jax.default_backend() == "cpu":
    counts.append(1)
  for implementation, devices in itertools.product(implementations, counts):
    share = batch // devices
    options: dict[str, Any] = dict(
        implementation=implementation, choices=config.choices)
    if config.kind == "row_lstm":
      scan = functools.partial(ops.row_scan, **options)
      inputs, stack = (height, width, share, 4 * h), ()
    else:
      per_strip = 1
      if implementation != "autodiff":
        model: Any = build_model(config)
        per_strip = model.layer.images_per_strip(share)
      options["width"] = width if per_strip > 1 else None
      scan = functools.partial(_diagonal, options)
      inputs, stack = (2, height, per_strip * width, share // per_strip, 4 * h), (2,)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (devices, *inputs)).astype(config.dtype)
    kernel = jax.random.normal(keys[1], (*stack, taps, h, 4 * h)) * (taps * h) ** -0.5
    weights = jax.random.normal(
        keys[2], (devices, *inputs[:-1], h)).astype(config.dtype)
    state = jnp.zeros((*stack, h))

    def gradient(x, weights, *params, scan=scan):
      def loss(x, *params):
        return jnp.sum((scan(x, *params) * weights).astype(jnp.float32))

      x, *params = jax.grad(loss, argnums=(0, 1, 2, 3))(x, *params)
      return x, lax.psum(params, AXIS)

    chosen = jax.devices()[:devices]
    over = functools.partial(jax.pmap, axis_name=AXIS, devices=chosen)
    x, weights = (over(lambda values: values)(values) for values in (x, weights))
    params = parallel.replicate((kernel, state, state), chosen)
    name = f"scan, {implementation}" + (", 1 device" if devices < counts[0] else "")
    prepared += [
        _prepare(f"{name}: forward", over(scan, in_axes=(0, None, None, None)),
                 (x, *params), batch, forward, devices),
        _prepare(f"{name}: forward + backward",
                 over(gradient, in_axes=(0, 0, None, None, None), out_axes=(0, None)),
                 (x, weights, *params), batch, both, devices),
    ]
  return prepared


def _diagonal(
    options: dict[str, Any], inputs: jax.Array, kernel: jax.Array, hidden: jax.Array,
    cell: jax.Array,
) -> jax.Array:
  """Return `diagonal_scan` of maps that are not skewed.

  Args:
    options: the options of `diagonal_scan`.
    inputs: [D, H, W, B, 4h].
    kernel: see `diagonal_scan`.
    hidden: see `diagonal_scan`.
    cell: see `diagonal_scan`.

  Returns:
    [D, H, W, B, h].
  """
  skewed = jnp.stack([ops.skew(x) for x in inputs], axis=1)
  states = ops.diagonal_scan(skewed, kernel, hidden, cell, **options)
  return jnp.stack([ops.unskew(states[:, d]) for d in range(len(inputs))])


def model_operations(model: Model) -> float:
  """Return the operations of one image through the whole network, forward.

  Raises:
    InputError: a multi-scale model.
  """
  check_one_scale(model.config)
  network = cast(PixelRNN, model)
  config, layer = network.config, network.layer
  height, width, _ = config.image_shape
  weights = sum(m.sum() for m in (network.first.mask, *network.head.masks.values()))
  one_layer = sum(mask.sum() for mask in layer.masks.values())
  if config.kind == "row_lstm":
    one_layer += config.kernel_size * config.hidden * 4 * config.hidden
  elif config.kind == "diagonal_bilstm":
    one_layer += 2 * 2 * config.hidden * 4 * config.hidden
  return 2.0 * height * width * float(weights + config.layers * one_layer)


def step_measurements(config: Config, repeats: int) -> list[Measurement]:
  """Measure the whole network forward, and the training step over all devices.

  Raises:
    InputError: see `prepare_scans`.
  """
  check_one_scale(config.model)
  model = build_model(config.model)
  parallel.check_batch_size(config.train)
  images, state = _images(config), _state(config)
  mask = _on_devices(np.ones(config.train.batch_size, bool))
  forward = _prepare(
      "network: forward", parallel.make_eval_step(model),
      (state.params, images, mask), config.train.batch_size, _forward_work(config),
      jax.local_device_count()).time(repeats)
  return [forward, prepare_training_step(config).time(repeats)]


def prepare_training_step(config: Config) -> Prepared:
  """Compile the training step alone; see `step_measurements`."""
  check_one_scale(config.model)
  parallel.check_batch_size(config.train)
  images, state = _images(config), _state(config)
  step = parallel.make_train_step(
      build_model(config.model), make_optimizer(config.optimizer, config.train.steps),
      config.train.accumulate)
  start = time.perf_counter()
  compiled = step.lower(state, images).compile()
  compile_seconds = time.perf_counter() - start

  def one_step():
    nonlocal state  # the step consumes the state that it is given
    state, metrics = compiled(state, images)
    return metrics

  return Prepared(
      one_step, "training step", compile_seconds, config.train.batch_size,
      Work(3 * _forward_work(config).operations),
      memory(compiled, jax.local_device_count()))


def _images(config: Config) -> jax.Array:
  """Return a batch of noise, split over the devices."""
  model = config.model
  return _on_devices(np.random.default_rng(0).integers(
      0, model.levels, (config.train.batch_size, *model.image_shape), np.uint8))


def _on_devices(batch: np.ndarray) -> jax.Array:
  """Return the parts of a batch on their devices, so that no run copies them there."""
  return jax.pmap(lambda part: part)(parallel.shard(batch))


def _state(config: Config) -> TrainState:
  """Return the state that a run starts with, on all devices."""
  model = build_model(config.model)
  optimizer = make_optimizer(config.optimizer, config.train.steps)
  return parallel.replicate(jax.jit(
      lambda key: init_state(model, optimizer, key, config.model.image_shape))(
          jax.random.key(0)))


def _forward_work(config: Config) -> Work:
  """Return the work of a batch through the whole network."""
  return Work(config.train.batch_size * model_operations(build_model(config.model)))


def pipeline_images_per_second(config: Config, iterator, seconds: float = 2.0) -> float:
  """Return the images/s of the data pipeline alone, after the first batch."""
  next(iterator)
  start, batches = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    next(iterator)
    batches += 1
  return batches * config.train.batch_size / (time.perf_counter() - start)


def _times(run: Callable, repeats: int) -> list[float]:
  """Return the seconds of each of `repeats` runs, after one to warm up."""
  return call_seconds(run, repeats + 1)[1:]


def memory(compiled, devices: int = 1) -> int | None:
  """Return the bytes of a compiled program's arguments, results and temporaries.

  Args:
    compiled: the program.
    devices: the number of a CPU's devices that run it at once; an accelerator's memory
      is its own.
  """
  analysis = compiled.memory_analysis()
  if analysis is None:
    return None
  share = devices if jax.default_backend() == "cpu" else 1
  return share * (
      analysis.argument_size_in_bytes + analysis.output_size_in_bytes
      + analysis.temp_size_in_bytes - analysis.alias_size_in_bytes)
