"""All devices: the one place of training that calls `jax.pmap`.

The state is an ordinary tree without a device axis. It goes in and comes out replicated
(`in_axes=None`, `out_axes=None`). Batches are split, [B, ...] to [D, B / D, ...] with D
the number of this process's devices. The same code runs on one CPU, on several
accelerators and in several processes.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jaxlib
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pixelrnn_jax.configs.schema import Config, TrainConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models import Model
from pixelrnn_jax.training import step

# With a larger h, one product keeps all cores busy, and the parameters are too large to
# hold them once for each core.
_CORES_PAY = 128
_CONFIG: Any = jax.config  # JAX's stubs do not know its fields


def use_cores(*configs: Config) -> None:
  """Make each core of a CPU a device of JAX, so that each takes its own images.

  XLA runs products as small as MNIST's on one core. The function has no effect on a GPU
  or TPU, in one of several processes, if JAX_NUM_CPU_DEVICES or XLA_FLAGS set the
  number of devices, for models of h > 128, or after JAX's first computation.

  Args:
    *configs: the configurations of the runs that follow. The number of cores divides
      the training batch of each.

  Raises:
    InputError: a config cannot work.
  """
  for config in configs:
    config.validate()
  chosen = (
      _CONFIG.jax_num_cpu_devices >= 0
      or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""))
  if chosen or jax.distributed.is_initialized():
    return
  with contextlib.suppress(RuntimeError):  # JAX has its devices already
    jax.config.update("jax_num_cpu_devices", _count(_cores(), configs))


def _cores() -> int:
  """Return the number of cores that this process may use; a hyperthread is one."""
  if hasattr(os, "sched_getaffinity"):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _count(cores: int, configs: Sequence[Config]) -> int:
  """Return the most cores that divide each config's batch; 1 for large models."""
  if any(config.model.hidden > _CORES_PAY for config in configs):
    return 1

  def divides(devices):
    return all(
        config.train.batch_size % (devices * config.train.accumulate) == 0
        for config in configs)

  return next((n for n in range(cores, 1, -1) if divides(n)), 1)


def settings() -> dict[str, str]:
  """Return the settings of JAX and its libraries that change a run's rounding."""
  flags = [  # the number of devices is recorded elsewhere
      flag for flag in os.environ.get("XLA_FLAGS", "").split()
      if not flag.startswith("--xla_force_host_platform_device_count")]
  return {
      "jaxlib": jaxlib.version.__version__,
      "jax_enable_x64": str(_CONFIG.jax_enable_x64),
      "jax_default_matmul_precision": str(_CONFIG.jax_default_matmul_precision),
      "jax_default_prng_impl": str(_CONFIG.jax_default_prng_impl),
      "jax_threefry_partitionable": str(_CONFIG.jax_threefry_partitionable),
      "XLA_FLAGS": " ".join(sorted(flags)),
      "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", ""),
  }


def check_batch_size(config: TrainConfig, devices: int | None = None) -> None:
  """Raise InputError if a batch cannot be split over the devices.

  Args:
    config: with the batch sizes.
    devices: number of devices. The default is all devices of all processes.
  """
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
    model: Model, optimizer: optax.GradientTransformation, accumulate: int = 1,
    scale: int = -1, devices: Sequence[jax.Device] | None = None,
) -> Callable:
  """Return `step.train_step` over devices.

  Args:
    model: see `step.train_step`.
    optimizer: see `step.train_step`.
    accumulate: see `step.train_step`.
    scale: see `step.train_step`.
    devices: the devices. The default is all devices.

  The step itself does not know what maps it: `jax.jit` of `jax.shard_map` over a mesh
  with this axis, in_specs (P(), P(AXIS)) and out_specs (P(), P()), gives the same
  numbers of images [B, ...] (`tests/training/test_parallel.py`).

  Returns:
    A function (state, images) -> (state, metrics), with images from `shard`. It
    consumes the state that it is given. Use the one that it returns.
  """
  return jax.pmap(
      functools.partial(step.train_step, model, optimizer, accumulate, scale),
      axis_name=step.AXIS, in_axes=(None, 0), out_axes=(None, None),
      donate_argnums=0, devices=devices,
  )


def make_eval_step(model: Model) -> Callable:
  """Return `step.eval_step` over all devices.

  Args:
    model: from `build_model`.

  Returns:
    A function (params, images, mask) -> (nats, mask), with images and mask from
    `shard`. The results cover the batch of all processes.
  """
  return jax.pmap(
      functools.partial(step.eval_step, model),
      axis_name=step.AXIS, in_axes=(None, 0, 0), out_axes=(None, None),
  )


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Raise an InputError of one process on all of them.

  Otherwise the others would hang at the next collective. All processes must enter the
  context together.
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


def replicate(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
  """Return the tree on devices, laid out as the steps return it.

  With another layout the second training step would be compiled anew. The tree goes
  through the host, because devices of other processes cannot be copied to directly.

  Args:
    tree: a tree of arrays.
    devices: the devices. The default is all devices.
  """
  mesh = Mesh(np.array(devices or jax.devices()), (step.AXIS,))
  return jax.device_put(
      jax.device_get(tree), NamedSharding(mesh, PartitionSpec()))


def shard(batch: np.ndarray) -> np.ndarray:
  """Reshape [B, ...] to [D, B / D, ...], D being the number of local devices."""
  return batch.reshape(jax.local_device_count(), -1, *batch.shape[1:])


def pad(batch: np.ndarray) -> np.ndarray:
  """Append zeros to [B, ...], so that the number of local devices divides B."""
  missing = -len(batch) % jax.local_device_count()
  return np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1))


def wait(results: list) -> None:
  """Bound the number of steps in flight.

  One step runs while the next is being prepared. But virtual CPU devices share threads,
  and collectives of queued steps can deadlock. So with several CPU devices every step
  is waited for.

  Args:
    results: the results of the steps so far.
  """
  several_cpus = jax.default_backend() == "cpu" and jax.local_device_count() > 1
  jax.block_until_ready(results[-1:] if several_cpus else results[-2:-1])
