"""Runs that are killed with SIGKILL at critical moments and started again."""

import json
import pathlib
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from helpers.programs import PATHS, run_code
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.restore import load_run

# This program runs the tiny config. It kills itself at a moment given as `what:when`.
CHILD = """
import os, pathlib, shutil, signal, sys
sys.path[:0] = {paths}
from helpers.tiny_run import make_tiny_config
from pixelrnn_jax import files
from pixelrnn_jax.training import loop, train

workdir, what, when = sys.argv[1], *sys.argv[2].split(":")
calls = 0

def hook(owner, name, applies=lambda *args: True, before=lambda *args: None):
  original = getattr(owner, name)
  def hooked(*args, **kwargs):
    global calls
    calls += bool(applies(*args))
    if calls == int(when):
      before(*args)
      os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
  setattr(owner, name, hooked)

def remove_one_file(path, *_):
  next(p for p in pathlib.Path(path).rglob("*") if p.is_file()).unlink()

if what == "step":  # between two checkpoints
  hook(loop.Window, "append")
elif what == "rename":  # in the middle of a save
  hook(os, "rename", lambda a, b: "orbax-checkpoint-tmp" in str(a))
elif what == "sums":  # the checkpoint is there, its sums are not
  hook(files, "write_text", lambda path, text: path.endswith("sums.json"))
elif what == "delete":  # in the middle of the removal of an old checkpoint
  hook(shutil, "rmtree", before=remove_one_file)
elif what == "samples":  # a grid is drawn and not yet written
  hook(loop, "save_grid")
elif what == "evaluate":  # in the final evaluation
  hook(loop, "report")
train(make_tiny_config(), workdir)
"""
# A save renames its three items, and then the checkpoint itself.
MOMENTS = [
    "rename:2", "step:5", "rename:8", "sums:1", "samples:1", "delete:1", "evaluate:1"]


def run(workdir, moment="never:0"):
  """Run the program on one device and return its exit code."""
  result = run_code(CHILD.format(paths=PATHS), str(workdir), moment)
  assert result.returncode in (0, -9), result.stderr
  return result.returncode


def killed_run(workdir):
  codes = [run(workdir, moment) for moment in MOMENTS]
  return codes, run(workdir)


def state_of(workdir):
  with Checkpoints(str(workdir)) as checkpoints:
    last = checkpoints.steps()[-1]
    ranking = checkpoints.ranking()[0]
  return last, ranking, jax.device_get(load_run(str(workdir)).params)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Return the work directories of an undisturbed run and of a killed one.

  The second run is killed at every moment. Both use one device.
  """
  folder = tmp_path_factory.mktemp("kill")
  with ThreadPoolExecutor() as pool:
    undisturbed = pool.submit(run, folder / "undisturbed")
    killed = pool.submit(killed_run, folder / "killed")
    assert undisturbed.result() == 0
    assert killed.result() == ([-9] * len(MOMENTS), 0)
  return folder / "undisturbed", folder / "killed"


def test_a_killed_run_ends_bit_for_bit_as_an_undisturbed_one(runs):
  undisturbed, killed = map(state_of, runs)
  assert undisturbed[:2] == killed[:2]
  jax.tree.map(np.testing.assert_array_equal, undisturbed[2], killed[2])


def test_so_do_its_files(runs):
  undisturbed, killed = (tree(workdir) for workdir in runs)
  assert undisturbed == killed
  assert "samples/step_00000004.png" in killed


def tree(workdir: pathlib.Path):
  """Return the files but for events and checkpoints.

  The metrics are without their speed.
  """
  files = {}
  for path in workdir.rglob("*"):
    name = str(path.relative_to(workdir))
    if path.is_file() and not name.startswith(("events.", "checkpoints/")):
      files[name] = path.read_bytes()
  lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
  for line in lines:
    line.pop("train/images_per_second", None)
  files["metrics.jsonl"] = lines
  return files


def test_two_devices_agree_with_one(runs, finished_run):
  one, two = (jax.device_get(load_run(str(d)).params) for d in (runs[0], finished_run))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), one, two)
