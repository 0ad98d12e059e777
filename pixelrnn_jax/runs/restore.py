"""A trained run, from its work directory, or a model of the package by its name."""

import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixelrnn_jax import arguments, data, files
from pixelrnn_jax.configs.schema import Config, from_json
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs import layout, pretrained
from pixelrnn_jax.runs.checkpoint import Checkpoints
from pixelrnn_jax.runs.optimizer import make_optimizer
from pixelrnn_jax.runs.state import init_state


@dataclasses.dataclass
class Run:
  """A trained model.

  Attributes:
    config: of the run.
    model: see `build_model`.
    params: of the checkpoint, on the default device.
    step: of the checkpoint.
    data: description of the images that it was trained on; "" if it is not known.
  """

  config: Config
  model: nn.Module
  params: Any
  step: int
  data: str = ""


def read_config(workdir: str) -> Config:
  """The configuration that a run was started with.

  Raises:
    InputError: there is no such directory, no `config.json` in it, or it
      holds no configuration.
  """
  workdir = files.expand(workdir)
  if not os.path.isdir(workdir):
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
  """The configuration of a run, or of a model in the package by its name.

  Raises:
    InputError: as `read_config`; or a name that may be either.
  """
  if pretrained.is_name(workdir):
    return pretrained.read(workdir).config
  return read_config(workdir)


def load_run(workdir: str, which: str = "last") -> Run:
  """`restore` with the checkpoint's step; see there."""
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
  optimizer = make_optimizer(config.optimizer, config.train.steps)
  template = jax.eval_shape(
      lambda key: init_state(model, optimizer, key, config.model.image_shape),
      jax.random.key(0),
  )
  with Checkpoints(files.expand(workdir)) as checkpoints:
    restored = checkpoints.restore(template, which=which)
  params = jax.tree.map(jnp.asarray, restored.state.params)
  return Run(config, model, params, int(restored.state.step), restored.info.data)


def load_images(
    run: Run, split: str, moved: Mapping[str, str] | None = None
) -> data.ImageSource:
  """The images of a split of a run's data.

  The run may come from anybody: nothing is written where its config says. Where the
  images are not those that it was trained on, that is said.

  Args:
    run: from `load_run`.
    split: `test`, `validation` or `train`.
    moved: where the data is now, if it has moved: `source` and `data_dir`, see
      DataConfig.

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
) -> tuple[Config, nn.Module, dict]:
  """A trained run.

      config, model, variables = restore("runs/quickstart")
      config, model, variables = restore("mnist")    # comes with the package

  Where a checkpoint is damaged, a warning is printed and the next good one is
  used.

  Args:
    workdir: of the run, or the name of a model in the package, "mnist".
    which: `last`, or `best` for the lowest validation NLL.

  Returns:
    The configuration, the model, and variables, {"params": ...}.

  Raises:
    InputError: no such directory, no `config.json` or no readable checkpoint in
      it; or a name that may be either; a call inside `jax.jit`.
  """
  arguments.check_on_host("restore", reason="it reads files")
  run = load_run(arguments.path("workdir", workdir), which)
  return run.config, run.model, {"params": run.params}
