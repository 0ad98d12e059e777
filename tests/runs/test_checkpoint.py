import json
import os
import pathlib
import resource
import sys
import time
import types

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pixelrnn_jax import build_model, data
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import checkpoint_files as kept_files
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.optimizer import make_optimizer
from pixelrnn_jax.runs.restore import load_run, restore
from pixelrnn_jax.runs.state import TrainState, init_state


@pytest.fixture
def parts(tiny_config):
  """Return a train state, and a function that makes a data iterator."""
  model = build_model(tiny_config.model)
  optimizer = make_optimizer(tiny_config.optimizer, tiny_config.train.steps)
  state = init_state(
      model, optimizer, jax.random.key(0), tiny_config.model.image_shape)
  source = data.load_source(tiny_config, "train")
  return jax.device_get(state), lambda: data.train_iterator(tiny_config, source)


def at(state, step):
  """Return the state with another step and other parameters for each step."""
  params = jax.tree.map(lambda x: x + np.float32(step), state.params)
  return state.replace(step=np.int32(step), params=params)


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)
  return True


def test_state_and_data_come_back(tmp_path, parts):
  state, make_iterator = parts
  iterator = make_iterator()
  for _ in range(7):
    next(iterator)
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    checkpoints.save(7, at(state, 7), iterator, 1.5)
  other = make_iterator()
  with Checkpoints(str(tmp_path)) as checkpoints:
    restored = checkpoints.restore(jax.eval_shape(lambda: state), other)
  assert equal(restored.state, at(state, 7))
  assert jax.tree.structure(restored.state) == jax.tree.structure(state)
  assert restored.info.validation_nats == 1.5
  assert restored.info.devices == jax.device_count()
  assert restored.damaged == []
  # The batches go on into the next epoch.
  for _ in range(10):
    np.testing.assert_array_equal(next(iterator), next(other))


def test_parameters_alone_and_older_checkpoints(tmp_path, parts):
  """Parameters are read without the rest, also from checkpoints of version 0.1.

  Version 0.1 kept the whole train state in one item, `state`.
  """
  state, make_iterator = parts
  iterator = make_iterator()
  next(iterator)
  names = ("params", "optimizer", "data", "info")
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    checkpoints.save(1, at(state, 1), iterator, 1.5)
    assert {p.name for p in (tmp_path / "checkpoints" / "1").iterdir()} > set(names)
  info = json.loads((tmp_path / "checkpoints" / "1" / "info" / "metadata").read_text())
  old = tmp_path / "checkpoints" / "2"
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
    checkpointer.save(old, args=ocp.args.Composite(
        state=ocp.args.StandardSave(at(state, 2)),
        data=grain.checkpoint.CheckpointSave(iterator),
        info=ocp.args.JsonSave(info)))
  sums = kept_files.sums(str(old), kept_files.sizes(str(old)))
  (old / "sums.json").write_text(json.dumps(sums))
  params_only = jax.eval_shape(lambda: state).replace(opt_state=None)
  other = params_only.replace(params=params_only.params | {"more": state.step})
  with Checkpoints(str(tmp_path)) as checkpoints:
    for step in (2, 1):
      restored = checkpoints.restore(params_only)
      assert restored.damaged == []
      assert equal(restored.state, at(state, step).replace(opt_state=None))
      moved = make_iterator()
      assert equal(checkpoints.restore(state, moved).state, at(state, step))
      np.testing.assert_array_equal(next(moved), next(iterator))
      with pytest.raises(InputError, match="does not belong .* other parameters"):
        checkpoints.restore(other)
      (tmp_path / "checkpoints" / str(step)).rename(tmp_path / f"away_{step}")
      iterator = make_iterator()
      next(iterator)


def test_the_last_two_and_the_best_are_kept(tmp_path, parts):
  state, make_iterator = parts
  iterator = make_iterator()
  kept = []
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    for step, nats in enumerate([5.0, 3.0, None, 4.0, 3.0, 2.0, None], start=1):
      checkpoints.save(step, at(state, step), iterator, nats)
      kept.append(checkpoints.steps())
    assert checkpoints.ranking() == [(2.0, 6)]
  assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [5, 6], [6, 7]]
  with Checkpoints(str(tmp_path)) as checkpoints:
    assert checkpoints.steps() == [6, 7]
    assert equal(checkpoints.restore(state).state, at(state, 7))
    assert equal(checkpoints.restore(state, which="best").state, at(state, 6))


