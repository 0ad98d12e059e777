"""Work directories of strangers, which may be made to do harm.

They are refused within seconds, in one line. Nothing outside them is opened or written.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import numpy as np
import orbax.checkpoint as ocp
import pytest

import pixelrnn_jax as prnn
from helpers.folders import contents
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import checkpoint_files, layout
from pixelrnn_jax.training.evaluation import read_evaluation
from pixelrnn_jax.visualization import learning_curves, run_pictures


@pytest.fixture
def stranger(finished_run, tmp_path):
  """Return a copy of a run that has only its last checkpoint."""
  workdir = pathlib.Path(shutil.copytree(finished_run, tmp_path / "stranger"))
  steps = sorted((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
  for step in steps[:-1]:
    shutil.rmtree(step)
  return workdir


@pytest.fixture(autouse=True)
def in_seconds():
  """Stop a test after 60 seconds.

  Reading a pipe or a device would take for ever.
  """

  def late(*_):
    raise TimeoutError("the reader hangs")

  before = signal.signal(signal.SIGALRM, late)
  signal.alarm(60)
  yield
  signal.alarm(0)
  signal.signal(signal.SIGALRM, before)


def checkpoint(workdir):
  return next((workdir / "checkpoints").iterdir())


def replace(path, make):
  path.unlink()
  make(path)


def sums(entry):
  """Return a row that writes `entry` to sums.json."""
  return lambda workdir: (checkpoint(workdir) / "sums.json").write_text(
      entry if isinstance(entry, str) else json.dumps(entry))


def without_sums(change):
  def both(workdir):
    (checkpoint(workdir) / "sums.json").unlink()
    change(workdir)

  return both


def link_out(workdir):
  outside = workdir.parent / "outside"
  step = checkpoint(workdir)
  step.rename(outside)
  step.symlink_to(outside)


def link_of_a_folder(workdir):
  params = checkpoint(workdir) / "params"
  params.rename(workdir.parent / "outside")
  params.symlink_to(workdir.parent / "outside")


def info(**fields):
  """Return a row that changes facts of the checkpoint, which then has no sums."""

  def change(workdir):
    path = checkpoint(workdir) / "info" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sums": False} | fields))

  return without_sums(change)


def folder_in_folder(workdir):
  """Make folders in each other, more than Python has levels of recursion."""
  here = os.getcwd()
  os.chdir(checkpoint(workdir))
  for _ in range(1200):
    os.mkdir("x")
    os.chdir("x")
  os.chdir(here)


def validation(text):
  """Return a row that writes the file of a later validation figure."""
  return without_sums(
      lambda workdir: (checkpoint(workdir) / "validation.json").write_text(text))


def step(name):
  """Return a row that renames the checkpoint."""
  return lambda workdir: checkpoint(workdir).rename(workdir / "checkpoints" / name)


DEEP = "[" * 100_000
ROWS = {
    # The sums in sums.json.
    "a device": (sums({"/dev/zero": [1, 1]}), "/dev/zero is missing"),
    "a file outside": (sums({"../../config.json": [1, 1]}), "config.json is missing"),
    "a file above by name": (
        sums({"params/../../../config.json": [1, 1]}), "is missing"),
    "no names": (sums([["x", 1]]), "sums.json is truncated or has changed"),
    "no numbers": (sums({"info/metadata": ["x", None]}), "sums.json is truncated"),
    "other pairs": (sums({"info/metadata": [1]}), "sums.json is truncated"),
    "nested": (sums(DEEP), "sums.json is truncated or has changed"),
    "a number of kilometres": (sums('{"x": [1, ' + "9" * 5000 + "]}"), "sums.json is"),
    # The contents of a checkpoint.
    "a pipe for the sums": (
        lambda w: replace(checkpoint(w) / "sums.json", os.mkfifo), "It is a link, a"),
    "a pipe": (without_sums(
        lambda w: replace(checkpoint(w) / "params" / "manifest.ocdbt", os.mkfifo)),
        "params/manifest.ocdbt: It is a link, a pipe or a device"),
    "a pipe for the facts": (without_sums(
        lambda w: replace(checkpoint(w) / "info" / "metadata", os.mkfifo)),
        "info/metadata: It is a link, a pipe or a device"),
    "a pipe more": (
        lambda w: os.mkfifo(checkpoint(w) / "params" / "x"), "It is a link, a pipe"),
    "a link to a device": (without_sums(
        lambda w: replace(checkpoint(w) / "info" / "metadata",
                          lambda path: path.symlink_to("/dev/zero"))),
        "info/metadata: It is a link, a pipe or a device"),
    "a link to a folder": (without_sums(link_of_a_folder), "params: It is a link"),
    "a checkpoint elsewhere": (link_out, "It is a link"),
    "nested facts": (without_sums(
        lambda w: (checkpoint(w) / "info" / "metadata").write_text(DEEP)),
        "No checkpoint in .* can be read"),
    "folders without end": (folder_in_folder, "recursion"),
    "a nested validation": (validation(DEEP), "info: RecursionError"),
    "a validation of no fields": (validation("[1]"), "info: "),
    "a number as the data": (info(data=5), "a field has a value that it cannot have"),
    "a text as settings": (info(settings="x"), "info: "),
    "settings of numbers": (info(settings={"x": 1}), "a value that it cannot have"),
    "no devices": (info(devices="x"), "a value that it cannot have"),
    "endless nats": (info(validation_nats=10**400), "info: OverflowError"),
    "a step of 64 bits": (step("99999999999999999999"), "There is no checkpoint"),
    "a step as long as a name": (step("9" * 255), "There is no checkpoint"),
    "nested metadata": (without_sums(
        lambda w: (checkpoint(w) / "params" / "_METADATA").write_text(DEEP)),
        "No checkpoint in .* can be read"),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("which", ["last", "best"])
def test_checkpoints(stranger, name, which, monkeypatch):
  change, message = ROWS[name]
  change(stranger)
  before = tree(stranger.parent)
  with pytest.raises(InputError) as error:
    prnn.restore(str(stranger), which)
  if which == "last":
    assert error.match(message)
  assert "\n" not in str(error.value)
  assert tree(stranger.parent) == before
  subprocess.run(["rm", "-rf", stranger], check=True)  # rm takes folders of any depth


def tree(folder):
  """Return all names below a folder, down to a hundred levels."""
  found = subprocess.run(
      ["find", folder, "-maxdepth", "100"], capture_output=True, check=True, text=True)
  return sorted(found.stdout.splitlines())


def set_fields(**fields):
  """Return a row that sets fields of config.json.

  The field "part.field" is written part__field.
  """

  def change(workdir):
    path = workdir / layout.CONFIG
    config = json.loads(path.read_text())
    for name, value in fields.items():
      part, field = name.split("__")
      config[part][field] = value
    path.write_text(json.dumps(config))

  return change


def config_of(text):
  return lambda workdir: (workdir / layout.CONFIG).write_text(text)


CONFIGS = {
    "nested": (config_of(DEEP), "config.json is damaged: .*not valid JSON"),
    "a number of kilometres": (
        config_of('{"name": ' + "9" * 5000 + "}"), "damaged: .*not valid JSON"),
    "no number": (config_of('{"name": NaN}'), "damaged"),
    "a pipe": (lambda w: replace(w / layout.CONFIG, os.mkfifo), "holds no config.json"),
    "a device": (
        lambda w: replace(w / layout.CONFIG, lambda path: path.symlink_to("/dev/zero")),
        "holds no config.json"),
    "wide": (set_fields(model__hidden=2**40), "whole numbers are at most"),
    "deep": (set_fields(model__layers=10**6), "layers=1000000: must be at most 4096"),
    "kernels": (set_fields(model__kernel_size=10**4 + 1), "must be at most 128"),
    "an image without end": (
        set_fields(model__image_shape=[2**16, 2**16, 3]), "an image has at most"),
    "seed": (set_fields(train__seed=2**70), "whole numbers are at most"),
    "batch": (set_fields(train__eval_batch_size=2**60), "whole numbers are at most"),
    "rate": (set_fields(optimizer__learning_rate=10**400), "whole numbers are at most"),
    "weights": (set_fields(model__hidden=2**13), "a convolution would have"),
    "weights of the head": (
        set_fields(model__head_features=2**15), "a convolution would have"),
    "a large model": (
        set_fields(model__hidden=2**10, model__layers=2**12),
        "the config asks for .* bytes of parameters .* and its files have"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(stranger, name):
  change, message = CONFIGS[name]
  change(stranger)
  with pytest.raises(InputError, match=message) as error:
    prnn.restore(str(stranger))
  assert "\n" not in str(error.value)


def test_arrays_that_are_not_there(tmp_path):
  """Arrays that claim terabytes in a file of kilobytes are refused.

  TensorStore would fill in the missing values.
  """
  path = tmp_path / "1"
  with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
    template = {"a": np.zeros((8, 7), np.float32)}
    checkpointer.save(path / "params", args=ocp.args.StandardSave(template))
  assert checkpoint_files.false_claim(str(path), "params", template) == ""
  huge = np.lib.stride_tricks.as_strided(
      np.zeros(1, np.float32), (2**20, 2**20), (0, 0))
  message = checkpoint_files.false_claim(str(path), "params", {"a": huge})
  assert message.startswith("the config asks for 4,398,046,511,104 bytes")
  # Here the file's metadata claim a large array, and the config asks for a small one.
  metadata = ocp.StandardCheckpointHandler().metadata(path / "params")
  metadata.tree["a"].shape = (2**20, 2**20)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
        ocp.StandardCheckpointHandler, "metadata", lambda self, path: metadata)
    message = checkpoint_files.false_claim(str(path), "params", template)
  assert message.startswith("its arrays claim 4,398,046,511,104 bytes")


@pytest.mark.parametrize("text", [
    DEEP, '{"step": NaN}', '{"step": 1, "train/nats_per_image": "x", "data": 5}',
    '{"step": ' + "9" * 5000 + "}", '{"step": 1e999}', "[1]", "null", "x"])
def test_metrics(stranger, text):
  (stranger / layout.METRICS).write_text(f"{text}\n")
  before = contents(stranger)
  with pytest.raises(InputError, match="holds no figures yet|no figures in"):
    learning_curves.draw_curves([str(stranger)])
  assert contents(stranger) == before


@pytest.mark.parametrize("name", [layout.METRICS, layout.EVALUATION])
def test_pipes(stranger, name):
  (stranger / name).unlink()
  os.mkfifo(stranger / name)
  with pytest.raises(InputError, match="It is a pipe, a socket or a device"):
    if name == layout.METRICS:
      learning_curves.draw_curves([str(stranger)])
    else:
      read_evaluation(str(stranger), 12)


@pytest.mark.parametrize("text", [DEEP, "[]", "9" * 5000, "{"])
def test_evaluations(stranger, text):
  (stranger / layout.EVALUATION).write_text(text)
  assert read_evaluation(str(stranger), 12) is None


def test_pictures_are_not_written_through_links(stranger, tmp_path):
  """Pictures replace links in `samples/`, and do not change the links' targets.

  A stranger's links may have the names that pictures get.
  """
  (tmp_path / "thesis").write_text("precious")
  name = "completions_step_00000012_seed_0.png"
  (stranger / "samples" / f"{name}.tmp").write_text("mine")
  (stranger / "samples" / name).symlink_to(tmp_path / "thesis")
  path = run_pictures.draw_completions(str(stranger), num=1, completions=1)
  assert path.endswith(name)
  assert (tmp_path / "thesis").read_text() == "precious"
  assert (stranger / "samples" / f"{name}.tmp").read_text() == "mine"
