"""The programs as a user runs them: exit codes, and errors of one line."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import command_line
from helpers.programs import EXPERIMENTS, run_program
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.training import parallel

TINY = [
    "--config=pixel_cnn_cifar10:smoke", "--config.model.hidden=6",
    "--config.model.layers=1", "--config.model.head_features=12",
    "--config.data.validation_images=10", "--config.data.max_images=24",
    "--config.train.steps=4", "--config.train.log_every=2",
    "--config.train.eval_every=2", "--config.train.checkpoint_every=2",
    "--config.train.samples=0",
]


def start(program, *arguments, cwd):
  return subprocess.Popen(
      [sys.executable, str(EXPERIMENTS / program), *arguments], cwd=cwd,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(program, *arguments, cwd):
  done = run_program(program, *arguments, cwd=cwd)
  return done.returncode, done.stdout, done.stderr


BAD = {
    "no config": (["train.py"], ["--config is required", "quickstart"]),
    "unknown config": (
        ["train.py", "--config=row_lstm_mnits"],
        ["no config named 'row_lstm_mnits'", "Did you mean row_lstm_mnist"]),
    "misspelt field": (
        ["train.py", "--config=quickstart", "--config.model.hiden=5"],
        ["config.model has no field 'hiden'", "Did you mean hidden?", "kernel_size"]),
    "misspelt field, no config": (
        ["train.py", "--config.model.nn=5"], ["config.model has no field 'nn'"]),
    "wrong type": (
        ["train.py", "--config=quickstart", "--config.train.steps=many"],
        ["--config.train.steps=many"]),
    "too few features": (
        ["train.py", "--config=row_lstm_cifar10:smoke", "--config.model.hidden=2"],
        ["model.hidden=2 is fewer features than the image's 3 channels"]),
    "unknown implementation": (
        ["benchmark_scan.py", "--config=quickstart",
         "--config.model.implementation=magic"],
        ["model.implementation='magic'", "autodiff"]),
    "scans of several scales": (
        ["benchmark_scan.py", "--config=multi_scale_mnist"],
        ["measure the scales", "--config.model.multi_scale='()'"]),
    "factors that do not divide": (
        ["train.py", "--config=multi_scale_mnist", "--config.model.multi_scale=3"],
        ["model.multi_scale=(3,)", "must be multiples of 3"]),
    "no such config for a TPU": (
        ["compile_for_accelerator.py", "--configs=row"], ["no config named 'row'"]),
    "chips of no slice": (
        ["compile_for_accelerator.py", "--chips=3"], ["1, 2 or 4"]),
    "no such accelerator": (
        ["compile_for_accelerator.py", "--configs=quickstart", "--target=abacus"],
        ["target='abacus'", "tpu_v5e"]),
    "a list in pieces": (
        ["compress.py", "--images=a.png", "--images=b.png", "--output=c.prnn"],
        ["--images is given 2 times", "--images=ONE,OTHER"]),
    "misspelt flag": (
        ["train.py", "--config=quickstart", "--wrkdir=x"], ["'wrkdir'", "workdir"]),
    "no flag": (["train.py", "quickstart"], ["unexpected argument 'quickstart'"]),
    "no data": (
        ["train.py", "--config=row_lstm_imagenet32"], ["downsampled_imagenet"]),
    "half of the process flags": (
        ["train.py", "--config=quickstart", "--process_id=0"],
        ["--coordinator and --process_count missing", "go together"]),
    "no such process": (
        ["evaluate.py", "--workdir=.", "--coordinator=localhost:1",
         "--process_count=2", "--process_id=2"],
        ["--process_id=2 with --process_count=2: must be from 0"]),
    "evaluate nowhere": (
        ["evaluate.py", "--workdir=nowhere"], ["no work directory 'nowhere'"]),
    "evaluate no run": (["evaluate.py", "--workdir=."], ["holds no config.json"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, name):
  arguments, parts = BAD[name]
  code, stdout, stderr = run(*arguments, cwd=tmp_path)
  assert code == 1
  assert stdout == ""
  assert stderr.startswith("error: ") and "Traceback" not in stderr
  assert stderr.count("\n") == 1 or name == "no data", stderr
  for part in parts:
    assert part in stderr
  assert not list(tmp_path.iterdir())


def check_cores(record):
  """Assert that the cores of a CPU were the devices.

  There are as many devices as divide the batch.
  """
  if os.environ["JAX_PLATFORMS"] == "cpu" and "JAX_NUM_CPU_DEVICES" not in os.environ:
    config = load_config("pixel_cnn_cifar10:smoke")
    assert record["device"] == f"{parallel._count(parallel._cores(), [config])} cpu"


def test_train_and_evaluate(tmp_path):
  code, stdout, stderr = run("train.py", *TINY, cwd=tmp_path)
  assert code == 0, stderr
  assert "nats/image" in stdout and "bits/dim" in stdout
  assert "coloured MNIST" in stdout
  workdir = tmp_path / "runs" / "pixel_cnn_cifar10_smoke"
  record = json.loads((workdir / "evaluation.json").read_text())
  assert f"{record['bits_per_dim']:.4f}" in stdout
  check_cores(record)

  code, stdout, stderr = run(
      "evaluate.py", f"--workdir={workdir}", "--split=train", cwd=tmp_path)
  assert code == 0, stderr
  record = json.loads((workdir / "evaluation.json").read_text())
  assert record["split"] == "train"
  check_cores(record)

  # The programs refuse another config, and damaged checkpoints. They change no file.
  for path in workdir.glob("checkpoints/*/params/manifest.ocdbt"):
    path.write_bytes(path.read_bytes()[:30])
  before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
  for program, arguments, message in (
      ("train.py", [*TINY, "--config.model.hidden=9"], "model.hidden: 6 became 9"),
      ("train.py", TINY, "params/manifest.ocdbt is truncated"),
      ("evaluate.py", [f"--workdir={workdir}"], "params/manifest.ocdbt is truncated"),
  ):
    code, stdout, stderr = run(program, *arguments, cwd=tmp_path)
    assert code == 1 and stderr.count("\n") == 1, stderr
    assert stderr.startswith("error: ") and message in stderr
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("workers, number", [
    (0, signal.SIGTERM), (1, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_signal_ends_the_run_with_its_code(tmp_path, workers, number):
  flags = [*TINY, "--config.train.steps=1000000", "--config.train.eval_every=1000000",
           f"--config.data.workers={workers}", "--workdir=run"]
  process = start("train.py", *flags, cwd=tmp_path)
  deadline = time.monotonic() + 200
  while len(list(tmp_path.glob("run/checkpoints/*"))) < 2:
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.2)
  os.kill(process.pid, number)
  _, stderr = process.communicate(timeout=60)
  assert process.returncode == 128 + number, stderr
  assert "checkpoint is saved" in stderr and "Traceback" not in stderr
  assert not list(tmp_path.glob("run/checkpoints/*tmp*"))


@pytest.mark.parametrize("path", ["train.steps", "model.image_shape", "name"])
def test_good_overrides(path):
  command_line.check_overrides(
      ["train.py", f"--config.{path}=1", f"-config.{path}", "--other"])


@pytest.mark.parametrize("argument, message", [
    ("--config.modl.hidden=5", "config has no field 'modl'. Did you mean model"),
    ("--config.model=5", "group of fields; set one of them: kind"),
    ("--config.train.steps.x=5", "config.train.steps has no field 'x'"),
    ("--noconfig.model.residul", "no field 'residul'. Did you mean residual"),
    ("--config.=5", "config has no field ''"),
])
def test_bad_overrides(argument, message):
  with pytest.raises(InputError, match=message):
    command_line.check_overrides(["train.py", argument])
