"""Tests run on two virtual CPU devices, unless JAX_PLATFORMS says otherwise.

What one test or its subprocess has compiled, the next one reads from a cache.
"""

import atexit
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test's time is compilation: half of it goes without LLVM's
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

# Shapes and dtypes in annotations are checked at every call, under jit while it traces.
# The public functions of inference/ check what users hand them with an InputError, and
# tests hand them wrong types.
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
  """Frees a module's compiled programs after it.

  Those of all modules together take gigabytes and most of the memory maps that Linux
  gives a process (65,530): then reading or writing the next one crashes.
  """
  yield
  jax.clear_caches()


@pytest.fixture
def x64():
  """Float64 for one test: exact zeros and tight tolerances."""
  with enable_x64(True):
    yield


@pytest.fixture
def tiny_config() -> Config:
  return make_tiny_config()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> pathlib.Path:
  """The work directory of a whole run on two devices; not to be changed."""
  assert jax.local_device_count() == 2
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  train(make_tiny_config(), str(workdir))
  return workdir


@pytest.fixture
def copy_run(finished_run, tmp_path) -> Callable[[], pathlib.Path]:
  """Makes a copy of the finished run that may be changed."""
  return lambda: pathlib.Path(shutil.copytree(finished_run, tmp_path / "copy"))
