"""Checkpoints: the last two and the best, checked when they are read.

A checkpoint is a directory `checkpoints/STEP`. It holds the train state, the data
iterator's position, a few facts (`info`), and `sums.json`, the size and CRC of its
files: Orbax notices most truncated files, but not a changed byte.

A directory of that name is whole at every moment, for a process that was killed as
well as for one that reads while another trains:

- A checkpoint is written as `new_STEP`, read back, compared, and only then renamed.
- It is renamed to `old_STEP` before it is deleted, and others are deleted only after
  the new one is there.
- It is never written anew: a validation that comes later adds one small file.
"""

import contextlib
import dataclasses
import errno
import glob
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from grain import checkpoint as grain_checkpoint
from jax.experimental import multihost_utils

from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import checkpoint_files, layout
from pixelrnn_jax.runs.checkpoint_files import SUMS
from pixelrnn_jax.runs.state import TrainState

KEPT = 2  # of the newest: where the last is damaged there is one before it
VALIDATION = "validation.json"  # a figure that came after the checkpoint
# Names of ours that a killed process leaves: Orbax's own, and those above.
_LEFT_BEHIND = re.compile(
    r"(new|old)_[0-9]+|(new_)?[0-9]+\.orbax-checkpoint-tmp.*", re.ASCII)
# What Orbax says where a checkpoint is whole but holds other names.
_OTHER_TREE = "tree structures do not match"


@dataclasses.dataclass
class Info:
  """What a checkpoint says about itself.

  Attributes:
    validation_nats: per image, at this step; None if it was not measured.
    devices: that the run used.
    processes: that the run used.
    data: description of the images it was trained on.
    accumulate: parts of a device's batch; see TrainConfig.
    device_kind: of the first device.
    jax: version.
    settings: others that change the rounding, by name; see `parallel.settings`.
    sums: whether it was there with its `sums.json` from the start.
  """

  validation_nats: float | None
  devices: int
  processes: int
  # Older checkpoints do not have these.
  data: str = ""
  accumulate: int = 1
  device_kind: str = ""
  jax: str = ""
  settings: dict[str, str] = dataclasses.field(default_factory=dict)
  sums: bool = False


@dataclasses.dataclass
class Restored:
  """A checkpoint.

  Attributes:
    state: the train state, NumPy arrays.
    info: see Info.
    damaged: (step, reason) of the checkpoints that were preferred to this one
      but cannot be read.
  """

  state: TrainState
  info: Info
  damaged: list[tuple[int, str]]


