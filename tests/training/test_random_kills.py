"""A run that is disturbed at random moments ends like an undisturbed run.

    pytest tests/training/test_random_kills.py                  # 8 disturbances
    pytest -m slow -s tests/training/test_random_kills.py       # 200, 20 minutes
    PIXELRNN_SEED=1 PIXELRNN_FAULTS=50 pytest -m slow -s ...    # other ones

Each disturbance comes a random time after a random step. It is one of these:

- SIGKILL, SIGTERM or SIGINT;
- a disk that is full, becomes read-only or allows no larger file;
- an input or output error in one of the system calls;
- SIGKILL, and then one to three damaged files in the newest checkpoint.

The fault is repaired, and the same run continues. The disks are separate file systems
if the test may mount one. Otherwise the system calls fail in the same way. Grain reads
in a worker process. Between the disturbances this process reads the run while it
trains.

No disturbance may lose more than one interval of train.checkpoint_every=1, or show a
traceback. At the end no byte of the parameters and no figure may differ.
"""

import collections
import contextlib
import hashlib
import json
import os
import queue
import random
import resource
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest

from helpers.disks import Disk
from helpers.programs import PATHS
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.restore import load_run

# This program trains each time it reads a line on its standard input. Starting a
# program takes most of the time, so only killed programs are started again. The second
# word of a line is the number of an error. The third word says which system call after
# SIGUSR1 raises the error.
CHILD = """
import builtins, gc, os, shutil, signal, sys
sys.path[:0] = {paths}
if __name__ == "__main__":
  import command_line
  from helpers.tiny_run import make_tiny_config
  from pixelrnn_jax.errors import InputError, Interrupted
  from pixelrnn_jax.training import train

  workdir, error, calls = {workdir!r}, 0, -1

  def failing(owner, name):
    original = getattr(owner, name)

    def call(path, *args, **kwargs):
      global calls
      if calls > 0 and str(path).startswith(workdir):
        calls -= 1
        if calls == 0:
          raise OSError(error, os.strerror(error), str(path))
      return original(path, *args, **kwargs)

    setattr(owner, name, call)

  for owner, name in (
      (os, "rename"), (os, "replace"), (os, "listdir"), (os, "makedirs"),
      (shutil, "rmtree"), (builtins, "open")):
    failing(owner, name)

  def arm(*_):
    global calls
    calls = wanted

  def main():
    global calls, error, wanted
    config = make_tiny_config()
    config.data.workers = 1
    config.train.steps = {steps}
    config.train.log_every = 1
    config.train.eval_every = 10
    config.train.checkpoint_every = {checkpoint_every}
    config.train.samples = 0
    for line in sys.stdin:
      calls, error, wanted = -1, *map(int, line.split()[1:])
      signal.signal(signal.SIGUSR1, arm)
      print("running", flush=True)
      try:
        train(config, workdir)
      except (InputError, Interrupted) as stopped:
        said = f"stopped: {{stopped}}"
        del stopped
        gc.collect()  # files of the run that an error has left open
        print(said, flush=True)
      else:
        print("complete", flush=True)
        return

  command_line.run(main)
"""


class Run:
  """A run in its own process."""

  def __init__(self, folder, workdir, steps, checkpoint_every=1):
    self.workdir = workdir
    self.program = folder / f"{workdir.name}.py"
    self.program.write_text(CHILD.format(
        paths=PATHS, workdir=str(workdir), steps=steps,
        checkpoint_every=checkpoint_every))
    self.errors = folder / f"{workdir.name}.stderr"
    self.process = None

  def go(self, error=0, call=0):
    """Start the process, unless it is waiting, and let it train."""
    if self.process is None or self.process.poll() is not None:
      with open(self.errors, "a") as errors:
        self.process = subprocess.Popen(
            [sys.executable, str(self.program)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors, text=True)
      self.lines = queue.Queue()
      threading.Thread(
          target=self.read, args=(self.process.stdout, self.lines), daemon=True,
      ).start()
    self.process.stdin.write(f"go {error} {call}\n")
    self.process.stdin.flush()
    return self.wait("running")

  @staticmethod
  def read(stdout, lines):
    for line in stdout:
      lines.put(line.strip())
    lines.put(None)

  def wait(self, *beginnings, until=lambda: False):
    """Return the next line of the output with one of these beginnings.

    Return None if the process ends first, or if `until()` is true.
    """
    while not until():
      with contextlib.suppress(queue.Empty):
        line = self.lines.get(timeout=0.05)
        if line is None:
          self.process.wait(timeout=60)
          return None
        if line.startswith(beginnings):
          return line
    return None

  def step(self):
    """Return the newest checkpoint's step, from the names of the directories."""
    folder = self.workdir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)

  def traceback(self):
    text = self.errors.read_text()
    return text if "Traceback" in text or "Fatal Python error" in text else ""


