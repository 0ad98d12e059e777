"""A run killed at random moments ends with the bytes of an undisturbed one.

    pytest tests/training/test_random_kills.py                  # 2 kills
    pytest -m slow -s tests/training/test_random_kills.py       # 20 kills

SIGKILL and SIGTERM by turns, each some random time after some random step, or
while the program is starting; then the same command again. Grain reads in a worker
process.
"""

import hashlib
import random
import signal
import subprocess
import sys
import time

import jax
import pytest

from helpers.programs import PATHS
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.restore import load_run

CHILD = """
import sys
sys.path[:0] = {paths}
if __name__ == "__main__":
  from helpers.tiny_run import make_tiny_config
  import command_line
  from pixelrnn_jax.training import train

  def main():
    config = make_tiny_config()
    config.data.workers = 1
    config.train.steps = {steps}
    config.train.log_every = 1
    config.train.eval_every = 20
    config.train.checkpoint_every = 7
    train(config, {workdir!r})

  command_line.run(main)
"""


def start(folder, name, steps):
  path = folder / f"{name}.py"
  path.write_text(CHILD.format(
      paths=PATHS, workdir=str(folder / name), steps=steps))
  return subprocess.Popen(
      [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      text=True)


def lines(folder, name):
  path = folder / name / "metrics.jsonl"
  return path.read_text().count("\n") if path.exists() else 0


def disturb(folder, name, steps, number, rng):
  """Kills a run at `number` moments; returns how many signals met a training."""
  met = 0
  for kill in range(number):
    process = start(folder, name, steps)
    before = lines(folder, name)
    if rng.random() < 0.2:
      time.sleep(rng.uniform(0, 5))  # in the imports, the data, compilation
    else:
      wanted = before + rng.randint(1, max(2, steps // number))
      deadline = time.monotonic() + 120
      while lines(folder, name) < wanted and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
      time.sleep(rng.uniform(0, 0.1))
    if process.poll() is None:
      process.send_signal((signal.SIGKILL, signal.SIGTERM)[kill % 2])
      sent = time.monotonic()
      _, stderr = process.communicate(timeout=60)
      assert time.monotonic() - sent < 20
      # Before the training itself, SIGTERM simply ends the program.
      assert process.returncode in (-9, -15, 143, 0), stderr
      assert "Traceback" not in stderr, stderr
      met += process.returncode in (-9, 143)
      print(f"{kill + 1}: exit {process.returncode}, {lines(folder, name)} lines")
    else:
      process.communicate()
  return met


def digest(workdir):
  """SHA-256 of the last checkpoint's parameters, and its step."""
  sums = hashlib.sha256()
  for leaf in jax.tree.leaves(jax.device_get(load_run(str(workdir)).params)):
    sums.update(leaf.tobytes())
  with Checkpoints(str(workdir)) as checkpoints:
    return checkpoints.steps()[-1], sums.hexdigest()


@pytest.mark.parametrize("steps, number", [
    (40, 2), pytest.param(400, 20, marks=pytest.mark.slow)])
def test_random_kills(tmp_path, steps, number):
  rng = random.Random(20160125)
  undisturbed = start(tmp_path, "undisturbed", steps)
  met = disturb(tmp_path, "killed", steps, number, rng)
  for process in (undisturbed, start(tmp_path, "killed", steps)):
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
  assert met >= number // 2
  expected = digest(tmp_path / "undisturbed")
  assert expected[0] == steps
  assert digest(tmp_path / "killed") == expected
