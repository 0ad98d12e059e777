"""Checkpoints: the last two and the best, checked when they are read.

A checkpoint is a directory `checkpoints/STEP`. `checkpoint_items.py` lists its content.
Beside that, `sums.json` has the size and the CRC of each of its files, because Orbax
notices most truncated files, but not a changed byte.

A directory of that name is whole at every moment. So a killed process leaves no broken
checkpoint, and a process may read while another one trains:

- A checkpoint is written as `new_STEP`, read back, compared, and only then renamed.
- It is renamed to `old_STEP` before it is deleted. Others are deleted only after the
  new one exists.
- It is never written anew. A validation that comes later adds one small file.
"""

import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
import sys

import grain
import jax
import numpy as np
from jax.experimental import multihost_utils

from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import checkpoint_files, layout
from pixelrnn_jax.runs.checkpoint_files import SUMS
from pixelrnn_jax.runs.checkpoint_items import (
  VALIDATION,
  CheckpointItems,
  Info,
  OtherConfig,
  Unreadable,
)
from pixelrnn_jax.runs.state import TrainState

KEPT = 2  # newest checkpoints that are kept, so that a damaged one has a predecessor
# Names that a killed process leaves behind: those above, and Orbax's own.
_LEFT_BEHIND = re.compile(
    r"(new|old)_[0-9]+|(new_)?[0-9]+\.orbax-checkpoint-tmp.*", re.ASCII)


@dataclasses.dataclass
class Restored:
  """A checkpoint.

  Attributes:
    state: the train state, NumPy arrays.
    info: see Info.
    damaged: (step, reason) of the checkpoints that were preferred to this one, but
      cannot be read.
  """

  state: TrainState
  info: Info
  damaged: list[tuple[int, str]]


