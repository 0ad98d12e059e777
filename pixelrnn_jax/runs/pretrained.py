"""Trained models that come with the package, one file each.

`pixelrnn_jax/runs/trained/NAME.npz` holds the parameters, by their path in the tree,
and `about`: the configuration, the step, and the figure of the run's own evaluation.
"""

import dataclasses
import importlib.resources
import io
import json
import os
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from pixelrnn_jax import files
from pixelrnn_jax.configs.json_text import from_json, to_json
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs import layout

_FOLDER = importlib.resources.files("pixelrnn_jax.runs") / "trained"
NAMES = ("mnist", "photos")
_ABOUT = "about"


@dataclasses.dataclass
class TrainedModel:
  """The content of a file.

  Attributes:
    config: the configuration of the run.
    params: the parameters, NumPy arrays.
    step: number of steps that they were trained for.
    evaluation: the run's `evaluation.json`.
  """

  config: Config
  params: PyTree
  step: int
  evaluation: dict


def is_name(workdir: str) -> bool:
  """Return whether a packaged model is meant, not a work directory.

  Args:
    workdir: as the user gave it.

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
  """Return the model of that name, one of `NAMES`."""
  with (_FOLDER / f"{name}.npz").open("rb") as file:
    with np.load(file, allow_pickle=False) as archive:
      arrays = dict(archive)
  about = json.loads(str(arrays.pop(_ABOUT)))
  return TrainedModel(
      from_json(json.dumps(about["config"])),
      traverse_util.unflatten_dict(arrays, sep="/"),
      about["evaluation"]["step"], about["evaluation"])


def round_parameters(params: PyTree, bits: int) -> PyTree:
  """Return parameters rounded to so many significant bits; fewer make a smaller file.

      x = m 2^e,  1/2 <= |m| < 1    ->    round(m 2^bits) 2^(e - bits)

  Args:
    params: parameters of float32, which has 24 bits.
    bits: to keep.
  """
  def rounded(x):
    fraction, exponent = np.frexp(np.asarray(x))
    return np.ldexp(np.round(fraction * 2**bits), exponent - bits).astype(x.dtype)

  return jax.tree.map(rounded, params)


def write(path: str, config: Config, params: PyTree, evaluation: dict) -> None:
  """Write such a file; the same input gives the same bytes.

  Args:
    path: the path of the file.
    config: the configuration of the run.
    params: the parameters.
    evaluation: the evaluation of these parameters, as in `evaluation.json`.
  """
  arrays = traverse_util.flatten_dict(params, sep="/")
  about = {"config": json.loads(to_json(config)), "evaluation": evaluation}
  content = io.BytesIO()
  members: dict[str, Any] = {name: np.asarray(x) for name, x in arrays.items()}
  members[_ABOUT] = np.array(json.dumps(about))
  np.savez_compressed(content, **members)
  files.write_bytes(path, content.getvalue())
