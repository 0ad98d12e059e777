"""Compiles training steps and the sampler for TPU v5e chips, with none at hand.

    pip install 'jax[tpu]'
    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python experiments/compile_for_tpu.py

Prints, for each config, what the compiler plans of a chip's memory (16 GiB on a
v5e), and exits with 1 where something does not compile or does not fit. Warnings
about worker hostnames are harmless.
"""

import time

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental import topologies

import command_line
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference.sampling import make_completer
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs.optimizer import make_optimizer
from pixelrnn_jax.runs.state import init_state
from pixelrnn_jax.studies import training_speed
from pixelrnn_jax.training import parallel

_CONFIGS = flags.DEFINE_list(
    "configs", ["row_lstm_imagenet32", "row_lstm_imagenet64",
                "diagonal_bilstm_cifar10", "pixel_cnn_cifar10"], "What to compile.")
_CHIPS = flags.DEFINE_list("chips", ["1", "4"], "Of a 2x2 slice: 1, 2 or 4.")
_DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Of the products.")
_REMATERIALIZE = flags.DEFINE_bool(
    "rematerialize", False, "With model.rematerialize.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Over all chips; the config's by default.")
_ACCUMULATE = flags.DEFINE_integer(
    "accumulate", None, "Parts of a chip's share; the config's by default.")
_SAMPLES = flags.DEFINE_integer(
    "samples", 16, "Images that a chip draws at a time; 0 leaves the sampler out.")

_GIB = 2**30
_V5E_BYTES = 16 * _GIB


def main() -> None:
  configs = [_config(name) for name in _CONFIGS.value]
  numbers = [int(n) for n in _CHIPS.value if n in ("1", "2", "4")]
  if len(numbers) != len(_CHIPS.value):
    raise InputError(f"--chips={','.join(_CHIPS.value)}: use 1, 2 or 4.")
  chips = _all_chips()
  print(f"{'':26}{'':8}{'dtype':10}{'chips':>6}{'batch':>7}{'compile s':>11}"
        f"{'GiB a chip':>12}")
  problems = []
  for config in configs:
    for dtype in _DTYPES.value:
      for number in numbers:
        config.model.dtype = dtype
        config.validate()
        problems += _compile(config, chips[:number])
  if problems:
    raise InputError("; ".join(problems))


def _config(name: str) -> Config:
  """A config as a TPU runs it, whatever this machine is."""
  config = load_config(name)
  config.model.rematerialize = _REMATERIALIZE.value
  config.model.images_per_strip = config.model.images_per_strip or 1
  if _BATCH_SIZE.value is not None:
    config.train.batch_size = _BATCH_SIZE.value
  if _ACCUMULATE.value is not None:
    config.train.accumulate = _ACCUMULATE.value
  return config


def _all_chips() -> list[jax.Device]:
  """The chips of a described slice."""
  try:
    return list(topologies.get_topology_desc(
        topology_name="v5e:2x2", platform="tpu").devices)
  except Exception as error:
    raise InputError(
        "The TPU compiler is not there: pip install 'jax[tpu]', and set"
        f" JAX_PLATFORMS=cpu and TPU_SKIP_MDS_QUERY=1. ({error})") from error


def _compile(config: Config, chips: list[jax.Device]) -> list[str]:
  """Prints a config's lines; returns what went wrong."""
  name, dtype, batch = config.name, config.model.dtype, config.train.batch_size
  parallel.check_batch_size(config.train, len(chips))
  model = build_model(config.model)
  optimizer = make_optimizer(config.optimizer, config.train.steps)
  shape, scales = config.model.image_shape, config.model.scale_shapes()
  state = jax.eval_shape(
      lambda key: init_state(model, optimizer, key, shape), jax.random.key(0))

  def of_chips(size, rest, dtype):
    return jax.ShapeDtypeStruct((len(chips), size, *rest), dtype)

  step = parallel.make_train_step(
      model, optimizer, config.train.accumulate, devices=chips)
  programs = {"step": (batch, step.lower, (
      state, of_chips(batch // len(chips), shape, jnp.uint8)))}
  if size := _SAMPLES.value:
    keys = jax.eval_shape(
        lambda key: jax.random.split(key, (len(chips), size)), jax.random.key(0))
    programs["sampler"] = (
        size * len(chips), make_completer(model, tuple(chips)).lower, (
            {"params": state.params}, keys,
            tuple(of_chips(size, scale, jnp.uint8) for scale in scales),
            tuple(of_chips(size, scale[:2], bool) for scale in scales),
            jax.ShapeDtypeStruct((), jnp.float32)))
  problems = []
  for what, (images, lower, arguments) in programs.items():
    line = f"{name:26}{what:8}{dtype:10}{len(chips):6}{images:7}"
    start = time.perf_counter()
    try:
      compiled = lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:  # does not fit, for one
      reason = str(error).strip().split("\n")[0][:200]
      print(f"{line}  {reason}", flush=True)
      problems.append(f"{name} {what}, {dtype}, {len(chips)} chips: not compiled")
      continue
    used = training_speed.memory(compiled)
    print(f"{line}{time.perf_counter() - start:11.1f}{used / _GIB:12.2f}", flush=True)
    if used > _V5E_BYTES:
      problems.append(f"{name} {what}, {dtype}, {len(chips)} chips: does not fit")
  return problems


if __name__ == "__main__":
  command_line.run(main)
