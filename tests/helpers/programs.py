"""The programs of experiments/, and what processes of their own import in tests."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
# For `sys.path`: `helpers` and `command_line`.
PATHS = [str(ROOT / "tests"), str(EXPERIMENTS)]


def run_program(program, *arguments, cwd=None):
  """What a program of experiments/ returned and printed."""
  return subprocess.run(
      [sys.executable, str(EXPERIMENTS / program), *arguments], cwd=cwd,
      capture_output=True, text=True)
