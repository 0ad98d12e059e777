"""All figures of one machine, such as an accelerator, one part after another.

A part is a scan, a training step, a batch of samples, one choice against the default
or a short training. Parts come in groups, with no more of them than the host has cores.
The programs of a group are compiled at the same time, because compiling takes longer
than running. Then the parts of the group are timed one by one, with nothing beside
them. A part that has been timed leaves no array on the devices.

The results are written after each part, so a run that is cut off keeps what it has. A
part that fails is recorded, and the next one begins.
"""

import concurrent.futures
import dataclasses
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pixelrnn_jax import files
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.fields import set_field
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError, Interrupted
from pixelrnn_jax.models import build_model
from pixelrnn_jax.ops.choices import OPTIONS, Choices
from pixelrnn_jax.runs.optimizer import make_optimizer
from pixelrnn_jax.runs.state import init_state
from pixelrnn_jax.studies import sampling_speed, tables, training_speed
from pixelrnn_jax.studies.training_speed import Measurement, Rates
from pixelrnn_jax.training import parallel, train
from pixelrnn_jax.training.evaluation import read_evaluation, with_error

RESULTS, TABLE = "measurements.json", "table.md"
HEADER = [
    "what", "batch", "ms", "images/s", "TFLOP/s", "of peak", "GiB", "compile, s"]
# The share of the memory for the largest batch. The compiler's plan does not see all.
_USABLE = 0.9


@dataclasses.dataclass(frozen=True)
class Plan:
  """The list of measurements.

  Attributes:
    steps: configs whose training step is measured, each at its batch.
    largest: one of them, also measured at the largest batch that fits. It must be in
      `steps` once, because that batch follows from the memory of its step there.
    sampling: the config whose sampling is measured.
    batches: numbers of images that it draws at a time.
    training: the config that is trained.
    training_steps: number of steps that it is trained for.
    scans: configs whose scans are measured.
    choices: (config, fields of the model). A training step is measured with the
      defaults, and one with each other value of each field (`other_values`).
    choices_layers: number of layers of the networks of `choices`. It is smaller than a
      config's, because there are many programs to compile.
    repeats: number of timed runs of each line, after one to warm up.
    memory: bytes of a device's memory, for a device that does not say.
  """

  steps: tuple[str, ...]
  largest: str
  sampling: str
  batches: tuple[int, ...]
  training: str
  training_steps: int
  scans: tuple[str, ...]
  choices: tuple[tuple[str, tuple[str, ...]], ...]
  choices_layers: int
  repeats: int
  memory: int | None = None

  def __post_init__(self):
    """Raise ValueError unless `largest` is in `steps` once."""
    count = self.steps.count(self.largest)
    if count != 1:
      raise ValueError(
          f"largest={self.largest!r} is {count} times in steps={self.steps}: it must be"
          " one of them, once.")


FULL = Plan(
    steps=("row_lstm_imagenet32", "diagonal_bilstm_cifar10", "row_lstm_cifar10",
           "pixel_cnn_cifar10"),
    largest="row_lstm_imagenet32",
    sampling="row_lstm_cifar10", batches=(1, 16, 256),
    training="diagonal_bilstm_mnist", training_steps=1_000,
    scans=("row_lstm_imagenet32", "row_lstm_cifar10", "diagonal_bilstm_cifar10"),
    choices=(
        ("row_lstm_cifar10", (
            "implementation", "state_to_state", "gates_gradient", "kernel_gradient",
            "saved", "unroll", "convolution", "logits", "rematerialize")),
        ("diagonal_bilstm_cifar10", (
            "implementation", "state_to_state", "row_start", "skew", "saved", "unroll",
            "images_per_strip")),
        ("pixel_cnn_cifar10", ("convolution", "head_products", "logits")),
    ),
    choices_layers=2,
    repeats=5,
)
# Every kind of part, on sizes that mean nothing.
SMOKE = Plan(
    steps=("pixel_cnn_cifar10:smoke",), largest="pixel_cnn_cifar10:smoke",
    sampling="pixel_cnn_cifar10:smoke", batches=(2,),
    training="pixel_cnn_mnist:smoke", training_steps=4,
    scans=("row_lstm_cifar10:smoke",),
    choices=(("pixel_cnn_cifar10:smoke", ("logits",)),), choices_layers=1,
    repeats=1, memory=2**26,
)


