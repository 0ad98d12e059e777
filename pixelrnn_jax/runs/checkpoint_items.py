"""The content of a checkpoint, as Orbax's items.

| item        | content                                                            |
|-------------|--------------------------------------------------------------------|
| `params`    | the parameters; sampling and evaluation read nothing else          |
| `optimizer` | the optimiser's state and the number of steps                      |
| `data`      | the position of the data iterator                                  |
| `info`      | a record about the checkpoint; see `Info`                          |

Older checkpoints have one item `state`, the whole train state, in place of the first
two. They are read as well.
"""

import contextlib
import dataclasses
import glob
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from grain import checkpoint as grain_checkpoint

from pixelrnn_jax import files
from pixelrnn_jax.configs.checks import required_fields
from pixelrnn_jax.runs import checkpoint_files, layout
from pixelrnn_jax.runs.state import TrainState

VALIDATION = "validation.json"  # a figure that came after the checkpoint
_PARAMS, _OPTIMIZER, _OLD_STATE = "params", "optimizer", "state"
# Orbax's words for a checkpoint that is whole but holds other names.
_OTHER_TREE = "tree structures do not match"


class Unreadable(Exception):
  """A checkpoint that cannot be read; the text says why."""


class OtherConfig(Exception):
  """A checkpoint that is whole but of another configuration; the text says how."""


@dataclasses.dataclass
class Info:
  """A record about a checkpoint.

  Attributes:
    validation_nats: nats per image at this step; None if they were not measured.
    devices: number of devices of the run.
    processes: number of processes of the run.
    data: description of the images that it was trained on.
    accumulate: parts of a device's batch; see TrainConfig.
    device_kind: the kind of the first device.
    jax: the version of JAX.
    settings: other settings that change the rounding, by name; see
      `parallel.settings`.
    sums: whether the checkpoint had its `sums.json` from the start.
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


class CheckpointItems:
  """The items of the checkpoints in a directory, written and read by Orbax."""

  def __init__(self, directory: str):
    """Open Orbax's checkpointers; use the object as a context.

    Args:
      directory: the directory of the checkpoints.
    """
    self.directory = directory
    self._stack = contextlib.ExitStack()
    self._writer = self._stack.enter_context(_checkpointer())
    # Each process reads by itself, so that a process that cannot read keeps no other
    # one waiting.
    self._reader = self._stack.enter_context(_checkpointer(
        primary_host=jax.process_index(), active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"reader_{jax.process_index()}"))
    self._orbax_directory = self._stack.enter_context(_literal(directory))

  def __enter__(self) -> "CheckpointItems":
    """Return itself."""
    return self

  def __exit__(self, *_) -> None:
    """Close Orbax's checkpointers."""
    self._stack.close()

  def save(
      self, name: str, state: TrainState, iterator: grain.DatasetIterator, info: Info
  ) -> None:
    """Write a checkpoint of that name; all processes must call it.

    Raises:
      OSError: it could not be written.
    """
    with _late_failures_are_silent():
      self._writer.save(
          os.path.join(self._orbax_directory, name), force=True,
          args=ocp.args.Composite(
              **{item: ocp.args.StandardSave(tree)
                 for item, tree in _state_items(state).items()},
              data=grain_checkpoint.CheckpointSave(iterator),
              info=ocp.args.JsonSave(dataclasses.asdict(info)),
          ),
      )

  def info(self, name: str | int) -> Info:
    """Return the record about a checkpoint.

    Raises:
      Unreadable: it is missing or damaged.
    """
    path = os.path.join(self.directory, str(name))
    try:
      checkpoint_files.sizes(path)  # nothing but files and folders
      info = self._restore(name, info=ocp.args.JsonRestore())["info"]
      if text := files.read_text(os.path.join(path, VALIDATION)):
        info |= json.loads(text)
      required = required_fields(Info)
      info = Info(**{
          field.name: info[field.name] for field in dataclasses.fields(Info)
          if field.name in info or field.name in required})
      _check_info(info)
      return info
    except (
        ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError
    ) as error:
      raise Unreadable(f"info: {type(error).__name__}: {error}"[:300]) from error

  def state(
      self, name: str | int, template: TrainState,
      iterator: grain.DatasetIterator | None = None,
  ) -> TrainState:
    """Return the train state of a checkpoint, NumPy arrays.

    Args:
      name: the name of the checkpoint, which `checkpoint_files.problem` has looked at.
      template: a tree of arrays, or shapes, of the state's shapes and dtypes. If its
        `opt_state` is None, only the parameters are read.
      iterator: moved to the checkpoint's position, if given.

    Raises:
      Unreadable: it is damaged.
      OtherConfig: it has other arrays than the template.
    """
    args = {}
    if iterator is not None:
      args["data"] = grain_checkpoint.CheckpointRestore(iterator)
    try:
      if os.path.isdir(os.path.join(self.directory, str(name), _OLD_STATE)):
        state = self._old_state(name, template, args)
      else:
        state = self._state(name, template, args)
    except Unreadable as error:
      if _OTHER_TREE not in str(error.__cause__):
        raise
      raise OtherConfig(
          "it has other parameters, as with another model.multi_scale or model.skip."
      ) from error
    for (path, wanted), found in zip(
        jax.tree.leaves_with_path(template), jax.tree.leaves(state), strict=True):
      if wanted.shape != found.shape:
        raise OtherConfig(
            f"{jax.tree_util.keystr(path)} has the shape {found.shape}, the config asks"
            f" for {wanted.shape}.")
    return state

  def _state(
      self, name: str | int, template: TrainState, args: dict[str, Any]
  ) -> TrainState:
    """Return the state of a checkpoint that has the items above."""
    templates = _state_items(template)
    for item, tree in templates.items():
      self._check_claims(name, item, tree)
    found = self._restore(name, **args, **{
        item: ocp.args.StandardRestore(_zeros(tree))
        for item, tree in templates.items()})
    if _OPTIMIZER not in templates:
      # A checkpoint is named after its step.
      return TrainState(found[_PARAMS], None, np.asarray(int(name), np.int32))
    rest = found[_OPTIMIZER]
    return TrainState(found[_PARAMS], rest["opt_state"], rest["step"])

  def _old_state(
      self, name: str | int, template: TrainState, args: dict[str, Any]
  ) -> TrainState:
    """Return the state of an older checkpoint, whose state is one item."""
    if template.opt_state is not None:
      self._check_claims(name, _OLD_STATE, template)
      args[_OLD_STATE] = ocp.args.StandardRestore(_zeros(template))
      return self._restore(name, **args)[_OLD_STATE]
    # An optimiser has at most three arrays for each parameter.
    path = self._check_claims(name, _OLD_STATE, [template.params] * 4)
    with _unreadable():
      tree = checkpoint_files.arrays(path)
    args[_OLD_STATE] = ocp.args.StandardRestore(_zeros(tree))
    found = self._restore(name, **args)[_OLD_STATE]
    if jax.tree.structure(found["params"]) != jax.tree.structure(template.params):
      raise OtherConfig("it has other parameters.")
    return TrainState(found["params"], None, found["step"])

  def _check_claims(self, name: str | int, item: str, tree: Any) -> str:
    """Raise Unreadable if an item claims too many bytes; return its path."""
    path = os.path.join(self._orbax_directory, str(name))
    with _unreadable():
      if claim := checkpoint_files.false_claim(path, item, tree):
        raise Unreadable(claim)
    return os.path.join(path, item)

  def _restore(self, name: str | int, **args) -> Any:
    """Return items of a checkpoint, by Orbax.

    Raises:
      Unreadable: Orbax, TensorStore, Grain or the system could not read it.
    """
    path = os.path.join(self._orbax_directory, str(name))
    with _unreadable():
      return self._reader.restore(path, args=ocp.args.Composite(**args))


