"""Two processes under jax.distributed, one CPU device each."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from pixelrnn_jax.errors import InputError
from pixelrnn_jax.training import train
from pixelrnn_jax.training.restore import load_run

CHILD = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
sys.path.insert(0, {folder!r})
from conftest import make_tiny_config
from pixelrnn_jax.training import train
config = make_tiny_config()
config.train.steps = int(sys.argv[4])
train(config, sys.argv[3])
"""


def run_processes(workdir, steps):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  child = CHILD.format(folder=os.path.dirname(__file__))
  processes = [
      subprocess.Popen(
          [sys.executable, "-c", child, address, str(i), str(workdir), str(steps)],
          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
      for i in range(2)
  ]
  outputs = [process.communicate(timeout=300) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert "step 12" not in outputs[1][0]  # only the first one prints


@pytest.mark.slow
def test_two_processes_agree_with_one_and_resume(finished_run, tiny_config, tmp_path):
  run_processes(tmp_path / "run", steps=6)
  run_processes(tmp_path / "run", steps=12)
  one, two = (
      jax.device_get(load_run(str(d)).params) for d in (finished_run, tmp_path / "run"))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), one, two)
  records = [
      json.loads((d / "evaluation.json").read_text())
      for d in (finished_run, tmp_path / "run")
  ]
  assert records[0]["images"] == records[1]["images"]
  np.testing.assert_allclose(
      records[0]["nats_per_image"], records[1]["nats_per_image"], rtol=1e-6)

  tiny_config.train.steps = 14
  with pytest.raises(InputError, match="2 processes, this one has 1"):
    train(tiny_config, str(tmp_path / "run"))