class Checkpoints:
  """The checkpoints of one work directory."""

  def __init__(self, workdir: str, write: bool = False):
    """Open them; a directory without checkpoints is an empty collection.

    Args:
      workdir: the run's work directory.
      write: whether this is the training, which may save and tidy up. It makes the
        directory, and removes half-written checkpoints of a killed process.
    """
    self.directory = os.path.abspath(os.path.join(workdir, layout.CHECKPOINTS))
    if write:
      os.makedirs(self.directory, exist_ok=True)
      if jax.process_index() == 0:
        self._tidy()
    self._items = CheckpointItems(self.directory)

  def __enter__(self) -> "Checkpoints":
    """Return itself."""
    return self

  def __exit__(self, *_) -> None:
    """Close what Orbax has open."""
    self._items.__exit__()

  def steps(self) -> list[int]:
    """Return the steps of all checkpoints, ascending; some may be damaged."""
    try:
      names = os.listdir(self.directory)
    except (FileNotFoundError, NotADirectoryError):
      return []
    # A longer number is no step: the train state counts in 32 bits.
    return sorted(
        int(name) for name in names
        if re.fullmatch("0|[1-9][0-9]{0,8}", name, re.ASCII))

  def path(self, step: int) -> str:
    """Return the directory of a checkpoint."""
    return os.path.join(self.directory, str(step))

  def ranking(self) -> list[tuple[float, int]]:
    """Return (validation nats per image, step) of validated ones, best first."""
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
    """Save a checkpoint, then delete all but the last two and the best.

    Nothing is deleted before the new one has been read back.

    Args:
      step: `state.step`. There must be no checkpoint of that step.
      state: on the host.
      iterator: the iterator of the training data. Its next batch is that of the next
        step.
      validation_nats: see Info.
      data: see Info.
      accumulate: see Info.
      settings: see Info.

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
    self._items.save(new, state, iterator, info)
    if jax.process_index() == 0:
      path = os.path.join(self.directory, new)
      sums = checkpoint_files.sums(path, checkpoint_files.sizes(path))
      files.write_text(os.path.join(path, SUMS), json.dumps(sums))
      self._check(new, state, info)
      os.rename(path, self.path(step))
      # A checkpoint that cannot be read just now may be the best one. It has no
      # validation here, so it is not deleted.
      keep = self.steps()[-KEPT:] + [step for _, step in self.ranking()[:1]]
      for other in self._validations().keys() - set(keep):
        self._delete(other)
    if jax.process_count() > 1:  # the other processes wait until that is done
      multihost_utils.sync_global_devices("saved")

  def set_validation(self, step: int, nats: float) -> None:
    """Add the validation figure of a checkpoint that was saved without one.

    Args:
      step: the step of the checkpoint.
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
    """Return the newest or the best checkpoint that is undamaged.

    A training at work in the directory may delete a checkpoint while it is being read.
    Then the checkpoints are listed again.

    Args:
      template: a tree of arrays, or shapes, of the state's shapes and dtypes. If its
        `opt_state` is None, only the parameters are read.
      iterator: moved to the checkpoint's position, if given.
      which: `last` or `best` (lowest validation nats).

    Raises:
      InputError: there is none, or none that can be read, or the run had another number
        of processes. Nothing is deleted.
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
        except Unreadable as error:
          if os.path.lexists(self.path(step)):
            damaged[step] = str(error)
        else:
          passed_over = list(damaged.items())
          _report(passed_over, step)
          return Restored(state, info, passed_over)
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
    """Rename the damaged checkpoints, so that their steps can be saved again."""
    if jax.process_index() == 0:
      for step, _ in restored.damaged:
        path = os.path.join(self.directory, f"damaged_{step}")
        number = 1
        while os.path.lexists(path):
          number += 1
          path = os.path.join(self.directory, f"damaged_{step}_{number}")
        os.rename(self.path(step), path)
    if restored.damaged:  # the other processes wait until that is done
      multihost_utils.sync_global_devices("set_aside")

  def _validations(self) -> dict[int, float | None]:
    """Return the validation nats of each step whose checkpoint has a readable info."""
    found = {}
    for step in self.steps():
      with contextlib.suppress(Unreadable):  # `restore` tells the user if it matters
        found[step] = self._items.info(step).validation_nats
    return found

  def _tidy(self) -> None:
    """Remove half-written and half-deleted checkpoints of a killed process."""
    for entry in os.scandir(self.directory):
      if _LEFT_BEHIND.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)

  def _delete(self, step: int) -> None:
    """Delete a checkpoint, which is renamed first; its name never has a part of it."""
    old = os.path.join(self.directory, f"old_{step}")
    os.rename(self.path(step), old)
    shutil.rmtree(old)

  def _check(self, name: str, state: TrainState, info: Info) -> None:
    """Read a checkpoint that was just written, and compare.

    Raises:
      OSError: it cannot be read, or holds something else.
    """
    try:
      found = self._items.state(name, state)
      same = self._items.info(name) == info and all(
          a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
          for a, b in zip(
              jax.tree.leaves(found), jax.tree.leaves(state), strict=True))
    except (Unreadable, OtherConfig) as error:
      raise OSError(
          errno.EIO, f"the checkpoint just written cannot be read: {error}",
          os.path.join(self.directory, name)) from error
    if not same:
      raise OSError(
          errno.EIO, "the checkpoint just written holds something else",
          os.path.join(self.directory, name))

  def _none_message(self, which: str) -> str:
    """Return the message for a directory without a checkpoint of that kind."""
    if which == "best" and self.steps():
      return (
          f"No checkpoint in {self.directory} has a validation figure yet. Use"
          " the last one, or train until train.eval_every."
      )
    return (
        f"There is no checkpoint in {self.directory}: the run has not saved one"
        " yet. Train it first, with experiments/train.py."
    )

  def _read(
      self, step: int, template: TrainState, iterator: grain.DatasetIterator | None
  ) -> tuple[TrainState, Info]:
    """Return a checkpoint's state and info, and move the iterator.

    Raises:
      Unreadable: it is damaged.
      InputError: it is that of another run.
    """
    if problem := checkpoint_files.problem(self.path(step)):
      raise Unreadable(problem)
    info = self._items.info(step)
    if info.sums and not os.path.isfile(os.path.join(self.path(step), SUMS)):
      raise Unreadable(f"{SUMS} is missing")
    if iterator is not None and info.processes != jax.process_count():
      raise InputError(
          f"The checkpoint {self.path(step)} is of a run with {info.processes}"
          f" processes, this one has {jax.process_count()}: the data each reads"
          " would differ. Start as many, or train in another --workdir."
      )
    try:
      return self._items.state(step, template, iterator), info
    except OtherConfig as error:
      raise InputError(
          f"The checkpoint {self.path(step)} does not belong to the {layout.CONFIG}"
          f" beside it: {error} Put back the {layout.CONFIG} that the run was trained"
          " with."
      ) from error


def _report(damaged: list[tuple[int, str]], used: int) -> None:
  """Print which checkpoints were passed over, on process 0."""
  if jax.process_index() == 0:
    for step, reason in damaged:
      print(
          f"warning: the checkpoint of step {step} is damaged: {reason}; going"
          f" back to that of step {used}.", file=sys.stderr,
      )
