"""All devices: the one place that calls `jax.pmap`.

The state has no device axis: it goes in and comes out replicated
(`in_axes=None`, `out_axes=None`), an ordinary tree. Batches are split, [B, ...]
to [D, B / D, ...] with D the devices of this process. The same code runs on one
CPU, several accelerators and several processes.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax
import jaxlib
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pixelrnn_jax.configs.schema import Config, TrainConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.training import step

# Where h is larger, one product keeps all cores busy, and the parameters of a device
# are too large to hold them once for each core.
_CORES_PAY = 128


def use_cores(*configs: Config) -> None:
  """Makes the cores of a CPU devices of JAX, so that each takes its own images.

  XLA takes products as small as MNIST's to one core. It has no effect on a GPU or TPU,
  in one of several processes, where JAX_NUM_CPU_DEVICES or XLA_FLAGS say how many
  devices there are, for models of h > 128, or after JAX's first computation.

  Args:
    configs: of what will be run; as many cores are used as divide their batches of
      training.

  Raises:
    InputError: a config that cannot work.
  """
  for config in configs:
    config.validate()
  chosen = (
      jax.config.jax_num_cpu_devices >= 0
      or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""))
  if chosen or jax.distributed.is_initialized():
    return
  with contextlib.suppress(RuntimeError):  # JAX has its devices already
    jax.config.update("jax_num_cpu_devices", _count(_cores(), configs))


def _cores() -> int:
  """The cores that this process may run on, each hyperthread being one."""
  if hasattr(os, "sched_getaffinity"):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _count(cores: int, configs: Sequence[Config]) -> int:
  """How many of the cores divide each config's batch; 1 for large models."""
  if any(config.model.hidden > _CORES_PAY for config in configs):
    return 1

  def divides(devices):
    return all(
        config.train.batch_size % (devices * config.train.accumulate) == 0
        for config in configs)

  return next((n for n in range(cores, 1, -1) if divides(n)), 1)


def settings() -> dict[str, str]:
  """What the user can set in JAX and its libraries that changes a run's rounding."""
  flags = [  # but for the number of devices, which is known otherwise
      flag for flag in os.environ.get("XLA_FLAGS", "").split()
      if not flag.startswith("--xla_force_host_platform_device_count")]
  return {
      "jaxlib": jaxlib.version.__version__,
      "jax_enable_x64": str(jax.config.jax_enable_x64),
      "jax_default_matmul_precision": str(jax.config.jax_default_matmul_precision),
      "jax_default_prng_impl": str(jax.config.jax_default_prng_impl),
      "jax_threefry_partitionable": str(jax.config.jax_threefry_partitionable),
      "XLA_FLAGS": " ".join(sorted(flags)),
      "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", ""),
  }


def check_batch_size(config: TrainConfig, devices: int | None = None) -> None:
  """Raises InputError where a batch cannot be split over all devices, or so many."""
  devices, processes = devices or jax.device_count(), jax.process_count()
  if config.batch_size % devices:
    lower = config.batch_size // devices * devices
    choices = f"{lower} or {lower + devices}" if lower else str(devices)
    raise InputError(
        f"train.batch_size={config.batch_size} cannot be split evenly over"
        f" {devices} devices. Use a multiple of {devices}, for example {choices}."
    )
  share = config.batch_size // devices
  if share % config.accumulate:
    raise InputError(
        f"train.accumulate={config.accumulate} does not divide a device's share of"
        f" the batch, {share} of {config.batch_size} images. Use a divisor of {share}."
    )
  if config.eval_batch_size % processes:
    raise InputError(
        f"train.eval_batch_size={config.eval_batch_size} cannot be split evenly"
        f" over {processes} processes. Use a multiple of {processes}."
    )


def make_train_step(
    model: nn.Module, optimizer: optax.GradientTransformation, accumulate: int = 1,
    scale: int = -1, devices: Sequence[jax.Device] | None = None,
) -> Callable:
  """`step.train_step` of a scale over all devices, or over those given.

  Returns:
    A function (state, images) -> (state, metrics) with images of `shard`. It
    consumes the state that it is given: use the one that it returns.
  """
  return jax.pmap(
      functools.partial(step.train_step, model, optimizer, accumulate, scale),
      axis_name=step.AXIS, in_axes=(None, 0), out_axes=(None, None),
      donate_argnums=0, devices=devices,
  )


def make_eval_step(model: nn.Module) -> Callable:
  """`step.eval_step` over all devices.

  Returns:
    A function (params, images, mask) -> (nats, mask), with images and mask of
    `shard`; the results cover the batch of all processes.
  """
  return jax.pmap(
      functools.partial(step.eval_step, model),
      axis_name=step.AXIS, in_axes=(None, 0, 0), out_axes=(None, None),
  )


@contextlib.contextmanager
def together() -> Iterator[None]:
  """A context that all processes leave with an InputError, or none.

  Otherwise the others would wait for the one that has found something wrong.
  """
  problem = None
  try:
    yield
  except InputError as error:
    problem = error
  if jax.process_count() > 1:
    found = multihost_utils.process_allgather(np.array(problem is not None))
    if problem is None and found.any():
      raise InputError(
          f"Process {int(np.argmax(found))} of {jax.process_count()} could not go on;"
          " it says why."
      )
  if problem is not None:
    raise problem


def replicate(tree, devices: Sequence[jax.Device] | None = None):
  """The tree on all devices, or those given, laid out as the steps return it.

  Without this the second training step would be compiled anew. It goes through
  the host, as devices of other processes cannot be copied to directly.
  """
  mesh = Mesh(np.array(devices or jax.devices()), (step.AXIS,))
  return jax.device_put(
      jax.device_get(tree), NamedSharding(mesh, PartitionSpec()))


def shard(batch: np.ndarray) -> np.ndarray:
  """[B, ...] to [D, B / D, ...], D being this process's devices."""
  return batch.reshape(jax.local_device_count(), -1, *batch.shape[1:])


def pad(batch: np.ndarray) -> np.ndarray:
  """Zeros appended to [B, ...], so that the devices divide B."""
  missing = -len(batch) % jax.local_device_count()
  return np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1))


def wait(results: list) -> None:
  """Bounds the steps in flight, given the results of the steps so far.

  Virtual CPU devices share threads, and a collective whose steps queue up can
  deadlock: with several of them every step is waited for. Otherwise one step
  runs while the next is being prepared.
  """
  several_cpus = jax.default_backend() == "cpu" and jax.local_device_count() > 1
  jax.block_until_ready(results[-1:] if several_cpus else results[-2:-1])