def test_a_validation_that_comes_later_rewrites_nothing(tmp_path, parts):
  state, make_iterator = parts
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    checkpoints.save(3, at(state, 3), make_iterator(), None)
    before = {p: p.stat().st_ino for p in checkpoint_files(tmp_path, 3)}
    checkpoints.set_validation(3, 1.0)
    assert checkpoints.ranking() == [(1.0, 3)]
    after = {p: p.stat().st_ino for p in checkpoint_files(tmp_path, 3)}
    changed = {p.name for p in after.keys() ^ before.keys()}
    changed |= {p.name for p in before if before[p] != after.get(p)}
    assert changed == {"validation.json", "sums.json"}
    with pytest.raises(FileExistsError, match="checkpoint of step 3"):
      checkpoints.save(3, at(state, 3), make_iterator(), 1.0)
  flip(tmp_path / "checkpoints" / "3" / "validation.json")
  with Checkpoints(str(tmp_path)) as checkpoints:
    with pytest.raises(InputError, match="validation.json has changed"):
      checkpoints.restore(state)


@pytest.mark.parametrize("name", ["lr[1e-3]", "a*b", "what?", "[!x]*?[ab]", "a b%20#"])
def test_a_path_with_wildcards(tmp_path, parts, name):
  state, make_iterator = parts
  (tmp_path / "a_sibling_b").mkdir()
  workdir = tmp_path / name
  with Checkpoints(str(workdir), write=True) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, at(state, step), make_iterator(), None)
  with Checkpoints(str(workdir)) as checkpoints:
    assert equal(checkpoints.restore(state, make_iterator()).state, at(state, 2))
  names = {path.name for path in checkpoint_files(workdir, 2)}
  assert names >= {"manifest.ocdbt", "sums.json"}


def test_what_cannot_be_read_back_is_not_kept(tmp_path, parts, monkeypatch):
  """A new checkpoint that cannot be read back is not kept, and deletes no other.

  The last good checkpoint is deleted only when the new one is known to be good.
  """
  state, make_iterator = parts
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    checkpoints.save(1, at(state, 1), make_iterator(), None)
    checkpoints.save(2, at(state, 2), make_iterator(), None)
    original = kept_files.sums

    def damage_and_sum(path, names):
      sums = original(path, names)
      for damaged in pathlib.Path(path).rglob("d/*"):
        flip(damaged)
      return sums

    monkeypatch.setattr(kept_files, "sums", damage_and_sum)
    with pytest.raises(OSError, match="checkpoint just written"):
      checkpoints.save(3, at(state, 3), make_iterator(), None)
    monkeypatch.undo()
    assert checkpoints.steps() == [1, 2]
    assert equal(checkpoints.restore(state).state, at(state, 2))
  with Checkpoints(str(tmp_path), write=True):
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def test_what_cannot_be_read_just_now_is_not_deleted(tmp_path, parts):
  """A checkpoint that cannot be read for a moment is not deleted.

  It may be the best one, on a disk that fails for a moment.
  """
  state, make_iterator = parts
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    checkpoints.save(1, at(state, 1), make_iterator(), 1.0)
    info = tmp_path / "checkpoints" / "1" / "info" / "metadata"
    info.rename(tmp_path / "away")
    for step in (2, 3, 4):
      checkpoints.save(step, at(state, step), make_iterator(), 9.0 - step)
    assert checkpoints.steps() == [1, 3, 4]
    (tmp_path / "away").rename(info)
    assert checkpoints.ranking()[0] == (1.0, 1)
    assert equal(checkpoints.restore(state, which="best").state, at(state, 1))


@pytest.mark.parametrize("name", ["params", "optimizer", "data", "info"])
def test_a_folder_that_cannot_be_made_is_an_error_at_once(
    tmp_path, parts, monkeypatch, name):
  state, make_iterator = parts
  originals, failed = {way: getattr(os, way) for way in ("mkdir", "makedirs")}, []

  def failing(way):
    def call(path, *args, **kwargs):
      if name in os.path.basename(path):
        failed.append(path)
        raise OSError(5, "Input/output error", path)
      return originals[way](path, *args, **kwargs)
    return call

  for way in originals:
    monkeypatch.setattr(os, way, failing(way))
  begin = time.monotonic()
  with (Checkpoints(str(tmp_path), write=True) as checkpoints,
        pytest.raises(OSError, match="Input/output error")):
    checkpoints.save(1, at(state, 1), make_iterator(), None)
  assert failed and time.monotonic() - begin < 60


