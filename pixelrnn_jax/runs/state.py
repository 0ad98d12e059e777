"""What a run carries from step to step, and RMSProp."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from pixelrnn_jax.configs.schema import ModelConfig, OptimizerConfig


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
    optimizer: from `make_optimizer`.
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


def make_schedule(config: OptimizerConfig) -> optax.Schedule:
  """The learning rate of each step.

      rate(t) = learning_rate * t / warmup_steps                   t < warmup_steps
      rate(t) = learning_rate                                      decay_steps = 0
      rate(t) = learning_rate * (1 + cos(pi u)) / 2                otherwise,
      u = (t - warmup_steps) / (decay_steps - warmup_steps), at most 1

  Args:
    config: checked; see `OptimizerConfig`.

  Returns:
    A function of the number of steps taken so far, t = 0, 1, ...
  """
  warmup = config.warmup_steps
  if config.decay_steps:
    schedule = optax.cosine_decay_schedule(
        config.learning_rate, config.decay_steps - warmup)
  else:
    schedule = optax.constant_schedule(config.learning_rate)
  if warmup:
    rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
    schedule = optax.join_schedules([rise, schedule], [warmup])
  return schedule


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
  """RMSProp after an optional clipping of the global norm.

      g <- g min(1, clip_norm / |g|)
      v <- decay v + (1 - decay) g^2
      d = rate(t) g / (sqrt(v / (1 - decay^(t + 1))) + epsilon)
      m <- momentum m + d
      w <- w - m

  The paper gives RMSProp and says that the rate is set by hand, nothing more.
  The other defaults are ours: decay 0.95, so that v follows the gradient over
  some 20 steps; no momentum; division by 1 - decay^(t + 1), without which the
  first step would be 1 / sqrt(1 - decay) times too long; clipping at 1, which
  with a loss in nats per dimension touches nothing but spikes.

  Args:
    config: checked; see `OptimizerConfig`.
  """
  rmsprop = optax.rmsprop(
      make_schedule(config),
      decay=config.decay,
      eps=config.epsilon,
      eps_in_sqrt=False,
      momentum=config.momentum or None,
      bias_correction=True,
  )
  if not config.clip_norm:
    return rmsprop
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), rmsprop)
