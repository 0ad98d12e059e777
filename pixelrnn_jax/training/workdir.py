"""Who may train in a work directory: a run of the same config, one at a time."""

import contextlib
import os
from collections.abc import Iterator

import jax

from pixelrnn_jax import files
from pixelrnn_jax.configs.fields import changed_fields
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout
from pixelrnn_jax.runs.restore import read_config
from pixelrnn_jax.training import parallel


def check_workdir(config: Config, workdir: str) -> None:
  """Raise InputError unless a run of this config can use the directory.

  Args:
    config: the experiment.
    workdir: the directory, which exists or not.
  """
  if part := files.unwritable_part(workdir):
    raise InputError(
        f"--workdir={workdir}: {part!r} is not a directory that can be written"
        " to. Use another --workdir."
    )
  if not os.path.exists(os.path.join(workdir, layout.CONFIG)):
    for name in (layout.CHECKPOINTS, layout.METRICS, layout.EVALUATION):
      if os.path.exists(os.path.join(workdir, name)):
        raise InputError(
            f"--workdir={workdir} holds {name} but no {layout.CONFIG}, so nobody"
            " can tell what was trained there. Use another --workdir."
        )
    return
  old = read_config(workdir)
  if old.data.source.startswith("folder:") and config.data.source.startswith("folder:"):
    old.data.source = config.data.source  # the loop compares the pixels' digests
  if old.train.steps < config.train.steps:
    old.train.steps = config.train.steps
  changes = changed_fields(old, config, lambda f: not f.metadata.get("resumable"))
  if changes:
    raise InputError(
        f"--workdir={workdir} belongs to another config: {'; '.join(changes)}."
        " Use another --workdir for this config, or the old values to go on."
        " train.steps may grow. train.scale, data.augmentation, optimizer.decay_steps"
        " and fields that alter no parameter may change."
    )


@contextlib.contextmanager
def alone_in(workdir: str) -> Iterator[None]:
  """Hold a work directory, which one training of this machine can do at a time.

  If there are several processes, the first one holds it for all.

  Args:
    workdir: the directory, which is made if it does not exist.

  Raises:
    InputError: another training holds it, or it cannot be used.
  """
  with contextlib.ExitStack() as stack:
    with parallel.together():
      if jax.process_index() == 0:
        try:
          os.makedirs(workdir, exist_ok=True)
          stack.enter_context(
              files.hold_lock(os.path.join(workdir, layout.LOCK), wait=False))
        except files.LockHeld as held:
          raise InputError(
              f"--workdir={workdir} is in use by another training ({held}). Wait for"
              " it, stop it, or use another --workdir."
          ) from held
        except OSError as error:
          raise InputError(
              f"--workdir={workdir} cannot be used:"
              f" {files.describe(error) or error}. Mend that, or use another"
              " --workdir."
          ) from error
    yield
