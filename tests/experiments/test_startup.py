"""Programs with closed streams or readers that stop early, and Ctrl-C.

Ctrl-C may come at any moment.
"""

import ast
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from helpers.programs import EXPERIMENTS

PROGRAMS = sorted(
    path for path in pathlib.Path(EXPERIMENTS).glob("*.py")
    if "command_line.run(" in path.read_text() and path.name != "command_line.py")
BEGIN = f"""
import gc, os, signal, sys, time
sys.path.insert(0, {str(EXPERIMENTS)!r})
import startup
startup.begin()
"""
# IMPORTS takes the place of the imports, which take seconds. MAIN takes the place of
# the rest of a program.
IMPORTS = "print('begun', flush=True); time.sleep(60)"
MAIN = """
startup.interruptible()
try:
  print('begun', flush=True)
  time.sleep(60)
except KeyboardInterrupt:
  print('leaving', flush=True)
  time.sleep(60)
"""
FINALIZER = """
class Late:
  def __del__(self):
    print('begun', flush=True)
    time.sleep(60)

startup.interruptible()
late = Late()
del late
print('went on', flush=True)
"""


def start(code, *, shell=None):
  command = [sys.executable, "-c", BEGIN + code]
  if shell is not None:
    command = ["bash", "-c", f'exec "$@" {shell}', "bash", *command]
  return subprocess.Popen(
      command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_program_begins_with_it(path):
  tree = ast.parse(path.read_text())
  calls = [
      node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call)
      and ast.unparse(node.func) in ("startup.begin", "allocator.restart")]
  imports = [
      node.lineno for node in tree.body
      if isinstance(node, ast.Import | ast.ImportFrom)]
  assert len(calls) == 1 and calls[0] < min(imports)


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_streams_are_devices_that_take_all(closed):
  """Closed standard streams are replaced by /dev/null.

  So a file that is opened later does not become a standard stream, and no message is
  written into it.
  """
  shell = " ".join(f"{n}{'<' if n == 0 else '>'}&-" for n in closed)
  process = start(
      "file = os.open(os.devnull, os.O_RDONLY)\n"
      "print('x', flush=True); print('y', file=sys.stderr, flush=True)\n"
      "sys.stdin.read()\n"
      "sys.exit(10 + file)", shell=shell + ("" if 0 in closed else " </dev/null"))
  process.communicate(timeout=60)
  assert process.returncode == 13


@pytest.mark.parametrize("code, lines, signals, code_left", [
    (IMPORTS, ["begun"], 1, -signal.SIGINT),
    (MAIN, ["begun", "leaving"], 2, -signal.SIGINT),
    (FINALIZER, ["begun"], 1, -signal.SIGINT),
])
def test_ctrl_c_never_shows_a_traceback_and_always_ends(
    code, lines, signals, code_left):
  process = start(code)
  for line in lines[:signals]:
    assert process.stdout.readline() == f"{line}\n"
    process.send_signal(signal.SIGINT)
  stdout, stderr = process.communicate(timeout=60)
  assert process.returncode == code_left
  assert stdout == "" and stderr in ("", "SIGINT: stopped.\n")


def test_an_ignored_ctrl_c_stays_ignored():
  """A program that ignores SIGINT, as in the background of a script, goes on."""
  process = subprocess.Popen(
      ["sh", "-c", "trap '' INT; exec \"$0\" -c \"$1\"", sys.executable,
       BEGIN + "startup.interruptible()\n"
       "print('begun', flush=True); time.sleep(1); print('went on')"],
      stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == "begun\n"
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=60) == ("went on\n", None)
  assert process.returncode == 0


PRINTS = """
import command_line

def main():
  for number in range(100_000):
    print(number)

command_line.run(main)
"""


def test_a_reader_may_stop_early():
  """A program whose reader stops early ends silently, with SIGPIPE's exit code.

  Other programs than Python's do the same.
  """
  done = subprocess.run(
      ["bash", "-c", '"$@" | head -1; echo ${PIPESTATUS[0]}', "bash", sys.executable,
       "-c", BEGIN + PRINTS], capture_output=True, text=True)
  assert done.stdout == f"0\n{128 + signal.SIGPIPE}\n" and done.stderr == ""


def test_an_error_that_nobody_reads_has_its_code():
  code = "import command_line\nfrom pixelrnn_jax import InputError\n" \
      "def main():\n  time.sleep(1)\n  raise InputError('x')\ncommand_line.run(main)"
  done = subprocess.run(
      ["bash", "-c", '"$@" 2>&1 | true; echo ${PIPESTATUS[0]}', "bash", sys.executable,
       "-c", BEGIN + code], capture_output=True, text=True)
  assert done.stdout == "1\n" and done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_output_to_a_full_disk_is_one_line():
  with open("/dev/full", "w") as full:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + "import command_line\n"
         "command_line.run(lambda: print('x'))"], stdout=full, stderr=subprocess.PIPE,
        text=True)
  assert done.returncode == 1
  assert done.stderr == "error: No space left on device. Make room.\n"
