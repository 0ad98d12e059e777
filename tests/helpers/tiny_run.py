"""The config of a run that takes seconds."""

import dataclasses

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import Config


def make_tiny_config() -> Config:
  """Return a config of twelve steps of a small PixelCNN on 8x8 coloured digits."""
  config = load_config("pixel_cnn_cifar10:smoke")
  config.model = dataclasses.replace(
      config.model, hidden=6, layers=1, head_features=12)
  config.data = dataclasses.replace(
      config.data, validation_images=10, max_images=24)
  config.optimizer = dataclasses.replace(
      config.optimizer, learning_rate=1e-3, warmup_steps=2, momentum=0.5)
  config.train = dataclasses.replace(
      config.train, batch_size=4, steps=12, log_every=2, eval_every=4,
      checkpoint_every=3, eval_batch_size=8, samples=2)
  config.validate()
  return config
