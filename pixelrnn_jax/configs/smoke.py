"""`NAME:smoke`: the same pipeline, shrunk to a minute on two CPU cores."""

import dataclasses

from pixelrnn_jax.configs.schema import Config, DataConfig


def smoke(config: Config) -> Config:
  """Return `config` shrunk, on data that the package has.

  The kind, the connections, scales, levels and channels stay. RGB images become 8x8
  drawings of coloured digits. The figures of such a run mean nothing.
  """
  height, width, channels = config.model.image_shape
  rgb = channels == 3
  return dataclasses.replace(
      config,
      name=f"{config.name}:smoke",
      model=dataclasses.replace(
          config.model,
          image_shape=(8, 8, 3) if rgb else (height, width, channels),
          hidden=min(config.model.hidden, 12),
          layers=min(config.model.layers, 2),
          head_features=min(config.model.head_features, 48),
      ),
      data=DataConfig(
          source="coloured_mnist" if rgb else "packaged_mnist",
          binarization="none" if rgb else "static",
          validation_images=64, max_images=256,
      ),
      optimizer=dataclasses.replace(
          config.optimizer, warmup_steps=5, decay_steps=0),
      train=dataclasses.replace(
          config.train, batch_size=min(config.train.batch_size, 16), steps=30,
          log_every=10, eval_every=15, checkpoint_every=15, samples=4,
      ),
  )
