"""`NAME:rmsprop`: a config with the paper's optimiser, RMSProp."""

import dataclasses

from pixelrnn_jax.configs.schema import Config, OptimizerConfig


def rmsprop(config: Config) -> Config:
  """Return `config` with RMSProp, and all its fields set.

  Our RMSProp figures on MNIST were measured with this learning rate, this momentum and
  this decay. A config that has RMSProp already keeps its optimiser.
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
