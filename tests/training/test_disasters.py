"""Full disks, two runs in one place, changed data, and workers that stay behind."""

import dataclasses
import errno
import gc
import multiprocessing
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from helpers.disks import Disk
from helpers.programs import EXPERIMENTS, PATHS, run_code
from pixelrnn_jax import data, files
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.restore import load_run
from pixelrnn_jax.training import loop, train


def assert_same_parameters(a, b):
  a, b = (jax.device_get(load_run(str(workdir)).params) for workdir in (a, b))
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def at_step(monkeypatch):
  """Return at_step(n, function), which calls the function once, after step n."""

  def arm(step, function):
    original, calls = loop.Window.append, []

    def append(self, metrics):
      original(self, metrics)
      calls.append(1)
      if len(calls) == step:
        function()

    monkeypatch.setattr(loop.Window, "append", append)

  return arm


@pytest.mark.parametrize("room", [6000, 300, 0])
def test_a_disk_that_fills_up(
    finished_run, tiny_config, tmp_path, at_step, room, capfd, caplog):
  """A run on a disk that fills up stops, and goes on when there is room again.

  From step 7 on, no file may grow beyond `room` bytes. The largest `room` stops the
  arrays of a checkpoint. The others stop its small files and the metrics. Orbax,
  TensorStore and our own code fail in different ways.
  """
  caplog.set_level("CRITICAL", logger="absl")  # the programs do the same
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  workdir = tmp_path / "run"
  at_step(7, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1])))
  try:
    with pytest.raises(InputError, match="File too large. Make room"):
      train(tiny_config, str(workdir))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  with Checkpoints(str(workdir)) as checkpoints:
    assert checkpoints.steps() == [4, 6]
  assert "Traceback" not in capfd.readouterr().err
  train(tiny_config, str(workdir))
  assert "at step 6" in capfd.readouterr().out
  assert_same_parameters(workdir, finished_run)
  assert not list(workdir.rglob("*tmp*"))


FULL_DISK = """
import resource, runpy, sys
sys.path[:0] = {paths}
import jax
jax.config.update("jax_enable_compilation_cache", False)  # files that others read
limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limit))
runpy.run_path({program!r}, run_name="__main__")
"""


def test_the_program_says_it_in_one_line(tmp_path):
  """A program on a full disk prints one line.

  It prints neither the log nor the traceback of the library that failed.
  """
  code = FULL_DISK.format(paths=PATHS, program=str(EXPERIMENTS / "train.py"))
  done = run_code(
      code, "--config=pixel_cnn_cifar10:smoke", "--config.model.hidden=6",
      "--config.model.layers=1", "--config.data.max_images=24",
      "--config.data.validation_images=10", "--config.train.steps=2",
      f"--workdir={tmp_path / 'run'}")
  assert done.returncode == 1
  assert "File too large. Make room" in done.stderr
  assert "Traceback" not in done.stderr and "OUT_OF_RANGE" not in done.stderr


def test_what_a_disks_faults_look_like():
  full = "No space left on device"
  assert files.disk_fault(OSError(28, full)) == f"{full}. Make room"
  assert files.disk_fault(OSError(30, "Read-only file system", "a/b")) == (
      "a/b: Read-only file system. Mend that")
  for number in (errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ENOENT):
    assert files.disk_fault(OSError(number, os.strerror(number))) == (
        f"{os.strerror(number)}. Mend that")
  assert files.disk_fault(
      ValueError(f"RESOURCE_EXHAUSTED: ... {full} [os_error_code='28']")) == (
      f"{full}. Make room")
  assert files.disk_fault(
      ValueError("FAILED_PRECONDITION: ... [os_error_code='30' a_b='c']")) == (
      "Read-only file system. Mend that")
  try:
    try:
      raise OSError(122, "Disk quota exceeded")
    finally:
      raise RuntimeError("while cleaning up")
  except RuntimeError as error:
    assert files.disk_fault(error) == "Disk quota exceeded. Make room"
  try:
    try:
      raise FileNotFoundError(2, "No such file or directory")
    finally:
      raise RuntimeError("a fault of the program, where no file was expected")
  except RuntimeError as error:
    assert not files.disk_fault(error)
  assert not files.disk_fault(ConnectionRefusedError(111, "Connection refused"))


def test_a_disk_that_is_full_from_the_start(tiny_config, tmp_path):
  """A disk that is full from the start is an error.

  The note in the lock's file cannot be written either.
  """
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    with pytest.raises(InputError, match="after step 0: File too large. Make room"):
      train(tiny_config, str(tmp_path / "run"))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def disk(tmp_path):
  try:
    disk = Disk(tmp_path)
  except OSError as error:
    pytest.skip(f"needs the right to mount a file system: {error}")
  yield disk
  disk.unmount()