def _check_info(info: Info) -> None:
  """Raise ValueError for fields of other types: the info may come from anybody."""
  nats = info.validation_nats
  if nats is not None:
    info.validation_nats = nats = float(nats)
  info.settings = settings = dict(info.settings)
  numbers = (info.devices, info.processes, info.accumulate)
  texts = (info.data, info.device_kind, info.jax, *settings, *settings.values())
  if not (
      (nats is None or math.isfinite(nats))
      and all(type(x) is int and x > 0 for x in numbers)
      and all(type(x) is str for x in texts) and type(info.sums) is bool):
    raise ValueError("a field has a value that it cannot have")


def _state_items(state: TrainState) -> dict[str, Any]:
  """Return the items that hold a state: `params` and, if it has one, `optimizer`."""
  items = {_PARAMS: state.params}
  if state.opt_state is not None:
    items[_OPTIMIZER] = {"opt_state": state.opt_state, "step": state.step}
  return items


def _zeros(tree: Any) -> Any:
  """Return zeros of the shapes in a tree; Orbax then reads to NumPy arrays."""
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
  """Turn exceptions of Orbax and the system into Unreadable.

  Files that are missing, damaged or of another kind have led to almost any exception.
  """
  try:
    yield
  except (Unreadable, MemoryError, jax.errors.JaxRuntimeError):
    raise  # the last two are not the files' fault
  except Exception as error:
    text = str(error).strip().split("\n")[0][:300]
    raise Unreadable(text or type(error).__name__) from error


@contextlib.contextmanager
def _late_failures_are_silent() -> Iterator[None]:
  """Print no traceback of writes that fail after the first one has failed.

  Orbax starts all writes at once. It closes its event loop when one of them fails, and
  that one is raised here. TensorStore's threads then cannot tell the loop about the
  others, some of which fail only after the program has given its message. So the hook
  stays after a failure.
  """
  before = sys.unraisablehook

  def hook(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
      before(unraisable)

  sys.unraisablehook = hook
  yield
  sys.unraisablehook = before


def _checkpointer(**options) -> ocp.Checkpointer:
  """Return Orbax's checkpointer of several items, with options about processes."""
  processes = ocp.options.MultiprocessingOptions(**options)
  # A directory that cannot be made in the background is waited for, for ten minutes.
  at_once = ocp.options.AsyncOptions(create_directories_asynchronously=False)
  return ocp.Checkpointer(
      ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(
          multiprocessing_options=processes, async_options=at_once)),
      multiprocessing_options=processes)


@contextlib.contextmanager
def _literal(directory: str) -> Iterator[str]:
  """Yield a path to a directory in which no character is a wildcard.

  Orbax looks for files that it has just written by a pattern that begins with the path,
  and misses them below `runs/lr[1e-3]`.
  """
  if glob.escape(directory) == directory:
    yield directory
    return
  with tempfile.TemporaryDirectory(prefix="pixelrnn_jax_") as folder:
    link = os.path.join(folder, layout.CHECKPOINTS)
    os.symlink(directory, link)
    yield link