@dataclasses.dataclass
class Row:
  """One line of the table. A figure that does not exist is None.

  Attributes:
    name: the name of the program.
    images: number of images that a run covers.
    seconds: the time of a run.
    compile_seconds: the time to compile the program, while the others of its group
      compile too. For sampling it is the time of the first draw, which compiles and
      draws.
    flops_per_second: counted operations a second; see `training_speed`.
    fraction_of_peak: the same as a fraction of the largest matrix product's rate.
    memory: bytes of each accelerator, or of the whole CPU.
    spread: the shortest and the longest time of a run.
    nats: the mean nats of a test image, after training.
    nats_standard_error: the standard error of `nats`.
  """

  name: str
  images: int
  seconds: float
  compile_seconds: float | None = None
  flops_per_second: float | None = None
  fraction_of_peak: float | None = None
  memory: int | None = None
  spread: tuple[float, float] | None = None
  nats: float | None = None
  nats_standard_error: float | None = None

  def cells(self) -> list[str]:
    """Return the line in the order of `HEADER`."""

    def text(value: float | None, form: str) -> str:
      return "" if value is None else format(value, form)

    return [
        self.name, str(self.images), text(self.seconds * 1e3, ",.4g"),
        text(self.images / self.seconds, ",.4g"),
        text(self.flops_per_second and self.flops_per_second / 1e12, ".4g"),
        text(self.fraction_of_peak, ".3f"),
        text(self.memory and self.memory / 2**30, ".2f"),
        text(self.compile_seconds, ".1f")]


# A part compiles its programs, and then gives a function that times them.
Timer = Callable[[], list[Row]]
Part = tuple[str, Callable[[], Timer]]


def measure_all(
    plan: Plan, dtype: str, output: str, minutes: float,
    say: Callable[[str], None] = print,
) -> list[str]:
  """Measure the parts of a plan in turn, and write the results after each.

  Args:
    plan: what to measure.
    dtype: the dtype of the products, in all parts but the training.
    output: a directory for `measurements.json` and `table.md`. It is made if it does
      not exist.
    minutes: after so many minutes no part begins. A part in progress is finished.
    say: called with a line as each part ends.

  Returns:
    A line for each part that failed or was left out.
  """
  start = time.perf_counter()
  os.makedirs(output, exist_ok=True)
  rates = training_speed.measure_rates(dtype, plan.repeats)
  record = {
      "machine": tables.describe_machine(), "dtype": dtype,
      "matmul_precision": parallel.settings()["jax_default_matmul_precision"],
      "rates": dataclasses.asdict(rates), "plan": dataclasses.asdict(plan),
      "parts": []}
  _write(record, output)
  say(f"{record['machine']}; largest matrix product {_peak(record)}")

  def late():
    return time.perf_counter() - start > 60 * minutes

  cores = os.cpu_count() or 1
  groups = [
      parts[first:first + cores] for parts in _groups(plan, dtype, rates)
      for first in range(0, len(parts), cores)]
  for group in groups:
    timers = None if late() else _prepare_all([prepare for _, prepare in group])
    for index, (name, _) in enumerate(group):
      begun = time.perf_counter()
      rows, problem = [], None
      if timers is None or late():
        problem = f"left out: {minutes:g} minutes were over"
      else:
        try:
          # Once timed, its programs and their arguments can be freed.
          rows = timers.pop(index).result()()
        except Interrupted:  # by a signal, in a training
          raise
        except Exception as error:  # of any kind: told below, and at the end
          problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
      seconds = time.perf_counter() - begun
      record["parts"].append({
          "name": name, "problem": problem, "seconds": seconds,
          "rows": [dataclasses.asdict(row) for row in rows]})
      _write(record, output)
      say(f"{name}: {problem or f'{seconds:.1f} s'}")
  return _problems(record)


def format_results(record: dict) -> str:
  """Return the table of `measurements.json` in Markdown, with the machine above."""
  rows = [Row(**row) for part in record["parts"] for row in part["rows"]]
  lines = [
      f"{record['machine']}; products in {record['dtype']}, the largest"
      f" {_peak(record)}.", "",
      tables.format_table(HEADER, [row.cells() for row in rows])]
  lines += [
      f"\n{row.name}: {with_error(row.nats, row.nats_standard_error, 3)} nats/image"
      " (test)." for row in rows if row.nats is not None]
  lines += [f"\nNot measured: {problem}." for problem in _problems(record)]
  return "\n".join(lines) + "\n"


