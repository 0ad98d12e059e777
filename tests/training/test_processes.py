"""Two processes under jax.distributed, with one CPU device each."""

import json
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from helpers.programs import PATHS
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs.restore import load_run
from pixelrnn_jax.training import train

# This program is like experiments/train.py, with the tiny config. Process `sys.argv[3]`
# kills itself before the call `sys.argv[2]`. `sys.argv[4]` says which of these calls it
# is.
CHILD = """
import os, signal, sys, time
sys.path[:0] = {paths}
import jax
from helpers.tiny_run import make_tiny_config
import command_line
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.training import loop, train

workdir, moment, process, count = *sys.argv[1:3], *map(int, sys.argv[3:5])
del sys.argv[1:5]
owner, name = {{
  "next step": (loop.Window, "open"), "save": (Checkpoints, "save"),
  "never": (loop._Run, "say")}}[moment]
original, calls = getattr(owner, name), []

def hooked(*args, **kwargs):
  calls.append(1)
  if len(calls) == count and jax.process_index() == process:
    print("killed at", time.time(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
  return original(*args, **kwargs)

setattr(owner, name, hooked)

def main():
  config = make_tiny_config()
  train(config, workdir)

command_line.run(main, distributed=True)
"""


def run_processes(*workdirs, kill=("never", 0, 0)):
  """Run two processes and return their exit codes and outputs.

  They have one work directory, or one each.
  """
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  child = CHILD.format(paths=PATHS)
  processes = [
      subprocess.Popen(
          [sys.executable, "-c", child, str(workdirs[-i]), *map(str, kill),
           f"--coordinator={address}", "--process_count=2", f"--process_id={i}"],
          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
      for i in range(2)
  ]
  outputs = [process.communicate(timeout=300) for process in processes]
  return [process.returncode for process in processes], outputs


def validations(workdir):
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [
      (line["step"], line["validation/nats_per_image"]) for line in lines
      if "validation/nats_per_image" in line]


def test_two_processes_agree_with_one_also_after_one_was_killed(
    finished_run, tiny_config, tmp_path):
  workdir = tmp_path / "run"
  start = time.monotonic()
  codes, outputs = run_processes(workdir, kill=("next step", 1, 5))
  assert codes == [1, -9], outputs
  assert "process 0 of 2 lost the others" in outputs[0][1]
  assert "Traceback" not in outputs[0][1]
  assert time.monotonic() - start < 100  # JAX alone takes 300 s to end
  damaged = workdir / "checkpoints" / "6" / "params" / "manifest.ocdbt"
  damaged.write_bytes(damaged.read_bytes()[:20])
  codes, outputs = run_processes(workdir)
  assert codes == [0, 0], outputs
  assert "checkpoint of step 6 is damaged" in outputs[0][1]
  assert "Resuming" in outputs[0][0] and "at step 4" in outputs[0][0]
  assert (workdir / "checkpoints" / "damaged_6").is_dir()
  assert "step" not in outputs[1][0]  # only process 0 prints

  one, two = (jax.device_get(load_run(str(d)).params) for d in (finished_run, workdir))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), one, two)
  records = [
      json.loads((d / "evaluation.json").read_text()) for d in (finished_run, workdir)]
  assert records[0]["images"] == records[1]["images"] == 24
  np.testing.assert_allclose(
      records[0]["nats_per_image"], records[1]["nats_per_image"], rtol=1e-6)
  np.testing.assert_allclose(
      validations(finished_run), validations(workdir), rtol=1e-6)
  assert len(list(workdir.glob("samples/*.png"))) == 3

  tiny_config.train.steps = 14
  with pytest.raises(InputError, match="2 processes, this one has 1"):
    train(tiny_config, str(workdir))


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_killed_while_the_others_wait(tmp_path, process):
  """A process whose partner is killed during a save ends with an error.

  Processes wait for each other in a save, and JAX does not notice that one is gone. JAX
  alone would abort. That takes 60 to 100 s unless process 0 is gone.
  """
  codes, outputs = run_processes(tmp_path / "run", kill=("save", process, 2))
  end = time.time()
  assert codes[process] == -9, outputs
  assert end - float(outputs[process][0].split("killed at")[1]) < 40
  assert codes[1 - process] == 1, outputs
  error = outputs[1 - process][1]
  assert f"process {1 - process} of 2 lost process {process}." in error
  assert "Traceback" not in error and "Fatal Python error" not in error


def test_one_process_in_trouble_ends_both(tmp_path):
  """If one process cannot go on, both end.

  The second one cannot write, and the first one does not wait for it.
  """
  (tmp_path / "file").write_text("")
  codes, outputs = run_processes(tmp_path / "run", tmp_path / "file" / "run")
  assert codes == [1, 1], outputs
  assert "Process 1 of 2 could not go on; it says why" in outputs[0][1]
  assert "not a directory that can be written" in outputs[1][1]
  assert "Traceback" not in outputs[0][1] + outputs[1][1]
  assert not (tmp_path / "run").exists()