class Checkpoints:
  """The checkpoints of one work directory."""

  def __init__(self, workdir: str, write: bool = False):
    """Opens them; a directory without checkpoints is an empty collection.

    Args:
      workdir: the run's work directory.
      write: for the training process, which may save and tidy up: makes the
        directory and removes what a killed process left half-written.
    """
    self.directory = os.path.abspath(os.path.join(workdir, layout.CHECKPOINTS))
    self._stack = contextlib.ExitStack()
    if write:
      os.makedirs(self.directory, exist_ok=True)
      if jax.process_index() == 0:
        self._tidy()
    self._writer = self._stack.enter_context(_checkpointer())
    # Each process reads by itself: one that cannot keeps none waiting.
    self._reader = self._stack.enter_context(_checkpointer(
        primary_host=jax.process_index(), active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"reader_{jax.process_index()}"))
    self._orbax_directory = self._stack.enter_context(_literal(self.directory))

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self._stack.close()

  def steps(self) -> list[int]:
    """The steps of all checkpoints, ascending; some may be damaged."""
    try:
      names = os.listdir(self.directory)
    except (FileNotFoundError, NotADirectoryError):
      return []
    return sorted(
        int(name) for name in names
        if re.fullmatch("0|[1-9][0-9]*", name, re.ASCII))

  def path(self, step: int) -> str:
    """The directory of a checkpoint."""
    return os.path.join(self.directory, str(step))

  def ranking(self) -> list[tuple[float, int]]:
    """(validation nats per image, step) of the validated ones, best first."""
    return sorted(
        (nats, step) for step, nats in self._validations().items()
        if nats is not None)

  def save(
      self,
      step: int,
      state: TrainState,
      iterator: grain.DatasetIterator,
      validation_nats: float | None,
      data: str = "",
      accumulate: int = 1,
      settings: dict[str, str] | None = None,
  ) -> None:
    """Saves a checkpoint, then deletes all but the last two and the best.

    Nothing is deleted before the new one has been read back.

    Args:
      step: `state.step`, of which there is no checkpoint yet.
      state: on the host.
      iterator: of the training data; the next batch is that of the next step.
      validation_nats: see Info, as for those that follow.
      data: description.
      accumulate: parts of a device's batch.
      settings: that change the rounding.

    Raises:
      FileExistsError: there is a checkpoint of that step.
      OSError: it could not be written, or not be read back.
    """
    if os.path.lexists(self.path(step)):
      raise FileExistsError(
          f"There is a checkpoint of step {step} in {self.directory} already.")
    info = Info(
        validation_nats, jax.device_count(), jax.process_count(), data, accumulate,
        jax.devices()[0].device_kind, jax.__version__, settings or {},
        sums=True)
    new = f"new_{step}"
    self._writer.save(
        os.path.join(self._orbax_directory, new), force=True,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=grain_checkpoint.CheckpointSave(iterator),
            info=ocp.args.JsonSave(dataclasses.asdict(info)),
        ),
    )
    if jax.process_index() == 0:
      path = os.path.join(self.directory, new)
      sums = checkpoint_files.sums(path, checkpoint_files.sizes(path))
      files.write_text(os.path.join(path, SUMS), json.dumps(sums))
      self._check(new, state, info)
      os.rename(path, self.path(step))
      # What cannot be read just now may be the best one: it is not deleted.
      keep = self.steps()[-KEPT:] + [step for _, step in self.ranking()[:1]]
      for other in self._validations().keys() - set(keep):
        self._delete(other)
    if jax.process_count() > 1:  # the others look when that is done
      multihost_utils.sync_global_devices("saved")

  def set_validation(self, step: int, nats: float) -> None:
    """Adds the validation figure of a checkpoint that was saved without one.

    Args:
      step: of the checkpoint.
      nats: see Info.
    """
    if jax.process_index() == 0:
      path = self.path(step)
      files.write_text(
          os.path.join(path, VALIDATION), json.dumps({"validation_nats": nats}))
      sums = json.loads(files.read_text(os.path.join(path, SUMS)) or "null")
      if sums is not None:
        sums |= checkpoint_files.sums(path, [VALIDATION])
        files.write_text(os.path.join(path, SUMS), json.dumps(sums))
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("set_validation")

  def restore(
      self,
      template: TrainState,
      iterator: grain.DatasetIterator | None = None,
      which: str = "last",
  ) -> Restored:
    """The newest or the best checkpoint that is undamaged.

    A training that is at work in the directory may delete a checkpoint while it is
    being read: then this looks again.

    Args:
      template: a tree of arrays of the state's shapes and dtypes.
      iterator: is moved to the checkpoint's position, if given.
      which: `last` or `best` (lowest validation nats).

    Raises:
      InputError: there is none, or none that can be read, or the run had
        another number of processes. Nothing is deleted.
    """
    if which not in ("last", "best"):
      raise InputError(f"checkpoint={which!r}: must be 'last' or 'best'.")
    damaged = {}
    while True:
      present = self.steps()
      order = present[::-1]
      if which == "best":
        order = [step for _, step in self.ranking()]
      left = [step for step in order if step not in damaged]
      if left:
        step = left[0]
        try:
          state, info = self._read(step, template, iterator)
        except _Unreadable as error:
          if os.path.lexists(self.path(step)):
            damaged[step] = str(error)
        else:
          damaged = list(damaged.items())
          _report(damaged, step)
          return Restored(state, info, damaged)
      elif self.steps() == present:
        break
    if not damaged:
      raise InputError(self._none_message(which))
    raise InputError(
        f"No checkpoint in {self.directory} can be read: "
        + "; ".join(f"that of step {step}: {why}" for step, why in damaged.items())
        + ". Nothing was deleted. Restore the files from a copy, or train again"
        " in another --workdir."
    )

  def set_aside(self, restored: Restored) -> None:
    """Renames the damaged checkpoints, so that their steps can be saved again."""
    if jax.process_index() == 0:
      for step, _ in restored.damaged:
        path = os.path.join(self.directory, f"damaged_{step}")
        number = 1
        while os.path.lexists(path):
          number += 1
          path = os.path.join(self.directory, f"damaged_{step}_{number}")
        os.rename(self.path(step), path)
    if restored.damaged:  # the others look when that is done
      multihost_utils.sync_global_devices("set_aside")

  def _validations(self) -> dict[int, float | None]:
    """The validation nats of each step whose checkpoint says something about itself."""
    found = {}
    for step in self.steps():
      with contextlib.suppress(_Unreadable):  # `restore` says so where it matters
        found[step] = self._info(step).validation_nats
    return found

  def _tidy(self) -> None:
    """Removes what a killed process left half-written or half-deleted."""
    for entry in os.scandir(self.directory):
      if _LEFT_BEHIND.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)

  def _delete(self, step: int) -> None:
    """Deletes a checkpoint, which at no moment is there in part."""
    old = os.path.join(self.directory, f"old_{step}")
    os.rename(self.path(step), old)
    shutil.rmtree(old)

  def _check(self, name: str, state: TrainState, info: Info) -> None:
    """Reads a checkpoint that was just written and compares.

    Raises:
      OSError: it cannot be read, or is another one.
    """
    try:
      found = self._restore(name, state=_state_args(state))["state"]
      same = self._info(name) == info and all(
          a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
          for a, b in zip(
              jax.tree.leaves(found), jax.tree.leaves(state), strict=True))
    except _Unreadable as error:
      raise OSError(
          errno.EIO, f"the checkpoint just written cannot be read: {error}",
          os.path.join(self.directory, name)) from error
    if not same:
      raise OSError(
          errno.EIO, "the checkpoint just written holds something else",
          os.path.join(self.directory, name))

  def _none_message(self, which: str) -> str:
    if which == "best" and self.steps():
      return (
          f"No checkpoint in {self.directory} has a validation figure yet. Use"
          " the last one, or train until train.eval_every."
      )
    return (
        f"There is no checkpoint in {self.directory}: the run has not saved one"
        " yet. Train it first, with experiments/train.py."
    )

  def _restore(self, name: str | int, **args):
    """Items of a checkpoint, by Orbax.

    Raises:
      _Unreadable: Orbax, TensorStore, Grain or the system could not read it.
    """
    path = os.path.join(self._orbax_directory, str(name))
    with _unreadable():
      return self._reader.restore(path, args=ocp.args.Composite(**args))

  def _info(self, name: str | int) -> Info:
    """What a checkpoint says about itself.

    Raises:
      _Unreadable: it does not.
    """
    path = os.path.join(self.directory, str(name))
    try:
      checkpoint_files.sizes(path)  # nothing but files and folders
      info = self._restore(name, info=ocp.args.JsonRestore())["info"]
      if text := files.read_text(os.path.join(path, VALIDATION)):
        info |= json.loads(text)
      info = Info(**{
          field.name: info[field.name] for field in dataclasses.fields(Info)
          if field.name in info or _is_required(field)})
      if info.validation_nats is not None:
        info.validation_nats = float(info.validation_nats)
        if not math.isfinite(info.validation_nats):
          raise ValueError(f"validation_nats is {info.validation_nats}")
      return info
    except (ValueError, TypeError, KeyError, OverflowError, OSError) as error:
      raise _Unreadable(f"info: {type(error).__name__}: {error}"[:300]) from error

  def _read(self, step, template, iterator) -> tuple[TrainState, Info]:
    """A checkpoint's state and info; the iterator is moved.

    Raises:
      _Unreadable: it is damaged.
      InputError: it is that of another run.
    """
    if problem := checkpoint_files.problem(self.path(step)):
      raise _Unreadable(problem)
    info = self._info(step)
    if info.sums and not os.path.isfile(os.path.join(self.path(step), SUMS)):
      raise _Unreadable(f"{SUMS} is missing")
    if iterator is not None and info.processes != jax.process_count():
      raise InputError(
          f"The checkpoint {self.path(step)} is of a run with {info.processes}"
          f" processes, this one has {jax.process_count()}: the data each reads"
          " would differ. Start as many, or train in another --workdir."
      )
    path = os.path.join(self._orbax_directory, str(step))
    with _unreadable():
      if claim := checkpoint_files.false_claim(path, template):
        raise _Unreadable(claim)
    args = {"state": _state_args(template)}
    if iterator is not None:
      args["data"] = grain_checkpoint.CheckpointRestore(iterator)
    try:
      state = self._restore(step, **args)["state"]
    except _Unreadable as error:
      if _OTHER_TREE not in str(error.__cause__):
        raise
      raise InputError(self._other_config_message(
          step, "it has other parameters, as with another model.multi_scale or"
          " model.skip.")) from error
    for (path, wanted), found in zip(
        jax.tree.leaves_with_path(template), jax.tree.leaves(state), strict=True):
      if wanted.shape != found.shape:
        raise InputError(self._other_config_message(
            step, f"{jax.tree_util.keystr(path)} has the shape {found.shape}, the"
            f" config asks for {wanted.shape}."))
    return state, info

  def _other_config_message(self, step: int, difference: str) -> str:
    return (
        f"The checkpoint {self.path(step)} does not belong to the {layout.CONFIG}"
        f" beside it: {difference} Put back the {layout.CONFIG} that the run was"
        " trained with."
    )