def largest_batch(
    planned: int | None, config: Config, devices: int, memory: int
) -> int:
  """Return the largest batch whose training step fits, by the plan of a smaller one.

  All memory but the state's is taken to grow with the batch. Some of it does not,
  so this is a little less than what would fit.

  Args:
    planned: bytes that the training step of `config` takes on each device, as its
      compiler plans them; None if it does not say.
    config: the configuration of a training.
    devices: over which the batch is split.
    memory: bytes of each device.

  Raises:
    InputError: the compiler does not say how much a step takes, or no larger batch
      fits.
  """
  batch = config.train.batch_size
  if planned is None:
    raise InputError("The compiler does not say how much memory a step takes.")
  state = _state_bytes(config)
  image_bytes = (planned - state) / (batch // devices)
  images = int((_USABLE * memory - state) / image_bytes)  # on each device
  if images > 8:  # whole tiles
    images -= images % 8
  if images * devices <= batch:
    raise InputError(f"No larger batch than the config's {batch} fits.")
  return images * devices


def other_values(field: str) -> list:
  """Return the values of a field of the model that are not this backend's default."""
  tpu = jax.default_backend() == "tpu"
  default = {
      "implementation": "fused", "rematerialize": False, **vars(Choices().resolve())}
  values = {
      "implementation": ["fused", "autodiff"] + ["pallas"] * tpu,
      "rematerialize": [False, True], "unroll": [1, 4, 16, 32],
      "images_per_strip": [1, 2, 8], **OPTIONS}
  return [value for value in values[field] if value != default[field]]


def _prepare_all(
    functions: list[Callable[[], Timer]],
) -> dict[int, concurrent.futures.Future[Timer]]:
  """Call all functions at the same time; return each one's future by its place."""
  with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
    return {i: pool.submit(function) for i, function in enumerate(functions)}


def _groups(plan: Plan, dtype: str, rates: Rates) -> list[list[Part]]:
  """Return the parts of a plan in groups, the most important first."""
  # The memory of the step of `plan.largest` at its own batch. It holds the number alone
  # and no exception of the step: either would keep the step's arrays alive.
  own: concurrent.futures.Future[int | None] = concurrent.futures.Future()

  def prepare_step(config, label):
    step = training_speed.prepare_training_step(config)
    return step, lambda: [_row(step.time(plan.repeats), f"{label}, {step.name}", rates)]

  def step(name, changes, label):
    return prepare_step(_load(name, dtype, changes), label)[1]

  def own_step():
    try:
      prepared, timer = prepare_step(_load(plan.largest, dtype), plan.largest)
    except BaseException as error:
      own.set_exception(InputError(
          f"its step at its own batch failed: {type(error).__name__}: {error}"))
      raise
    own.set_result(prepared.memory)
    return timer

  def largest_step():
    planned = own.result()  # that part comes before this one, so it has begun
    config = _load(plan.largest, dtype)
    memory = plan.memory or (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if not memory:
      raise InputError("The device does not say how much memory it has.")
    batch = largest_batch(planned, config, jax.local_device_count(), memory)
    return step(
        plan.largest, {"train.batch_size": batch, "train.accumulate": 1},
        f"{plan.largest}, largest batch")

  def scans(name, implementation):
    config = _load(name, dtype)
    prepared = training_speed.prepare_scans(
        config.model, config.train.batch_size, [implementation])
    return lambda: [
        _row(scan.time(plan.repeats), f"{name}, {scan.name}", rates)
        for scan in prepared]

  first: list[Part] = [
      (f"step of {name}",
       own_step if name == plan.largest
       else functools.partial(step, name, {}, name)) for name in plan.steps]
  first.append((f"step of {plan.largest} at the largest batch", largest_step))
  first += [
      (f"{batch} samples of {plan.sampling}",
       functools.partial(_sampling, plan.sampling, dtype, batch, plan.repeats))
      for batch in plan.batches]
  training = [(
      f"training of {plan.training}",
      lambda: functools.partial(_training, plan.training, plan.training_steps))]
  second: list[Part] = [
      (f"scan of {name}, {implementation}",
       functools.partial(scans, name, implementation))
      for name in plan.scans
      for implementation in ("fused", *other_values("implementation"))]
  for name, fields in plan.choices:
    layers = {"model.layers": plan.choices_layers}
    of = f"{name}, layers={plan.choices_layers}"
    second.append((f"step of {of}", functools.partial(step, name, layers, of)))
    for field in fields:
      for value in other_values(field):
        label = f"{of}, {field}={value}"
        second.append((f"step of {label}", functools.partial(
            step, name, {**layers, f"model.{field}": value}, label)))
  return [first, training, second]


def _load(name: str, dtype: str, changes: dict | None = None) -> Config:
  """Return a config with its products in `dtype` and with other fields changed."""
  config = load_config(name)
  for field, value in {"model.dtype": dtype, **(changes or {})}.items():
    set_field(config, field, value)
  config.validate()
  return config


def _state_bytes(config: Config) -> int:
  """Return the bytes of the parameters and the optimiser's state."""
  model = build_model(config.model)
  optimizer = make_optimizer(config.optimizer, config.train.steps)
  state = jax.eval_shape(
      lambda key: init_state(model, optimizer, key, config.model.image_shape),
      jax.random.key(0))
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def _row(measured: Measurement, name: str, rates: Rates) -> Row:
  """Return the line of the table for a measurement of `training_speed`."""
  record = measured.record(rates)
  record["name"] = name
  return Row(**{
      field.name: record[field.name] for field in dataclasses.fields(Row)
      if field.name in record})


def _sampling(name: str, dtype: str, batch: int, calls: int) -> Timer:
  """Draw a batch with untrained parameters.

  The first draw is made here, so that what it compiles is compiled with the group.
  """
  config = _load(name, dtype).model
  model = build_model(config)
  variables = jax.jit(model.init)(
      jax.random.key(0), jnp.zeros((1, *config.image_shape), jnp.uint8))
  first = sampling_speed.time_sampler(model, variables, batch, 0)

  def timer():
    seconds = sampling_speed.time_sampler(model, variables, batch, calls).seconds
    return [Row(f"{name}, sampling", batch, seconds, first.compile_seconds)]

  return timer


def _training(name: str, steps: int) -> list[Row]:
  """Train a model from the start and evaluate it on the test images.

  Raises:
    InputError: the training left no figures.
  """
  config = load_config(name)
  for field, value in {
      "train.steps": steps, "train.eval_every": steps,
      "train.checkpoint_every": steps, "train.samples": 0,
      "train.log_every": max(1, steps // 4)}.items():
    set_field(config, field, value)
  lines = []
  start = time.perf_counter()
  with tempfile.TemporaryDirectory() as workdir:
    train(config, workdir, on_metrics=lines.append)
    seconds = time.perf_counter() - start
    evaluation = read_evaluation(workdir, steps)
  rates = [line["train/images_per_second"] for line in lines
           if "train/images_per_second" in line]
  if evaluation is None or not rates:
    raise InputError(
        f"The training of {name} left no figures of"
        f" {'its speed' if evaluation else f'the test images at step {steps}'}.")
  batch = config.train.batch_size
  what = f"{steps:,} training steps of {name}"
  return [
      Row(f"{what}, a step", batch, batch / rates[-1]),
      Row(f"{what}, all with compilation and evaluation", steps * batch, seconds,
          nats=evaluation["nats_per_image"],
          nats_standard_error=evaluation["nats_standard_error"])]


def _peak(record: dict) -> str:
  """Return the rate of the largest matrix product."""
  return f"{record['rates']['operations'] / 1e12:.4g} TFLOP/s"


def _problems(record: dict) -> list[str]:
  """Return a line for each part that was not measured."""
  return [
      f"{part['name']} ({part['problem']})" for part in record["parts"]
      if part["problem"]]


def _write(record: dict, output: str) -> None:
  """Replace both files of the results."""
  files.write_text(
      os.path.join(output, RESULTS), json.dumps(record, indent=2) + "\n")
  files.write_text(os.path.join(output, TABLE), format_results(record))
