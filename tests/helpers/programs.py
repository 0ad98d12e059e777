"""Programs of experiments/ and other code, each run in its own process.

Most of the time of a short program goes into importing JAX, Orbax and Grain. So
processes are forked from multiprocessing's fork server. The server has imported these
packages and has computed nothing.
"""

import contextlib
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
# The paths of `helpers` and `command_line`, for `sys.path`.
PATHS = [str(ROOT / "tests"), str(EXPERIMENTS)]

_MOST_SECONDS = 300
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    ["pixelrnn_jax.training", "pixelrnn_jax.visualization.figures"])


def run_program(program, *arguments, cwd=None, encoding="utf-8"):
  """Run a program of experiments/ and return a `subprocess.CompletedProcess`.

  The program has the environment of this process. Settings of JAX that are made after
  the first program has started have no effect. Use `subprocess` for them.
  """
  path = str(EXPERIMENTS / program)
  return _run(_run_file, (path,), [path, *arguments], cwd, encoding)


def run_code(code, *arguments):
  """Run Python code like a program, with the arguments in `sys.argv[1:]`."""
  return _run(exec, (code, {"__name__": "__main__"}), ["-c", *arguments])


def _run(function: Callable, given: tuple, argv, cwd=None, encoding="utf-8"):
  with tempfile.TemporaryDirectory() as folder:
    paths = [os.path.join(folder, name) for name in ("stdout", "stderr")]
    process = _FORKED.Process(
        target=_become,
        args=(function, given, argv, cwd or os.getcwd(), dict(os.environ), paths,
              encoding))
    process.start()
    process.join(_MOST_SECONDS)
    if process.exitcode is None:
      process.kill()
      process.join()
      raise subprocess.TimeoutExpired(argv, _MOST_SECONDS)
    stdout, stderr = (pathlib.Path(path).read_text() for path in paths)
  return subprocess.CompletedProcess(argv, process.exitcode, stdout, stderr)


def _become(function, given, argv, cwd, environment, paths, encoding):
  """Turn a forked process into the process of the program."""
  for number, path in enumerate(paths, start=1):
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, number)
    os.close(file)
  os.chdir(cwd)
  os.environ.clear()
  os.environ.update(environment)
  sys.argv = argv
  for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(encoding=encoding)
  try:
    function(*given)
  finally:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError):
        stream.flush()


def _run_file(path):
  sys.path.insert(0, os.path.dirname(path))
  runpy.run_path(path, run_name="__main__")