class _Unreadable(Exception):
  """A checkpoint that cannot be read; the text says why."""


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
  """A context in which what Orbax and the system raise becomes _Unreadable.

  Files that are missing, damaged or something else have led to almost any exception.
  """
  try:
    yield
  except (_Unreadable, MemoryError, jax.errors.JaxRuntimeError):
    raise  # the last two are not the files' fault
  except Exception as error:
    text = str(error).strip().split("\n")[0][:300]
    raise _Unreadable(text or type(error).__name__) from error


def _checkpointer(**options) -> ocp.Checkpointer:
  """Orbax's checkpointer of several items, for processes as the options say."""
  options = ocp.options.MultiprocessingOptions(**options)
  return ocp.Checkpointer(
      ocp.CompositeCheckpointHandler(
          composite_options=ocp.CompositeOptions(multiprocessing_options=options)),
      multiprocessing_options=options)


def _state_args(state: TrainState) -> ocp.args.StandardRestore:
  """How Orbax reads a state of these shapes: to NumPy arrays."""
  return ocp.args.StandardRestore(
      jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state))


@contextlib.contextmanager
def _literal(directory: str) -> Iterator[str]:
  """A path to a directory in which no character is a wildcard.

  Orbax looks for files that it has just written by a pattern that begins with the
  path, and misses them below `runs/lr[1e-3]`.
  """
  if glob.escape(directory) == directory:
    yield directory
    return
  with tempfile.TemporaryDirectory(prefix="pixelrnn_jax_") as folder:
    link = os.path.join(folder, layout.CHECKPOINTS)
    os.symlink(directory, link)
    yield link


def _is_required(field: dataclasses.Field) -> bool:
  """Whether a dataclass has no default for the field."""
  return (field.default is dataclasses.MISSING
          and field.default_factory is dataclasses.MISSING)


def _report(damaged: list[tuple[int, str]], used: int) -> None:
  """Says which checkpoints were passed over."""
  if jax.process_index() == 0:
    for step, reason in damaged:
      print(
          f"warning: the checkpoint of step {step} is damaged: {reason}; going"
          f" back to that of step {used}.", file=sys.stderr,
      )
