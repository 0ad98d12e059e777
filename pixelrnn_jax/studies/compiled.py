"""Programs that compilers make of a training step for TPUs and GPUs, with none at hand.

A program is compiled ahead of time for a device that is only described. Nothing runs,
so no time is measured. The compiled program tells these figures:

    memory       the memory of one device, as the compiler plans it
    kernels      the number of fusions, products and copies that one step runs, with
                 each iteration of a loop counted
    iterations   the number of iterations of all loops
    time         TPU only: the compiler's own estimate of each kernel's cycles, summed.
                 It can be ten times too high. Orderings can be trusted, milliseconds
                 cannot.
    launches     GPU only: the number of launches, of the graphs (command buffers) into
                 which kernels are gathered and of the kernels outside of them

`jax.named_scope` marks the parts of the model (`PARTS`).
"""

import collections
import dataclasses
import functools
import glob
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from pixelrnn_jax import files
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference.sampling import make_completer
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs.optimizer import make_optimizer
from pixelrnn_jax.runs.state import init_state
from pixelrnn_jax.studies import training_speed
from pixelrnn_jax.training import parallel

# Names of `jax.named_scope` in the model and the step. The innermost one counts.
PARTS = ("scan", "skew", "layers", "head", "optimizer")


@dataclasses.dataclass(frozen=True)
class Target:
  """A device that programs are compiled for.

  Attributes:
    backend: `tpu` or `gpu`.
    topology: TPU only: the name of a slice of four chips.
    bytes: the bytes of a device's memory.
    clock: TPU only: cycles a second.
    peak: bfloat16 operations a second, from the maker's data sheet.
  """

  backend: str
  topology: str
  bytes: int
  clock: float
  peak: float


TARGETS = {
    "tpu_v5e": Target("tpu", "v5e:2x2", 16 * 2**30, 1.5e9, 197e12),
    # The clock is that at which its four 256 x 256 units reach the peak.
    "tpu_v6e": Target("tpu", "v6e:2x2", 32 * 2**30, 1.75e9, 918e12),
    "h100": Target("gpu", "", 80 * 10**9, 0.0, 989e12),
}

# The facts of an H100, as the compiler asks for them.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  device_vendor: "NVIDIA Corporation"
  device_address_bits: 64
  ecc_enabled: true
  name: "NVIDIA H100 80GB HBM3"
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def described_devices(name: str, count: int) -> list[jax.Device]:
  """Return devices of a target, none of which need be there.

  Args:
    name: the name of the target.
    count: how many.

  Raises:
    InputError: no such target or not so many devices, or the compiler is not
      installed.
  """
  if name not in TARGETS:
    raise InputError(f"target={name!r}: use one of {', '.join(TARGETS)}.")
  target = TARGETS[name]
  try:
    if target.backend == "tpu":
      topology = topologies.get_topology_desc(
          topology_name=target.topology, platform="tpu")
    else:
      topology = topologies.get_topology_desc(
          platform="cuda", target_config=_H100, topology=f"1x1x{count}")
  except Exception as error:
    package = "tpu" if target.backend == "tpu" else "cuda13"
    raise InputError(
        f"The compiler for {name} is not there: pip install 'jax[{package}]', and set"
        " JAX_PLATFORMS=cpu and, for a TPU, TPU_SKIP_MDS_QUERY=1."
        f" ({error})") from error
  devices = list(topology.devices)[:count]
  if len(devices) < count:
    raise InputError(f"chips={count}: {name} is described with {len(devices)} at most.")
  return devices


def as_on(config: Config, target: str) -> None:
  """Set the choices of the config to what they are on a target.

  Args:
    config: changed in place.
    target: its name.
  """
  backend = TARGETS[target].backend
  for name, value in vars(config.model.choices.resolve(backend)).items():
    setattr(config.model, name, value)


@dataclasses.dataclass
class Summary:
  """The figures of a compiled program; see the top of this file.

  Attributes:
    kernels: number of kernels that run.
    iterations: the number of iterations of all loops.
    milliseconds: the compiler's estimate; None on a GPU.
    launches: the number of launches of graphs; None on a TPU.
    parts: the milliseconds of each part, "NAME forward" or "NAME backward", or on a
      GPU its number of kernels.
  """

  kernels: int
  iterations: int
  milliseconds: float | None
  launches: int | None
  parts: dict[str, float]


@dataclasses.dataclass
class Instruction:
  """One instruction of an optimised HLO program.

  Attributes:
    name: without the %.
    shape: the shape of its result, as text.
    opcode: `fusion`, `while`, ...
    text: the rest of the line: operands and attributes.
  """

  name: str
  shape: str
  opcode: str
  text: str

  def attribute(self, pattern: str) -> str:
    """Return what the pattern's group matches in the text, or ""."""
    found = re.search(pattern, self.text)
    return found.group(1) if found else ""


