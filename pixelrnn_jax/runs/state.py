"""What a run carries from step to step."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from pixelrnn_jax.configs.schema import ModelConfig


@flax.struct.dataclass
class TrainState:
  """A tree without a device axis.

  Attributes:
    params: the model's parameters, `variables["params"]`.
    opt_state: the optimiser's state; of a multi-scale model one for each scale, by
      the name of its parameters, so that what trains one scale leaves the others'
      means, momentum and place in the schedule alone.
    step: optimiser steps taken so far, int32 scalar.
  """

  params: Any
  opt_state: Any
  step: Any


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    image_shape: tuple[int, int, int],
) -> TrainState:
  """The state before the first step.

  Args:
    model: from `build_model`.
    optimizer: from `runs.optimizer.make_optimizer`.
    key: a PRNG key, which the parameters are drawn with.
    image_shape: (H, W, C).
  """
  params = model.init(key, jnp.zeros((1, *image_shape), jnp.uint8))["params"]
  if model.config.multi_scale:
    opt_state = {
        name: optimizer.init(params[name]) for name in model.parameter_names}
  else:
    opt_state = optimizer.init(params)
  return TrainState(params, opt_state, jnp.zeros((), jnp.int32))


def trained_scales(config: ModelConfig, scale: int) -> list[int]:
  """The scales that `train.scale` selects; [0] for a model of a single scale."""
  return list(range(len(config.multi_scale) + 1)) if scale < 0 else [scale]


def updates_taken(opt_state) -> int:
  """How many updates an optimiser has made: what its schedule goes by."""
  return int(optax.tree.get_all_with_path(opt_state, "count")[0][1])
