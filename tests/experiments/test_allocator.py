"""A program restarts itself once with settings of malloc, where they help."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

import allocator

EXPERIMENTS = pathlib.Path(allocator.__file__).parent
PROGRAM = f"""
import os, sys
starts = os.environ.get("STARTS", "") + "x"
os.environ["STARTS"] = starts
if __name__ == "__main__":
  sys.path.insert(0, {str(EXPERIMENTS)!r})
  import allocator
  allocator.restart()
print(len(starts), os.getpid(), "jax" in sys.modules, sys.argv[1:], sys.stdin.read())
print(os.environ.get("GLIBC_TUNABLES"))
sys.stdout.flush()
exec(os.environ.get("THEN", ""))
sys.exit(7)
"""
SETTINGS = ":".join(allocator.SETTINGS)
GLIBC = allocator._glibc()


@pytest.fixture
def start(tmp_path):
  """Return a function that starts the program and returns its process."""
  path = tmp_path / "program.py"
  path.write_text(PROGRAM)

  def start(*arguments, python=(), **environment):
    clean = {
        name: value for name, value in os.environ.items()
        if name not in ("GLIBC_TUNABLES", "JAX_PLATFORMS", "LD_PRELOAD")
        and not name.startswith("MALLOC_")}
    return subprocess.Popen(
        [sys.executable, *python, path, *arguments], cwd=tmp_path,
        env=clean | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)

  return start


def finish(process):
  out, error = process.communicate("input", timeout=60)
  assert not error
  return out.splitlines(), process.returncode


@pytest.mark.skipif(not GLIBC, reason="needs Linux with glibc 2.35 or newer")
@pytest.mark.parametrize("environment, tunables", [
    ({"JAX_PLATFORMS": "cpu"}, SETTINGS),
    ({"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.rtld.nns=4"},
     f"glibc.rtld.nns=4:{SETTINGS}"),
])
def test_a_program_starts_anew_once(start, environment, tunables):
  """A restart keeps the process, the arguments, the input and the exit code.

  It happens once, and before JAX is imported.
  """
  process = start("a b", "--x=*", **environment)
  (first, second), code = finish(process)
  assert first == f"2 {process.pid} False ['a b', '--x=*'] input"
  assert (second, code) == (tunables, 7)


@pytest.mark.parametrize("environment", [
    {"JAX_PLATFORMS": "cuda,cpu"},
    {"JAX_PLATFORMS": "tpu"},
    {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"},
    {"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "1"},
    {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": SETTINGS},
])
def test_what_the_user_has_set_stays(start, environment):
  (first, second), code = finish(start(**environment))
  assert first.startswith("1 ")
  assert (second, code) == (str(environment.get("GLIBC_TUNABLES")), 7)


def test_an_import_does_not_start_anew(start):
  """Importing a program, as tests do, does not restart the process."""
  process = start(JAX_PLATFORMS="cpu", python=("-c", "import program"))
  (first, _), _ = finish(process)
  assert first.startswith("1 ")


@pytest.mark.skipif(not GLIBC, reason="needs Linux with glibc 2.35 or newer")
def test_a_signal_reaches_the_program_that_has_started_anew(start):
  process = start(
      JAX_PLATFORMS="cpu", THEN="import time; time.sleep(60)")
  process.stdin.close()
  assert process.stdout.readline().startswith("2 ")
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=60) == -signal.SIGTERM
  process.stdout.close()
  process.stderr.close()


def test_a_program_with_threads_or_with_jax_is_left_alone(monkeypatch):
  """A process with several threads, or with JAX imported, does not restart.

  A restart would stop the threads in the middle of their work. It would also make JAX
  compile everything again.
  """
  monkeypatch.setattr(sys, "orig_argv", [sys.executable, __file__])
  monkeypatch.setitem(sys.modules, "__main__", sys.modules[__name__])
  monkeypatch.delitem(sys.modules, "jax", raising=False)
  threads = threading.active_count()
  monkeypatch.setattr(threading, "active_count", lambda: 1)
  assert allocator._program()
  monkeypatch.setattr(threading, "active_count", lambda: threads + 1)
  assert not allocator._program()
  monkeypatch.setattr(threading, "active_count", lambda: 1)
  monkeypatch.setitem(sys.modules, "jax", sys)
  assert not allocator._program()


def test_a_plugin_is_an_accelerator(monkeypatch):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  monkeypatch.setattr(allocator.importlib.util, "find_spec", lambda name: None)
  monkeypatch.setattr(allocator.importlib.metadata, "entry_points", lambda group: ())
  assert not allocator._accelerator()
  for name in ("libtpu", "jax_plugins"):
    monkeypatch.setattr(
        allocator.importlib.util, "find_spec", lambda x, name=name: x == name)
    assert allocator._accelerator()


@pytest.mark.parametrize("name", [
    "train", "evaluate", "ablate", "benchmark_scan", "benchmark_sampling"])
def test_programs_that_train_and_measure_start_anew(name):
  lines = (EXPERIMENTS / f"{name}.py").read_text().splitlines()
  restart = lines.index("  allocator.restart()  # before JAX is imported")
  imports = [i for i, line in enumerate(lines) if line.startswith(("import", "from"))]
  assert restart < min(imports)