@pytest.mark.parametrize("fault, undo, message", [
    (Disk.break_down, Disk.repair, "Read-only file system. Mend that"),
    (Disk.fill, Disk.make_room, "No space left on device. Make room")])
def test_a_disk_that_fails(
    finished_run, tiny_config, disk, at_step, capfd, fault, undo, message):
  workdir = disk.path / "run"
  at_step(7, lambda: fault(disk))
  with pytest.raises(InputError, match=message):
    train(tiny_config, str(workdir))
  with pytest.raises(InputError):  # the disk fails from the start, too
    train(tiny_config, str(workdir))
  # Files that an error has left open would prevent the repair of the disk.
  gc.collect()
  undo(disk)
  assert "Traceback" not in capfd.readouterr().err
  train(tiny_config, str(workdir))
  assert "at step 6" in capfd.readouterr().out
  assert_same_parameters(workdir, finished_run)


def test_what_on_metrics_raises_is_no_disks_fault(tiny_config, tmp_path):
  def on_metrics(line):
    raise FileNotFoundError(2, "No such file or directory", "theirs")

  with pytest.raises(FileNotFoundError, match="theirs"):
    train(tiny_config, str(tmp_path / "run"), on_metrics)


def test_a_worker_that_is_killed(finished_run, tiny_config, tmp_path, at_step, capfd):
  """A run whose worker is killed saves what it trained, and can be resumed."""
  workdir = tmp_path / "run"
  tiny_config.data.workers = 1  # at most 9 batches in advance
  at_step(1, lambda: [
      os.kill(worker.pid, signal.SIGKILL)
      for worker in multiprocessing.active_children()])
  with pytest.raises(InputError, match="of the 1 processes that read.*was killed"):
    train(tiny_config, str(workdir))
  assert 1 <= load_run(str(workdir)).step < 12
  assert "Traceback" not in capfd.readouterr().err
  train(tiny_config, str(workdir))
  assert_same_parameters(workdir, finished_run)


def test_a_second_training_is_refused(tiny_config, tmp_path, at_step):
  workdir = tmp_path / "run"
  other = dataclasses.replace(tiny_config.train, steps=20)
  other = dataclasses.replace(tiny_config, train=other)
  said = []

  def start_another():
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    with pytest.raises(InputError) as error:
      train(other, str(workdir))
    said.append(str(error.value))
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before
    os.kill(os.getpid(), signal.SIGTERM)

  at_step(3, start_another)
  with pytest.raises(loop.Interrupted):
    train(tiny_config, str(workdir))
  assert "is in use by another training" in said[0]
  assert f"process {os.getpid()} on " in said[0]
  assert (workdir / layout.LOCK).read_text() == ""
  at_step(10**9, None)
  train(tiny_config, str(workdir))  # the lock is free again


def test_the_lock_of_a_killed_process_is_free(tiny_config, tmp_path):
  code = (
      "import os, signal, sys\n"
      "from pixelrnn_jax import files\n"
      "with files.hold_lock(sys.argv[1], wait=False):\n"
      "  os.kill(os.getpid(), signal.SIGKILL)\n")
  path = tmp_path / layout.LOCK
  assert run_code(code, str(path)).returncode == -9
  assert "process" in path.read_text()
  with loop.alone_in(str(tmp_path)):
    with pytest.raises(InputError, match="in use by another training"):
      with loop.alone_in(str(tmp_path)):
        pass


def test_other_images_under_the_same_name_are_refused(
    copy_run, tiny_config, monkeypatch):
  workdir = copy_run()
  tiny_config.train.steps = 14
  original = data.load_source

  def changed(config, split):
    source = original(config, split)
    return dataclasses.replace(source, description=f"{source.description} (new)")

  monkeypatch.setattr(data, "load_source", changed)
  with pytest.raises(InputError, match=r"was trained on .*, and now .*\(new\)"):
    train(tiny_config, str(workdir))


def test_what_may_change_the_rounding_is_said(copy_run, tiny_config, capsys):
  workdir = copy_run()
  tiny_config.train.steps = 13
  tiny_config.train.accumulate = 2
  tiny_config.train.samples = 0
  tiny_config.data.data_dir = "elsewhere"
  train(tiny_config, str(workdir))
  assert "Not as before: train.accumulate: 1 became 2. Figures" in (
      capsys.readouterr().out)