def test_writes_that_fail_late_are_silent(tmp_path, parts, monkeypatch):
  """The first of many failing writes raises an error. The others print nothing.

  They end later, in threads.
  """
  _, make_iterator = parts
  rng = np.random.default_rng(0)
  params = {f"a{i}": rng.random(16_000, np.float32) for i in range(40)}
  late = []
  monkeypatch.setattr(sys, "unraisablehook", lambda it: late.append(it.exc_value))
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
      for step in range(3):
        with pytest.raises(Exception, match="File too large"):
          checkpoints.save(
              step, TrainState(params, None, np.int32(step)), make_iterator(), None)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    time.sleep(1)
  assert not late
  error = ValueError("something else")
  sys.unraisablehook(types.SimpleNamespace(exc_value=error))
  assert late == [error]


def test_only_what_is_ours_is_tidied(tmp_path, parts):
  theirs = ["new_notes", "old_4x", "damaged_3", "copy of 2", "x.orbax-checkpoint-tmp"]
  folder = tmp_path / "checkpoints"
  ours = ["new_4", "old_3", "new_4.orbax-checkpoint-tmp", "5.orbax-checkpoint-tmp-1"]
  for name in [*theirs, *ours]:
    (folder / name).mkdir(parents=True)
    (folder / name / "file").write_text("")
  (folder / "old_5").write_text("a file")
  (folder / "new_6").symlink_to(tmp_path)
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    assert checkpoints.steps() == []
  assert sorted(os.listdir(folder)) == sorted([*theirs, "old_5", "new_6"])


def checkpoint_files(workdir, step):
  folder = pathlib.Path(workdir) / "checkpoints" / str(step)
  return sorted(path for path in folder.rglob("*") if path.is_file())


def truncate(path):
  path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def empty(path):
  path.write_bytes(b"")


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0x55
  path.write_bytes(bytes(content))


def remove(path):
  path.unlink()


def make_directory(path):
  path.unlink()
  path.mkdir()


def make_loop(path):
  path.unlink()
  path.symlink_to(path)


def put_back(path, content):
  if path.is_dir():
    path.rmdir()
  path.unlink(missing_ok=True)
  path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [truncate, empty, flip, remove, make_directory, make_loop])
def test_any_damaged_file_falls_back(tmp_path, parts, damage, capsys):
  state, make_iterator = parts
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, at(state, step), make_iterator(), None)
  with Checkpoints(str(tmp_path)) as checkpoints:
    for path in checkpoint_files(tmp_path, 2):
      content = path.read_bytes()
      damage(path)
      restored = checkpoints.restore(state, make_iterator())
      assert equal(restored.state, at(state, 1)), path
      (step, reason), = restored.damaged
      message = capsys.readouterr().err
      assert f"checkpoint of step 2 is damaged: {reason}" in message
      assert step == 2 and "going back to that of step 1" in message
      assert path.name in reason
      put_back(path, content)
    assert equal(checkpoints.restore(state).state, at(state, 2))


# Callbacks of TensorStore may run after Orbax has closed its event loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [truncate, empty, remove, make_directory])
def test_without_sums_what_orbax_notices_falls_back(tmp_path, parts, damage):
  state, make_iterator = parts
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, at(state, step), make_iterator(), None)
  # Older versions left this when they were killed before they wrote the sums.
  (tmp_path / "checkpoints" / "2" / "sums.json").unlink()
  info = tmp_path / "checkpoints" / "2" / "info" / "metadata"
  info.write_text(info.read_text().replace('"sums": true', '"sums": false'))
  fell_back = set()
  with Checkpoints(str(tmp_path)) as checkpoints:
    for path in checkpoint_files(tmp_path, 2):
      content = path.read_bytes()
      damage(path)
      restored = checkpoints.restore(state, make_iterator())
      assert equal(restored.state, at(state, 1 if restored.damaged else 2)), path
      if restored.damaged:
        fell_back.add(path.name)
      put_back(path, content)
  assert {"_METADATA", "metadata", "process_0-of-1.json"} <= fell_back


