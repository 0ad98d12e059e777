"""Trained models that come with the package, one file each.

`pixelrnn_jax/runs/trained/NAME.npz` holds the parameters, by their path in the tree,
and `about`: the configuration, the step, and the figure that the run's own
evaluation gave.
"""

import dataclasses
import importlib.resources
import io
import json
import os
from typing import Any

import numpy as np
from flax import traverse_util

from pixelrnn_jax import files
from pixelrnn_jax.configs.schema import Config, from_json, to_json
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout

_FOLDER = importlib.resources.files("pixelrnn_jax.runs") / "trained"
NAMES = ("mnist",)
_ABOUT = "about"


@dataclasses.dataclass
class TrainedModel:
  """The content of a file.

  Attributes:
    config: of the run.
    params: the parameters, NumPy arrays.
    step: how many steps they were trained for.
    evaluation: the run's `evaluation.json`.
  """

  config: Config
  params: Any
  step: int
  evaluation: dict


def is_name(workdir: str) -> bool:
  """Whether a packaged model is meant, not a work directory.

  Raises:
    InputError: it may be either.
  """
  if workdir not in NAMES:
    return False
  if os.path.exists(os.path.join(workdir, layout.CONFIG)):
    raise InputError(
        f"{workdir!r} is the name of a model in the package, and here of a work"
        f" directory, too. For the directory give {os.path.join('.', workdir)!r}; for"
        " the model start from another directory."
    )
  return True


def read(name: str) -> TrainedModel:
  """The model of that name, one of `NAMES`."""
  with (_FOLDER / f"{name}.npz").open("rb") as file:
    with np.load(file, allow_pickle=False) as archive:
      arrays = dict(archive)
  about = json.loads(str(arrays.pop(_ABOUT)))
  return TrainedModel(
      from_json(json.dumps(about["config"])),
      traverse_util.unflatten_dict(arrays, sep="/"),
      about["evaluation"]["step"], about["evaluation"])


def write(path: str, config: Config, params: Any, evaluation: dict) -> None:
  """Writes such a file: the same input gives the same bytes.

  Args:
    path: of the file.
    config: of the run.
    params: the parameters.
    evaluation: of these parameters, as in `evaluation.json`.
  """
  arrays = traverse_util.flatten_dict(params, sep="/")
  about = {"config": json.loads(to_json(config)), "evaluation": evaluation}
  content = io.BytesIO()
  np.savez_compressed(
      content, **{name: np.asarray(array) for name, array in arrays.items()},
      **{_ABOUT: np.array(json.dumps(about))})
  files.write_bytes(path, content.getvalue())
