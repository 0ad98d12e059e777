"""Checkpoints: the last two and the best, checked when they are read.

A checkpoint is a directory `checkpoints/STEP`, written by Orbax under another
name and renamed, so that a process killed at any moment leaves a whole one or
none. It holds the train state, the data iterator's position and a few facts
(`info`). Afterwards `sums.json`, the size and CRC of its files, is added: Orbax
notices most truncated files, but not a changed byte.
"""

import dataclasses
import json
import os
import sys
import zlib
from collections.abc import Iterator

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from grain import checkpoint as grain_checkpoint
from jax.experimental import multihost_utils

from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout
from pixelrnn_jax.runs.state import TrainState

KEPT = 2  # of the newest: where the last is damaged there is one before it
SUMS = "sums.json"
# What Orbax, TensorStore and Grain raise for files that are missing, truncated
# or hold something else (each file of a checkpoint was tried).
UNREADABLE = (ValueError, KeyError, OSError)
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
  """

  validation_nats: float | None
  devices: int
  processes: int
  # Older checkpoints do not have these.
  data: str = ""
  accumulate: int = 1
  device_kind: str = ""
  jax: str = ""


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
    if write:
      os.makedirs(self.directory, exist_ok=True)
    self._manager = None
    if os.path.isdir(self.directory):
      self._manager = ocp.CheckpointManager(
          self.directory,
          options=ocp.CheckpointManagerOptions(
              create=False, cleanup_tmp_directories=write,
              save_root_metadata=False, enable_async_checkpointing=False,
          ),
      )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    if self._manager is not None:
      self._manager.close()

  def steps(self) -> list[int]:
    """The steps of all checkpoints, ascending; some may be damaged."""
    return sorted(self._manager.all_steps()) if self._manager else []

  def path(self, step: int) -> str:
    """The directory of a checkpoint."""
    return os.path.join(self.directory, str(step))

  def ranking(self) -> list[tuple[float, int]]:
    """(validation nats per image, step) of the validated ones, best first."""
    ranking = []
    for step in self.steps():
      try:
        nats = self._info(step).validation_nats
      except UNREADABLE:
        continue  # `restore` says so where it matters
      if nats is not None:
        ranking.append((nats, step))
    return sorted(ranking)

  def save(
      self,
      step: int,
      state: TrainState,
      iterator: grain.DatasetIterator,
      validation_nats: float | None,
      data: str = "",
      accumulate: int = 1,
  ) -> None:
    """Saves a checkpoint, then deletes all but the last two and the best.

    Args:
      step: `state.step`; a checkpoint of that step is replaced.
      state: on the host.
      iterator: of the training data; the next batch is that of the next step.
      validation_nats: see Info, as for those that follow.
      data: description.
      accumulate: parts of a device's batch.
    """
    info = Info(
        validation_nats, jax.device_count(), jax.process_count(), data, accumulate,
        jax.devices()[0].device_kind, jax.__version__)
    if step in self.steps():
      self._manager.delete(step)
    self._manager.save(
        step, force=True,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=grain_checkpoint.CheckpointSave(iterator),
            info=ocp.args.JsonSave(dataclasses.asdict(info)),
        ),
    )
    if jax.process_index() == 0:
      path = self.path(step)
      files.write_text(
          os.path.join(path, SUMS), json.dumps(_sums(path, _names(path))))
    keep = self.steps()[-KEPT:] + [step for _, step in self.ranking()[:1]]
    for step in set(self.steps()) - set(keep):
      self._manager.delete(step)

  def restore(
      self,
      template: TrainState,
      iterator: grain.DatasetIterator | None = None,
      which: str = "last",
  ) -> Restored:
    """The newest or the best checkpoint that is undamaged.

    Args:
      template: a tree of arrays of the state's shapes and dtypes.
      iterator: is moved to the checkpoint's position, if given.
      which: `last` or `best` (lowest validation nats).

    Raises:
      InputError: there is none, or none that can be read, or the run had
        another number of processes. Nothing is deleted.
    """
    if which == "best":
      steps = [step for _, step in self.ranking()]
    elif which == "last":
      steps = self.steps()[::-1]
    else:
      raise InputError(f"checkpoint={which!r}: must be 'last' or 'best'.")
    if not steps:
      raise InputError(self._none_message(which))
    damaged = []
    for step in steps:
      problem = _problem(self.path(step))
      if not problem:
        try:
          state, info = self._read(step, template, iterator)
        except InputError:
          raise
        except UNREADABLE as error:
          problem = str(error).strip().split("\n")[0][:300]
      if not problem:
        _report(damaged, step)
        return Restored(state, info, damaged)
      damaged.append((step, problem))
    raise InputError(
        f"No checkpoint in {self.directory} can be read: "
        + "; ".join(f"that of step {step}: {reason}" for step, reason in damaged)
        + ". Nothing was deleted. Restore the files from a copy, or train again"
        " in another --workdir."
    )

  def set_aside(self, restored: Restored) -> None:
    """Renames the damaged checkpoints, so that their steps can be saved again."""
    if jax.process_index() == 0:
      for step, _ in restored.damaged:
        path = os.path.join(self.directory, f"damaged_{step}")
        number = 1
        while os.path.exists(path):
          number += 1
          path = os.path.join(self.directory, f"damaged_{step}_{number}")
        os.rename(self.path(step), path)
    if restored.damaged:  # the others look when that is done
      multihost_utils.sync_global_devices("set_aside")
    self._manager.reload()

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

  def _info(self, step: int) -> Info:
    args = ocp.args.Composite(info=ocp.args.JsonRestore())
    info = self._manager.restore(step, args=args)["info"]
    return Info(**{
        field.name: info[field.name] for field in dataclasses.fields(Info)
        if field.name in info or field.default is dataclasses.MISSING})

  def _read(self, step, template, iterator) -> tuple[TrainState, Info]:
    info = self._info(step)
    if iterator is not None and info.processes != jax.process_count():
      raise InputError(
          f"The checkpoint {self.path(step)} is of a run with {info.processes}"
          f" processes, this one has {jax.process_count()}: the data each reads"
          " would differ. Start as many, or train in another --workdir."
      )
    args = {"state": ocp.args.StandardRestore(
        jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template))}
    if iterator is not None:
      args["data"] = grain_checkpoint.CheckpointRestore(iterator)
    try:
      restored = self._manager.restore(step, args=ocp.args.Composite(**args))
    except ValueError as error:
      if _OTHER_TREE not in str(error):
        raise
      raise InputError(self._other_config_message(
          step, "it has other parameters, as with another model.multi_scale or"
          " model.skip.")) from error
    state = restored["state"]
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


def _report(damaged: list[tuple[int, str]], used: int) -> None:
  """Says which checkpoints were passed over."""
  if jax.process_index() == 0:
    for step, reason in damaged:
      print(
          f"warning: the checkpoint of step {step} is damaged: {reason}; going"
          f" back to that of step {used}.", file=sys.stderr,
      )


def _names(path: str) -> Iterator[str]:
  """The files below `path`, relative to it."""
  for folder, _, names in os.walk(path):
    for name in names:
      yield os.path.relpath(os.path.join(folder, name), path)


def _sums(path: str, names) -> dict[str, list[int]]:
  """[size, CRC-32] of each file."""
  sums = {}
  for name in names:
    crc = size = 0
    with open(os.path.join(path, name), "rb") as file:
      while block := file.read(1 << 20):
        crc = zlib.crc32(block, crc)
        size += len(block)
    sums[name] = [size, crc]
  return sums


def _problem(path: str) -> str:
  """What is wrong with a checkpoint's files; "" if nothing is known to be."""
  sums_path = os.path.join(path, SUMS)
  if not os.path.exists(sums_path):
    return ""  # killed between the checkpoint and its sums: Orbax will see
  try:
    with open(sums_path, encoding="utf-8") as file:
      expected = [(n, size, crc) for n, (size, crc) in json.load(file).items()]
  except (ValueError, TypeError, AttributeError):
    return f"{SUMS} is truncated or has changed"
  for name, size, crc in expected:
    if not os.path.exists(os.path.join(path, name)):
      return f"{name} is missing"
    found = _sums(path, [name])[name]
    if found[0] != size:
      return f"{name} is truncated: {found[0]} bytes instead of {size}"
    if found[1] != crc:
      return f"{name} has changed since it was written"
  return ""
