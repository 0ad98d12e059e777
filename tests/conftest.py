"""Tests run on two virtual CPU devices, unless JAX_PLATFORMS says otherwise.

What one test or its subprocess has compiled, the next one reads from a cache.
"""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  cache = tempfile.mkdtemp(prefix="pixelrnn_jax_tests_")
  atexit.register(shutil.rmtree, cache, ignore_errors=True)
  os.environ.update(
      JAX_COMPILATION_CACHE_DIR=cache,
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
      JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="0",
  )

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