def test_a_file_in_a_checkpoints_place(tmp_path, parts, capsys):
  state, make_iterator = parts
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    checkpoints.save(1, at(state, 1), make_iterator(), 1.0)
  (tmp_path / "checkpoints" / "2").write_text("mine")
  (tmp_path / "checkpoints" / "03").mkdir()
  with Checkpoints(str(tmp_path)) as checkpoints:
    assert checkpoints.steps() == [1, 2]
    for which in ("last", "best"):
      restored = checkpoints.restore(state, which=which)
      assert equal(restored.state, at(state, 1))
    restored = checkpoints.restore(state)
    checkpoints.set_aside(restored)
    assert checkpoints.steps() == [1]
  assert (tmp_path / "checkpoints" / "damaged_2").read_text() == "mine"


@pytest.mark.parametrize("moment", ["problem", "sums"])
@pytest.mark.parametrize("which", ["last", "best"])
def test_reading_while_another_saves(
    tmp_path, parts, monkeypatch, capsys, moment, which):
  """A reader takes a newer checkpoint if the chosen one is deleted meanwhile.

  It is deleted just before its files are read.
  """
  state, make_iterator = parts
  with Checkpoints(str(tmp_path), write=True) as writer:
    writer.save(1, at(state, 1), make_iterator(), 5.0)
    writer.save(2, at(state, 2), make_iterator(), 6.0)
    with Checkpoints(str(tmp_path)) as reader:
      original, calls = getattr(kept_files, moment), []

      def while_saving(*args):
        result = original(*args)
        if not calls:
          calls.append(1)
          for step in (3, 4, 5):
            writer.save(step, at(state, step), make_iterator(), 5.0 - step)
        return result

      monkeypatch.setattr(kept_files, moment, while_saving)
      restored = reader.restore(state, which=which)
  assert calls
  assert equal(restored.state, at(state, 5))
  assert restored.damaged == []
  assert capsys.readouterr().err == ""


def test_all_damaged_is_an_error_and_deletes_nothing(copy_run):
  workdir = copy_run()
  with Checkpoints(str(workdir)) as checkpoints:
    steps = checkpoints.steps()
  for step in steps:
    truncate(checkpoint_files(workdir, step)[-1])
  before = sorted(workdir.rglob("*"))
  for which in ("last", "best"):
    with pytest.raises(InputError) as error:
      restore(str(workdir), which)
    assert "can be read" in str(error.value)
    assert "is truncated" in str(error.value)
    assert "Nothing was deleted" in str(error.value)
  assert sorted(workdir.rglob("*")) == before


def test_a_config_of_other_sizes_does_not_fit(copy_run):
  workdir = copy_run()
  path = workdir / "config.json"
  config = json.loads(path.read_text())
  config["model"]["hidden"] *= 2
  path.write_text(json.dumps(config))
  with pytest.raises(InputError, match="does not belong to the config.json"):
    restore(str(workdir))


def test_the_best_checkpoint_is_the_validated_one(finished_run):
  with Checkpoints(str(finished_run)) as checkpoints:
    best_nats, best_step = checkpoints.ranking()[0]
    assert max(checkpoints.steps()) == 12
  assert load_run(str(finished_run)).step == 12
  assert load_run(str(finished_run), "best").step == best_step


def test_restore_messages(tmp_path, copy_run):
  with pytest.raises(InputError, match="no work directory '.*nowhere'"):
    restore(str(tmp_path / "nowhere"))
  (tmp_path / "empty").mkdir()
  with pytest.raises(InputError, match="holds no config.json"):
    restore(str(tmp_path / "empty"))
  workdir = copy_run()
  with pytest.raises(InputError, match="must be 'last' or 'best'"):
    restore(str(workdir), "newest")
  (workdir / "checkpoints").rename(workdir / "gone")
  with pytest.raises(InputError, match="There is no checkpoint"):
    restore(str(workdir))
  truncate(workdir / "config.json")
  with pytest.raises(InputError, match="config.json is damaged: .*not valid JSON"):
    restore(str(workdir))


def test_a_best_one_needs_a_validation(tmp_path, parts):
  state, make_iterator = parts
  with Checkpoints(str(tmp_path), write=True) as checkpoints:
    checkpoints.save(1, at(state, 1), make_iterator(), None)
    with pytest.raises(InputError, match="no.* has a validation figure|has a valid"):
      checkpoints.restore(state, which="best")
