"""`NAME:rmsprop`: a config with the paper's optimiser, RMSProp."""

import dataclasses

from pixelrnn_jax.configs.schema import Config, OptimizerConfig


def rmsprop(config: Config) -> Config:
  """Return `config` with RMSProp, and all its fields set.

  The learning rate, the momentum and the decay are those that our RMSProp figures on
  MNIST were measured with. A config that has RMSProp already stays as it is.
  """
  if config.optimizer.name == "rmsprop":
    optimizer = config.optimizer
  else:
    optimizer = OptimizerConfig(
        learning_rate=2e-4, momentum=0.9,
        warmup_steps=config.optimizer.warmup_steps,
        decay_steps=config.optimizer.decay_steps)
  return dataclasses.replace(
      config, name=f"{config.name}:rmsprop", optimizer=optimizer)