def parse_hlo(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """Return the computations of an optimised HLO program by name, and the entry's name.

  Args:
    text: from `as_text()` of a compiled program.
  """
  computations, current, entry = {}, None, ""
  for line in text.splitlines():
    if start := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line):
      current = computations.setdefault(start.group(2), [])
      entry = start.group(2) if start.group(1) else entry
    elif line.startswith("}"):
      current = None
    elif current is not None and (
        found := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (.*)$", line)):
      shape, rest = _split_shape(found.group(2))
      opcode = re.split(r"[^\w\-]", rest, maxsplit=1)[0]
      current.append(Instruction(found.group(1), shape, opcode, rest))
  return computations, entry


def _split_shape(text: str) -> tuple[str, str]:
  """Split "SHAPE OPCODE(...)"; a tuple's shape has spaces."""
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if letter == " " and depth == 0:
      return text[:i], text[i + 1:]
  return text, ""


# Instructions that are kernels of their own where they stand outside of a fusion.
_KERNELS = frozenset("""
    fusion copy convolution dot custom-call transpose all-reduce all-gather reduce
    reduce-window sort dynamic-slice dynamic-update-slice slice pad broadcast
    concatenate convert select add multiply iota gather scatter reverse""".split())


def executed(
    computations: dict[str, list[Instruction]], name: str, times: int = 1,
    part: str = "",
) -> Iterator[tuple[Instruction, int, str]]:
  """Yield the instructions that a computation runs, with those of its loops.

  Args:
    computations: from `parse_hlo`.
    name: the name of the computation.
    times: how often it runs.
    part: that it belongs to where its instructions do not say.

  Yields:
    The instruction, how often it runs, and the part of the model; see `part_of`.
  """
  for instruction in computations[name]:
    own = part_of(instruction.attribute(r'op_name="([^"]*)"')) or part
    yield instruction, times, own
    if instruction.opcode == "while":
      body = instruction.attribute(r"body=%?([\w.\-]+)")
      count = times * trip_count(computations, instruction)
      yield from executed(computations, body, count, own)
    elif instruction.opcode == "call":
      called = instruction.attribute(r"to_apply=%?([\w.\-]+)")
      yield from executed(computations, called, times, own)


def part_of(op_name: str) -> str:
  """Return "NAME forward" or "NAME backward" of the innermost part, or ""."""
  names = re.findall(r"[\w.]+", op_name)
  inner = next((name for name in reversed(names) if name in PARTS), "")
  if not inner or inner in ("head", "optimizer"):
    return inner
  back = "transpose(" in op_name
  return f"{inner} {'backward' if back else 'forward'}"


def trip_count(
    computations: dict[str, list[Instruction]], loop: Instruction
) -> int:
  """Return how often a loop's body runs, 1 where that is not known.

  Args:
    computations: from `parse_hlo`.
    loop: an instruction `while`.
  """
  if known := loop.attribute(r'known_trip_count":\{"n":"(\d+)"'):
    return int(known)
  # A TPU's program compares the counter with a constant.
  condition = computations[loop.attribute(r"condition=%?([\w.\-]+)")]
  numbers = [
      int(found.group(1)) for i in condition
      if i.shape.startswith("s32[]")
      and (found := re.match(r"constant\((-?\d+)\)", i.text))]
  return max(numbers, default=1)


def summarize_tpu(text: str, clock: float) -> Summary:
  """Return the summary of a TPU's program.

  Args:
    text: its optimised HLO, with the compiler's `estimated_cycles`.
    clock: cycles a second.
  """
  computations, entry = parse_hlo(text)
  kernels = iterations = 0
  cycles = collections.Counter()
  for instruction, times, part in executed(computations, entry):
    if instruction.opcode == "while":
      iterations += times * trip_count(computations, instruction)
    elif instruction.opcode in _KERNELS:
      kernels += times
      estimate = instruction.attribute(r'estimated_cycles":"(\d+)"')
      cycles[part or "other"] += times * int(estimate or 0)
  parts = {name: 1e3 * n / clock for name, n in cycles.most_common()}
  return Summary(kernels, iterations, sum(parts.values()), None, parts)


# Thunks that run nothing on the GPU by themselves.
_NO_KERNELS = (
    "kWhile", "kDynamicSliceFusion", "kCommandBuffer", "kConditional", "kSequential")


def summarize_gpu(text: str, thunks: str, metadata: str) -> Summary:
  """Return the summary of a GPU's program.

  Args:
    text: its optimised HLO.
    thunks: what the GPU is given in turn, as the compiler dumps it: a line for each
      thunk, those of a loop's body indented. The host knows how often a loop runs, so
      its condition is never computed.
    metadata: which instruction each thunk is of, by the thunk's number.
  """
  computations, entry = parse_hlo(text)
  names = {
      int(number): name for name, number in re.findall(
          r'profile_annotation: "([^"]*)"\s+thunk_id: (\d+)', metadata)}
  known = {i.name: (i, part) for i, _, part in executed(computations, entry)}
  kernels = iterations = launches = trips = 0
  parts = collections.Counter()
  bodies = [(-1, 1)]  # around this line: their indentation, and how often they run
  in_condition = False
  for line in thunks.splitlines():
    found = re.match(r"( *)(?:(\d+): (k\w+)|(condition|body):)", line)
    if not found or (in_condition and found.group(4) != "body"):
      continue
    indent, number, kind, label = found.groups()
    in_condition = label == "condition"
    if in_condition:
      continue
    while len(bodies) > 1 and len(indent) <= bodies[-1][0]:
      bodies.pop()
    times = bodies[-1][1]
    instruction, part = known.get(names.get(int(number or 0), ""), (None, ""))
    if label == "body":
      bodies.append((len(indent), times * trips))
      iterations += times * trips
    elif kind == "kWhile":
      trips = trip_count(computations, instruction) if instruction else 1
    elif kind == "kCommandBuffer":
      launches += times
    elif kind not in _NO_KERNELS:
      kernels += times
      parts[part or "other"] += times
  return Summary(kernels, iterations, None, launches, dict(parts.most_common()))


@dataclasses.dataclass
class Program:
  """A function that can be compiled.

  Attributes:
    name: `step` or `sampler`.
    images: that it covers, of all devices.
    lower: lowers it for its devices.
    operations: counted, of products; 0 where that is not counted.
  """

  name: str
  images: int
  lower: Callable[[], jax.stages.Lowered]
  operations: float


def programs(config: Config, devices: list[jax.Device], samples: int) -> list[Program]:
  """Return the training step of a config and its sampler.

  Args:
    config: its choices are those of the target; see `as_on`.
    devices: from `described_devices`.
    samples: images that a device draws at a time; 0 leaves the sampler out.

  Raises:
    InputError: the batch cannot be split over the devices.
  """
  parallel.check_batch_size(config.train, len(devices))
  model = build_model(config.model)
  optimizer = make_optimizer(config.optimizer, config.train.steps)
  shape, batch = config.model.image_shape, config.train.batch_size
  state = jax.eval_shape(
      lambda key: init_state(model, optimizer, key, shape), jax.random.key(0))

  def on_devices(size, rest, dtype):
    return jax.ShapeDtypeStruct((len(devices), size, *rest), dtype)

  step = parallel.make_train_step(
      model, optimizer, config.train.accumulate, devices=devices)
  operations = 0.0
  if not config.model.multi_scale:
    operations = 3 * batch * training_speed.model_operations(model)
  found = [Program(
      "step", batch,
      functools.partial(
          step.lower, state, on_devices(batch // len(devices), shape, jnp.uint8)),
      operations)]
  if samples:
    keys = jax.eval_shape(
        lambda key: jax.random.split(key, (len(devices), samples)), jax.random.key(0))
    scales = config.model.scale_shapes()
    sampler: Any = make_completer(cast(Any, model), tuple(devices))
    found.append(Program(
        "sampler", samples * len(devices),
        functools.partial(
            sampler.lower, {"params": state.params}, keys,
            tuple(on_devices(samples, scale, jnp.uint8) for scale in scales),
            tuple(on_devices(samples, scale[:2], bool) for scale in scales),
            jax.ShapeDtypeStruct((), jnp.float32)),
        0.0))
  return found


def compile_program(program: Program, target: str) -> tuple[Summary, int, str]:
  """Compile a program and read it.

  Args:
    program: from `programs`, for devices of the target.
    target: its name.

  Returns:
    The summary, the bytes of memory that a device needs, and the optimised HLO.

  Raises:
    jax.errors.JaxRuntimeError: the program does not compile: it does not fit, for
      one.
  """
  lowered = program.lower()
  chosen = TARGETS[target]
  if chosen.backend == "tpu":
    compiled = lowered.compile()
    text = compiled.as_text() or ""
    return summarize_tpu(text, chosen.clock), _memory(compiled), text
  with tempfile.TemporaryDirectory() as folder:
    compiled = lowered.compile(compiler_options={
        "xla_dump_to": folder, "xla_dump_hlo_as_text": True})
    text = compiled.as_text() or ""
    thunks, metadata = (
        _dumped(folder, name) for name in (
            "thunk_sequence_after_thunk_passes", "thunk_metadata"))
  return summarize_gpu(text, thunks, metadata), _memory(compiled), text


def _dumped(folder: str, name: str) -> str:
  """Return the text that the compiler has dumped of its largest program."""
  paths = glob.glob(os.path.join(folder, f"*.{name}.txt"))
  return files.read_text(max(paths, key=os.path.getsize)) if paths else ""


def _memory(compiled) -> int:
  """Return the bytes of a program's arguments, results and temporaries."""
  return training_speed.memory(compiled) or 0


@dataclasses.dataclass
class Result:
  """A line of the table, as the JSON file has it.

  Attributes:
    config: its name.
    changes: fields that were changed, as given.
    target: the device's name.
    program: `step` or `sampler`.
    dtype: the dtype of the products.
    chips: how many devices.
    images: the number of images of all devices.
    gib: the GiB of memory that a device needs.
    fits: whether it has so much.
    operations: counted, of products, in all; 0 where they are not counted.
    summary: the summary of one device's program.
    versions: the versions of JAX and its compilers.
  """

  config: str
  changes: str
  target: str
  program: str
  dtype: str
  chips: int
  images: int
  gib: float
  fits: bool
  operations: float
  summary: Summary
  versions: str

  def key(self) -> tuple:
    """Return what two results must share to be compared."""
    return (self.config, self.target, self.program, self.dtype, self.chips, self.images)

  def fraction_of_peak(self) -> float | None:
    """Return the estimated fraction of the devices' peak, None where unknown."""
    seconds = (self.summary.milliseconds or 0.0) / 1e3
    if not (seconds and self.operations):
      return None
    return self.operations / self.chips / seconds / TARGETS[self.target].peak


def from_record(record: dict) -> Result:
  """Return the result of which `dataclasses.asdict` made the record.

  Raises:
    InputError: it is another record.
  """
  try:
    return Result(**{**record, "summary": Summary(**record["summary"])})
  except (TypeError, KeyError) as error:
    raise InputError(
        f"The baseline is no JSON of this program's --json ({error}).") from error


_COLUMNS = (
    ("batch", 6), ("GiB", 7), ("kernels", 9), ("iterations", 11), ("launches", 9),
    ("est. ms", 9), ("of peak", 8))


def header() -> str:
  """Return the table's first line."""
  return f"{'':24}" + "".join(f"{name:>{width}}" for name, width in _COLUMNS)


def lines(result: Result, before: Result | None = None) -> list[str]:
  """Return a result's lines: its figures, those before, and where the time goes.

  Args:
    result: the result of a program.
    before: the same program in the baseline.
  """
  unit = "kernels" if result.summary.milliseconds is None else "est. ms"
  title = (
      f"{result.config} {result.program}, {result.dtype}, {result.chips} x"
      f" {result.target}" + (f", {result.changes}" if result.changes else ""))
  text = [title, _figures("", result)]
  parts = result.summary.parts
  if before is not None:
    text.append(_figures("  before", before))
    text.append(_ratios(result, before))
    parts = {**dict.fromkeys(before.summary.parts, 0.0), **parts}
  whole = sum(result.summary.parts.values()) or 1
  for name, value in sorted(parts.items(), key=lambda item: -item[1]):
    line = f"    {name:22}{value:10.2f} {unit}{100 * value / whole:6.1f} %"
    if before is not None:
      line += f"   before {before.summary.parts.get(name, 0.0):10.2f}"
    text.append(line)
  return text


def _cells(result: Result) -> list[float | None]:
  """Return a result's figures, in the order of `_COLUMNS`."""
  summary = result.summary
  return [
      result.images, result.gib, summary.kernels, summary.iterations,
      summary.launches, summary.milliseconds, result.fraction_of_peak()]


def _figures(label: str, result: Result) -> str:
  """Return a line of figures, "-" where there is none."""
  formats = (",d", ".2f", ",d", ",d", ",d", ".2f", ".1%")
  cells = [
      "-" if value is None else format(value, how)
      for value, how in zip(_cells(result), formats, strict=True)]
  return f"{label:24}" + "".join(
      f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))


def _ratios(result: Result, before: Result) -> str:
  """Return a line of the figures' ratios, after to before."""
  cells = [
      f"{after / old:.2f}" if after and old else "-"
      for after, old in zip(_cells(result), _cells(before), strict=True)]
  return f"{'  ratio':24}" + "".join(
      f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