def test_another_precision_is_said(copy_run, tiny_config, capsys, monkeypatch):
  workdir = copy_run()
  tiny_config.train.steps = 13
  tiny_config.train.samples = 0
  monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
  with jax.enable_x64(True):
    train(tiny_config, str(workdir))
  said = capsys.readouterr().out
  assert "Not as before: jax_enable_x64: False became True; XLA_FLAGS: " in said


def test_a_signal_that_ends_a_worker_too(tiny_config, tmp_path, at_step, monkeypatch):
  """A signal that ends a worker, too, stops the run with the signal's exit code.

  On macOS a signal to the whole process group does so. It comes while the run waits for
  a batch.
  """
  workdir = tmp_path / "run"
  tiny_config.data.workers = 1
  at_step(1, lambda: [
      worker.kill() for worker in multiprocessing.active_children()])
  original = data.lost_worker

  def lost_worker(error):
    os.kill(os.getpid(), signal.SIGTERM)
    return original(error)

  monkeypatch.setattr(data, "lost_worker", lost_worker)
  with pytest.raises(loop.Interrupted, match="checkpoint is saved") as stopped:
    train(tiny_config, str(workdir))
  assert stopped.value.exit_code == 143
  assert 1 <= load_run(str(workdir)).step < 12


@pytest.mark.parametrize("number, code, moment", [
    (signal.SIGINT, 130, "workers start"), (signal.SIGTERM, 143, "workers start"),
    (signal.SIGINT, 130, "training")])
def test_a_signal_to_the_whole_group(tmp_path, number, code, moment):
  """A signal to the whole process group ends the run, and workers ignore it.

  Ctrl-C and batch systems send such signals.
  """
  code_text = CHILD_WITH_WORKERS.format(paths=PATHS, workdir=str(tmp_path / "run"))
  path = tmp_path / "main.py"
  path.write_text(code_text)
  process = subprocess.Popen(
      [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      text=True, start_new_session=True)
  assert process.stdout.readline() == "workers start\n"
  if moment == "training":
    while process.stdout.readline() != "step 2\n":
      assert process.poll() is None
  else:
    time.sleep(0.3)
  children = children_of(process.pid)
  os.killpg(process.pid, number)
  out, err = process.communicate(timeout=300)
  assert "Traceback" not in err, err
  assert process.returncode == code
  where = "checkpoint is saved" if moment == "training" else "before the first step"
  assert where in err
  deadline = time.monotonic() + 20
  while any(alive(child) for child in children):
    assert time.monotonic() < deadline, "workers are left behind"
    time.sleep(0.1)


CHILD_WITH_WORKERS = """
import sys
sys.path[:0] = {paths}
if __name__ == "__main__":
  from helpers.tiny_run import make_tiny_config
  import command_line
  from pixelrnn_jax.data import pipeline
  from pixelrnn_jax.training import loop, train

  def say(owner, name, words):
    original = getattr(owner, name)
    def saying(self, *args):
      print(words(self), flush=True)
      return original(self, *args)
    setattr(owner, name, saying)

  say(pipeline, "_start_workers", lambda _: "workers start")
  say(loop._Run, "next_batch", lambda run: "step %d" % run.step)

  def main():
    config = make_tiny_config()
    config.data.workers = 2
    config.train.steps = 10**6
    config.train.eval_every = config.train.checkpoint_every = 10**6
    train(config, {workdir!r})

  command_line.run(main)
"""


def test_workers_end_with_a_killed_training(tmp_path):
  code = f"""
import os, signal, sys
sys.path[:0] = {PATHS}
if __name__ == "__main__":
  from helpers.tiny_run import make_tiny_config
  from pixelrnn_jax import data
  config = make_tiny_config()
  config.data.workers = 2
  iterator = data.train_iterator(config, data.load_source(config, "train"))
  next(iterator)
  print(os.getpid(), flush=True)
  signal.pause()
"""
  path = tmp_path / "main.py"
  path.write_text(code)
  process = subprocess.Popen(
      [sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
  assert int(process.stdout.readline()) == process.pid
  children = children_of(process.pid)
  assert len(children) >= 2
  process.kill()
  process.wait()
  deadline = time.monotonic() + 20
  while any(alive(child) for child in children):
    assert time.monotonic() < deadline, "workers are left behind"
    time.sleep(0.1)


def children_of(parent):
  path = pathlib.Path(f"/proc/{parent}/task")
  if not path.exists():
    pytest.skip("needs /proc")
  return [
      int(child) for thread in path.iterdir()
      for child in (thread / "children").read_text().split()]


def alive(pid):
  try:
    status = pathlib.Path(f"/proc/{pid}/stat").read_text().split(")")[-1]
    return status.split()[0] != "Z"
  except FileNotFoundError:
    return False
