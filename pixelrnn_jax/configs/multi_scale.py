"""Multi-scale models (paper, sections 3.6 and 5.7).

    python experiments/train.py --config=NAME
    python experiments/train.py --config=NAME --config.train.scale=0 ...  # one scale

The paper shows samples of such a model on 64x64 ImageNet and gives no likelihoods. Ours
are of all scales together. They are an upper bound of the large image's nats and
bits/dim, and are printed as such, with the figure of each scale beside them.

The paper leaves open:

- how images are made smaller (ours: every f-th pixel, see `ops/upsampling.py`);
- the layers of the upsampling network (`models/upsampler.py`);
- the sizes of the small network (ours: those of the large one);
- all of training.
"""

import dataclasses

from pixelrnn_jax.configs.imagenet import row_lstm_imagenet64
from pixelrnn_jax.configs.schema import (
  Config,
  DataConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)


def multi_scale_mnist() -> Config:
  """Row LSTMs, 7x7 to 28x28, on the packaged binarised MNIST. Not in the paper.

  The sizes and data are those of the paper's MNIST experiments. Training is cut to less
  than 20 minutes on two CPU cores: a short run whose learning rate decays to 0, RMSProp
  with momentum, and validation on 1,000 images only.
  """
  return Config(
      name="",
      model=ModelConfig(
          kind="row_lstm", image_shape=(28, 28, 1), levels=2, hidden=16, layers=7,
          head_features=32, multi_scale=(4,),
      ),
      data=DataConfig(source="packaged_mnist", validation_images=1_000),
      optimizer=OptimizerConfig(
          learning_rate=3e-4, momentum=0.9, warmup_steps=50, decay_steps=6_000),
      train=TrainConfig(
          batch_size=16, steps=6_000, log_every=50, eval_every=1_000,
          checkpoint_every=500, samples=16,
      ),
  )


def multi_scale_imagenet64() -> Config:
  """32x32 to 64x64. Paper: samples only.

  Both Row LSTMs and their training are those of `row_lstm_imagenet64`.
  """
  config = row_lstm_imagenet64()
  return dataclasses.replace(
      config, model=dataclasses.replace(config.model, multi_scale=(2,)))
