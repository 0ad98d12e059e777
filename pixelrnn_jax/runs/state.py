"""The train state, which a run carries from step to step."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import PyTree

from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import Model, MultiScalePixelRNN


@struct.dataclass
class TrainState:
  """A tree without a device axis.

  Attributes:
    params: the model's parameters, `variables["params"]`.
    opt_state: the optimiser's state. A multi-scale model has one for each scale, by
      the name of the scale's parameters, so that training one scale leaves the others'
      means, momentum and place in the schedule alone. None if only the parameters of a
      checkpoint were read.
    step: optimiser steps taken so far, int32 scalar.
  """

  params: PyTree
  opt_state: PyTree
  step: Any


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    image_shape: tuple[int, int, int],
) -> TrainState:
  """Return the state before the first step.

  Args:
    model: from `build_model`.
    optimizer: from `runs.optimizer.make_optimizer`.
    key: a PRNG key, with which the parameters are drawn.
    image_shape: (H, W, C).
  """
  params = model.init(key, jnp.zeros((1, *image_shape), jnp.uint8))["params"]
  opt_state = join_scales(model, [optimizer.init(p) for p in by_scale(model, params)])
  return TrainState(params, opt_state, jnp.zeros((), jnp.int32))


def by_scale(model: Model, tree: PyTree) -> list[PyTree]:
  """Return the trees of all scales, the coarsest first.

  Args:
    model: from `build_model`.
    tree: parameters, gradients or an optimiser's state. For a model of a single scale
      it is that scale's tree. For others it is a dictionary with a tree for each scale.
  """
  if isinstance(model, MultiScalePixelRNN):
    return [tree[name] for name in model.parameter_names]
  return [tree]


def join_scales(model: Model, trees: Sequence[PyTree]) -> PyTree:
  """Return the inverse of `by_scale`."""
  if isinstance(model, MultiScalePixelRNN):
    return dict(zip(model.parameter_names, trees, strict=True))
  tree, = trees
  return tree


def trained_scales(config: ModelConfig, scale: int) -> list[int]:
  """Return the scales that `train.scale` selects; [0] for a model of a single scale."""
  return list(range(len(config.scale_shapes()))) if scale < 0 else [scale]


def updates_taken(opt_state: PyTree) -> int:
  """Return the number of an optimiser's updates, which is its place in the schedule."""
  return int(optax.tree.get_all_with_path(opt_state, "count")[0][1])
