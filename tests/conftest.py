"""Set up all tests: two virtual CPU devices, and checked annotations.

The environment variable JAX_PLATFORMS selects other devices. Tests and their
subprocesses share a cache of compiled programs.
"""

import atexit
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compilation takes most of a test's time. It takes half as long without LLVM's
# optimisation. XLA_FLAGS= runs the tests on optimised programs.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  cache = tempfile.mkdtemp(prefix="pixelrnn_jax_tests_")
  atexit.register(shutil.rmtree, cache, ignore_errors=True)
  os.environ.update(
      JAX_COMPILATION_CACHE_DIR=cache,
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.2",
      JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="0",
  )

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

# jaxtyping checks the shapes and dtypes of annotations at every call, or while jit
# traces. The public functions of inference/ are left out. They raise an InputError for
# arguments of the wrong type, and tests pass such arguments.
jaxtyping.install_import_hook(
    ["pixelrnn_jax.ops", "pixelrnn_jax.models", "pixelrnn_jax.inference.naive_sampler",
     "pixelrnn_jax.inference.rans"],
    "beartype.beartype")

from helpers.precision import enable_x64  # noqa: E402
from helpers.tiny_run import make_tiny_config  # noqa: E402
from pixelrnn_jax.configs.schema import Config  # noqa: E402
from pixelrnn_jax.training import train  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(autouse=True, scope="module")
def free_programs():
  """Free the compiled programs of a module after its tests.

  The programs of all modules together take gigabytes of memory. They also take most of
  the 65,530 memory maps that Linux gives a process. Without free maps, reading or
  writing the next program crashes.
  """
  yield
  jax.clear_caches()


@pytest.fixture
def x64():
  """Enable float64 for one test, for exact zeros and tight tolerances."""
  with enable_x64(True):
    yield


@pytest.fixture
def tiny_config() -> Config:
  return make_tiny_config()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> pathlib.Path:
  """Return the work directory of a complete run on two devices.

  Tests must not change it. `copy_run` gives copies that they may change.
  """
  assert jax.local_device_count() == 2
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  train(make_tiny_config(), str(workdir))
  return workdir


@pytest.fixture
def copy_run(finished_run, tmp_path) -> Callable[[], pathlib.Path]:
  """Return a function that copies the finished run and returns the copy's path.

  Tests may change the copy.
  """
  return lambda: pathlib.Path(shutil.copytree(finished_run, tmp_path / "copy"))