def damage(folder, rng):
  """Damage one to three files of a checkpoint, and return how."""
  paths = sorted(path for path in folder.rglob("*") if path.is_file())
  said = []
  for path in rng.sample(paths, rng.randint(1, 3)):
    how = rng.choice(["remove", "empty", "truncate", "flip", "directory", "append"])
    content = path.read_bytes()
    if how in ("remove", "directory"):
      path.unlink()
    if how == "directory":
      path.mkdir()
    elif how != "remove":
      middle = rng.randrange(max(1, len(content)))
      path.write_bytes({
          "empty": b"", "truncate": content[:middle], "append": content + b"x",
          "flip": content[:middle] + bytes([content[middle] ^ 1 << rng.randrange(8)])
                  + content[middle + 1:] if content else b"x"}[how])
    said.append(f"{how} {path.relative_to(folder)}")
  return ", ".join(said)


def disturb(run, disk, number, rng):
  """Disturb a run `number` times; return how often it happened in which way."""
  kinds = ["SIGKILL", "SIGTERM", "SIGINT", "damage", "full", "read-only", "EFBIG",
           "EIO", "ENOSPC", "EROFS"]
  met, previous = collections.Counter(), None
  for index in range(number):
    kind = kinds[index] if index < len(kinds) else rng.choice(kinds)
    if disk is None and kind in ("full", "read-only"):
      kind = {"full": "ENOSPC", "read-only": "EROFS"}[kind]
    error = {"EIO": 5, "ENOSPC": 28, "EROFS": 30}.get(kind, 0)
    assert run.go(error, rng.randint(1, 25)) == "running", run.errors.read_text()
    # The run trains now. At random moments this process reads it. A damaged checkpoint
    # is there until the program sets it aside.
    at_least = run.step() - (previous == "damage")
    wanted = run.step() + rng.randint(1, 3)
    deadline = time.monotonic() + 300
    while run.step() < wanted and run.process.poll() is None:
      assert time.monotonic() < deadline
      time.sleep(0.005)
      if run.step() and rng.random() < 0.1:
        assert load_run(str(run.workdir)).step >= at_least
    time.sleep(rng.uniform(0, 0.2))
    before, what, pid = run.step(), "", run.process.pid
    if kind == "full":
      disk.fill()
    elif kind == "read-only":
      disk.break_down()
    elif kind == "EFBIG":
      limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
      resource.prlimit(
          pid, resource.RLIMIT_FSIZE, (rng.choice([0, 300, 6000]), limits[1]))
    elif kind in ("EIO", "ENOSPC", "EROFS"):
      run.process.send_signal(signal.SIGUSR1)
    else:
      run.process.send_signal(
          getattr(signal, "SIGKILL" if kind == "damage" else kind))
    stopped = run.wait(
        "stopped", "complete", until=lambda last=before + 3: run.step() > last)
    if stopped is None and run.process.poll() is None:
      # The program ignored the error, because it met it while looking for the best
      # checkpoint.
      assert kind in ("EIO", "ENOSPC", "EROFS")
      run.process.send_signal(signal.SIGTERM)
      stopped = run.wait("stopped", "complete")
    if kind == "full":
      disk.make_room()
    elif kind == "read-only":
      disk.repair()
    elif kind == "EFBIG":
      resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    elif kind == "damage" and run.step():
      what = damage(run.workdir / "checkpoints" / str(run.step()), rng)
      before -= 1
    code = run.process.poll()
    print(f"{index + 1}: {kind} at step {before}, {what or stopped or code}",
          flush=True)
    # A signal may come before the training handles signals, or after that.
    assert stopped or code in (-9, -15, 130), run.errors.read_text()
    assert stopped != "complete", "there are too few steps"
    assert not run.traceback()
    if before > 0:
      assert load_run(str(run.workdir)).step >= before
    met[kind] += 1
    previous = kind
  return met


def figures(workdir):
  """Return the lines of the metrics in order, without their speed."""
  lines = [json.loads(line) for line in open(workdir / "metrics.jsonl")]
  for line in lines:
    line.pop("train/images_per_second", None)
  return lines


def digest(workdir):
  """Return the last checkpoint's step and the SHA-256 of its parameters."""
  sums = hashlib.sha256()
  for leaf in jax.tree.leaves(jax.device_get(load_run(str(workdir)).params)):
    sums.update(leaf.tobytes())
  with Checkpoints(str(workdir)) as checkpoints:
    return checkpoints.steps()[-1], sums.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [int(os.environ.get("PIXELRNN_FAULTS", "200"))])
def test_random_kills_and_faults(tmp_path, number):
  seed = int(os.environ.get("PIXELRNN_SEED", "20160125"))
  print(f"seed {seed}")
  rng, steps = random.Random(seed), 7 * number + 10
  undisturbed = Run(tmp_path, tmp_path / "undisturbed", steps, checkpoint_every=50)
  undisturbed.go()
  disk = Disk.make(tmp_path, megabytes=64)
  try:
    run = Run(tmp_path, (disk.path if disk else tmp_path) / "disturbed", steps)
    print(dict(disturb(run, disk, number, rng)))
    run.go()
    assert run.wait("stopped", "complete") == "complete"
    assert undisturbed.wait("stopped", "complete") == "complete"
    for each in (run, undisturbed):
      each.process.communicate(timeout=60)
      assert not each.traceback()
    expected = digest(undisturbed.workdir)
    assert expected[0] == steps
    assert digest(run.workdir) == expected
    assert figures(run.workdir) == figures(undisturbed.workdir)
  finally:
    for each in (run, undisturbed):
      if each.process.poll() is None:
        each.process.kill()
    if disk:
      disk.unmount()
