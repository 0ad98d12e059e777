r"""Compile a training step and the sampler for a TPU or GPU, with none at hand.

    pip install 'jax[tpu]'
    python experiments/compile_for_accelerator.py --configs=row_lstm_cifar10
    python experiments/compile_for_accelerator.py --configs=row_lstm_cifar10 \
        --set=model.kernel_gradient=in_scan --baseline=before.json --json=after.json

For a GPU give --target=h100, after pip install 'jax[cuda13]'. Programs are compiled
ahead of time and nothing runs, so every figure is the compiler's. Memory and the
numbers of kernels, loops and graph launches are facts of the program. `est. ms` (TPU
only) adds up the compiler's estimated cycles. It may be ten times too high, so trust
the order of two figures and not the milliseconds. A GPU's program is compiled without
autotuning.

To compare two commits, write --json on one and give it as --baseline on the other.
The program exits with 1 where something does not compile or does not fit. Warnings
about worker hostnames are harmless.
"""

if __name__ == "__main__":
  import os

  import startup

  startup.begin()
  os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before JAX is imported
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import ast
import dataclasses
import importlib.metadata
import json
import time

import jax
from absl import flags

import command_line
from pixelrnn_jax import files
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.fields import set_field
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.studies import compiled

_CONFIGS = flags.DEFINE_list(
    "configs", ["row_lstm_imagenet32", "row_lstm_imagenet64",
                "diagonal_bilstm_cifar10", "pixel_cnn_cifar10"],
    "The configs to compile.")
_TARGETS = flags.DEFINE_list(
    "target", ["tpu_v5e"],
    f"The devices to compile for: {', '.join(compiled.TARGETS)}.")
_CHIPS = flags.DEFINE_list("chips", ["1"], "Numbers of devices: 1, 2 or 4.")
_DTYPES = flags.DEFINE_list("dtypes", ["bfloat16"], "The dtypes of the products.")
_SET = flags.DEFINE_multi_string(
    "set", [], "part.field=VALUE for all configs; may be repeated.")
_SAMPLES = flags.DEFINE_integer(
    "samples", 16, "Images that a device draws at a time; 0 leaves the sampler out.")
_JSON = flags.DEFINE_string("json", None, "Also write the figures to this file.")
_BASELINE = flags.DEFINE_string(
    "baseline", None, "Show the figures of such a file beside those of this run.")


def main() -> None:
  chips = [int(n) for n in _CHIPS.value if n in ("1", "2", "4")]
  if len(chips) != len(_CHIPS.value):
    raise InputError(f"--chips={','.join(_CHIPS.value)}: use 1, 2 or 4.")
  configs = [name for name in _CONFIGS.value if _config(name, "float32")]
  before = {result.key(): result for result in _read(_BASELINE.value)}
  found, problems = [], []
  described = {
      target: compiled.described_devices(target, max(chips))
      for target in _TARGETS.value}
  print(compiled.header())
  for target, devices in described.items():
    for name in configs:
      for dtype in _DTYPES.value:
        for count in chips:
          _compile(_config(name, dtype), target, devices[:count], before, found,
                   problems)
  if _JSON.value:
    files.write_text(files.expand(_JSON.value), json.dumps(
        [dataclasses.asdict(result) for result in found], indent=2) + "\n")
  if problems:
    raise InputError("; ".join(problems))


def _config(name: str, dtype: str) -> Config:
  """Return the config of a name, with the flags' changes."""
  config = load_config(name)
  config.model.dtype = dtype
  for change in _SET.value:
    path, equals, text = change.partition("=")
    if not equals:
      raise InputError(f"--set={change}: use PART.FIELD=VALUE, as in model.unroll=4.")
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      value = text
    set_field(config, path, value)
  config.validate()
  return config


def _read(path: str | None) -> list[compiled.Result]:
  """Return the results in a file of --json."""
  if path is None:
    return []
  text = files.read_text(files.expand(path))
  try:
    records = json.loads(text or "")
  except ValueError as error:
    raise InputError(f"--baseline={path} cannot be read: {error}.") from error
  return [compiled.from_record(record) for record in records]


def _compile(
    config: Config, target: str, devices: list[jax.Device], before: dict,
    found: list[compiled.Result], problems: list[str],
) -> None:
  """Compile a config's programs, print their lines and append what was found."""
  compiled.as_on(config, target)
  for program in compiled.programs(config, devices, _SAMPLES.value):
    what = (f"{config.name} {program.name}, {config.model.dtype}, {len(devices)} x"
            f" {target}")
    start = time.perf_counter()
    try:
      summary, memory, _ = compiled.compile_program(program, target)
    except jax.errors.JaxRuntimeError as error:  # does not fit, for one
      print(f"{what}: {str(error).strip().splitlines()[0][:200]}", flush=True)
      problems.append(f"{what}: not compiled")
      continue
    result = compiled.Result(
        config.name, ",".join(_SET.value), target, program.name, config.model.dtype,
        len(devices), program.images, memory / 2**30,
        memory <= compiled.TARGETS[target].bytes, program.operations, summary,
        _versions())
    found.append(result)
    print("\n".join(compiled.lines(result, before.get(result.key()))))
    print(f"    compiled in {time.perf_counter() - start:.1f} s", flush=True)
    if not result.fits:
      problems.append(f"{what}: does not fit")


def _versions() -> str:
  """Return the versions that decide what is compiled."""
  names = []
  for package in ("jax", "libtpu", "jax-cuda13-plugin"):
    try:
      names.append(f"{package} {importlib.metadata.version(package)}")
    except importlib.metadata.PackageNotFoundError:
      continue
  return ", ".join(names)


if __name__ == "__main__":
  command_line.run(main)
