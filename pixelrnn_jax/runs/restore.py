"""A trained run, from its work directory, or a model of the package by its name."""

import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from pixelrnn_jax import arguments, data, files
from pixelrnn_jax.configs.json_text import from_json
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models import Model, build_model
from pixelrnn_jax.runs import layout, pretrained
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.state import TrainState


@dataclasses.dataclass
class Run:
  """A trained model.

  Attributes:
    config: the configuration of the run.
    model: see `build_model`.
    params: the parameters of the checkpoint, on the default device.
    step: the step of the checkpoint.
    data: description of the images that it was trained on; "" if it is not known.
  """

  config: Config
  model: Model
  params: Any
  step: int
  data: str = ""


def read_config(workdir: str) -> Config:
  """Return the configuration that a run was started with.

  Raises:
    InputError: there is no such directory, no `config.json` in it, or no configuration
      in that.
  """
  name = workdir
  workdir = files.expand(workdir)
  if not os.path.isdir(workdir):
    if pretrained.is_name(name):
      raise InputError(
          f"{name!r} is a model in the package. This needs a run, with its metrics."
          " Give the --workdir of a run of experiments/train.py.")
    raise InputError(
        f"There is no work directory {workdir!r}. Give the --workdir of a run of"
        " experiments/train.py, or the name of a model in the package:"
        f" {', '.join(pretrained.NAMES)}."
    )
  path = os.path.join(workdir, layout.CONFIG)
  if not os.path.isfile(path):
    raise InputError(
        f"{workdir!r} holds no {layout.CONFIG}, so it is not the work directory of"
        " a run. Give the --workdir of a run of experiments/train.py."
    )
  try:
    return from_json(files.read_text(path))
  except InputError as error:
    raise InputError(f"{path} is damaged: {error}") from error


def find_config(workdir: str) -> Config:
  """Return the configuration of a run, or of a model in the package by its name.

  Raises:
    InputError: see `read_config`; or the name may be either.
  """
  if pretrained.is_name(workdir):
    return pretrained.read(workdir).config
  return read_config(workdir)


def load_run(workdir: str, which: str = "last") -> Run:
  """Return a trained run with its step; see `restore`."""
  if pretrained.is_name(workdir):
    if which != "last":
      raise InputError(
          f"checkpoint={which!r}: the packaged model {workdir!r} is a single set of"
          " parameters. Leave the checkpoint out."
      )
    trained = pretrained.read(workdir)
    return Run(
        trained.config, build_model(trained.config.model),
        jax.tree.map(jnp.asarray, trained.params), trained.step)
  config = read_config(workdir)
  model = build_model(config.model)
  template = TrainState(
      arguments.parameter_shapes(cast(Any, model)), None,
      jax.ShapeDtypeStruct((), jnp.int32))
  with Checkpoints(files.expand(workdir)) as checkpoints:
    restored = checkpoints.restore(template, which=which)
  params = jax.tree.map(jnp.asarray, restored.state.params)
  return Run(config, model, params, int(restored.state.step), restored.info.data)


def load_images(
    run: Run, split: str, moved: Mapping[str, str] | None = None
) -> data.ImageSource:
  """Return the images of a split of a run's data.

  The run may come from anybody, so nothing is written to a place that its config names.
  If the images are not those that it was trained on, a note is printed.

  Args:
    run: from `load_run`.
    split: `test`, `validation` or `train`.
    moved: `source` and `data_dir` of DataConfig, if the data has moved.

  Raises:
    InputError: see `data.load_source`.
  """
  config = dataclasses.replace(
      run.config, data=dataclasses.replace(run.config.data, **(moved or {})))
  config.validate()
  source = data.load_source(config, split, writes="data_dir" in (moved or {}))
  if not data.same_images(run.data, source.description) and jax.process_index() == 0:
    print(
        f"note: the run was trained on other images: {run.data}. These are"
        f" {source.description}.", file=sys.stderr)
  return source


def restore(
    workdir: str | os.PathLike, which: str = "last"
) -> tuple[Config, Model, dict]:
  """Return a trained run.

      config, model, variables = restore("runs/quickstart")
      config, model, variables = restore("mnist")    # comes with the package

  If a checkpoint is damaged, a warning is printed and the next good one is used.

  Args:
    workdir: the work directory of the run, or the name of a model in the package,
      "mnist" or "photos".
    which: `last`, or `best` for the lowest validation NLL.

  Returns:
    The configuration, the model, and variables, {"params": ...}.

  Raises:
    InputError: there is no such directory, or no `config.json` or no readable
      checkpoint in it; the name may be either; or the call is inside `jax.jit`.
  """
  arguments.check_on_host("restore", reason="it reads files")
  run = load_run(arguments.path("workdir", workdir), which)
  return run.config, run.model, {"params": run.params}
