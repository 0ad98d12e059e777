"""Start a program anew with settings of glibc's malloc that make CPU steps faster.

XLA allocates the temporary memory of a program each time it runs. By default glibc
gives it back to Linux after each step and maps fresh pages for the next one. That takes
up to half of a training step on a CPU. The settings below keep the memory, in huge
pages. glibc reads them only when a process starts.

This file imports nothing but the standard library and `startup`, so that JAX has not
been imported when the program starts anew.
"""

import importlib.metadata
import importlib.util
import os
import sys
import threading

import startup

SETTINGS = (
    "glibc.malloc.hugetlb=1",  # ask for huge pages
    "glibc.malloc.mmap_max=0",  # take large blocks from the heap
    "glibc.malloc.trim_threshold=64000000000",  # never give the heap's end back
)
_NEEDS = (2, 35)  # the first glibc that knows all of them


def restart() -> None:
  """Start this program anew with `SETTINGS` in GLIBC_TUNABLES, if that helps.

  First it does what every program begins with; see `startup.begin`.

  The process, its arguments, its standard streams and the rest of its environment
  stay the same. Call it first, before JAX is imported. It returns at once if

  - the settings are set already, as they are after the restart;
  - the user has chosen settings of malloc, or another malloc;
  - the system is not Linux with glibc 2.35 or newer;
  - JAX would use an accelerator;
  - this is no program of its own, but a notebook, a debugger or a test.
  """
  startup.begin()
  if _chosen(os.environ) or not _glibc() or _accelerator() or not _program():
    return
  tunables = [os.environ.get("GLIBC_TUNABLES"), *SETTINGS]
  os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, tunables))
  sys.stdout.flush()
  sys.stderr.flush()
  os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ)


def _chosen(environment) -> bool:
  """Return whether somebody has set up the memory of this process already."""
  return (
      "glibc.malloc." in environment.get("GLIBC_TUNABLES", "")
      or "malloc" in environment.get("LD_PRELOAD", "")
      or any(name.startswith("MALLOC_") for name in environment))


def _glibc() -> bool:
  """Return whether the C library is a glibc that knows the settings."""
  if not sys.platform.startswith("linux"):
    return False
  try:
    name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= _NEEDS
  except (ValueError, AttributeError, OSError):  # musl, for example
    return False


def _accelerator() -> bool:
  """Return whether JAX may use another device than the CPU."""
  if platforms := os.environ.get("JAX_PLATFORMS"):
    return platforms != "cpu"
  return (
      any(importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins"))
      or bool(importlib.metadata.entry_points(group="jax_plugins")))


def _program() -> bool:
  """Return whether Python was started to run this program and nothing else runs yet."""
  path = getattr(sys.modules["__main__"], "__file__", None)
  return (
      path is not None
      and os.path.abspath(path) in map(os.path.abspath, sys.orig_argv[1:])
      and threading.active_count() == 1 and "jax" not in sys.modules)
