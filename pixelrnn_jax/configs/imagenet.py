"""ImageNet at 32x32 and 64x64 (paper, section 5.7), NLL in bits per dimension.

    python experiments/train.py --config=NAME

| config                | paper, validation (train) |
|-----------------------|---------------------------|
| `row_lstm_imagenet32` | 3.86 (3.83)               |
| `row_lstm_imagenet64` | 3.63 (3.57)               |

The data is the paper's `downsampled_imagenet`. Its server is gone. Its tars are
prepared from TFDS's directory for files got by hand (see
`data/downsampled_imagenet.py`), or `--config.data.data_dir` points at data that
somebody has prepared. The newer `imagenet_resized`
(`--config.data.source=tfds:imagenet_resized/32x32`) was made with another resize filter
and is easier by about 0.26 bits/dim. The two are not comparable.

The last 10,000 training images are our validation split. The data set's own validation
images are the test split, as in the paper.

Departures: the paper has no PixelCNN and no Diagonal BiLSTM on ImageNet. Those configs
are its CIFAR-10 models with the ImageNet batch size. The learning rates and the lengths
of training are ours and not tuned.
"""

from pixelrnn_jax.configs.schema import (
  Config,
  DataConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)


def _imagenet(
    kind: str, size: int, layers: int, hidden: int, residual: bool = True,
    accumulate: int = 1,
) -> Config:
  """Return a config with ImageNet's data and training at a size."""
  return Config(
      name="",
      model=ModelConfig(
          kind=kind, image_shape=(size, size, 3), hidden=hidden, layers=layers,
          residual=residual,
      ),
      data=DataConfig(
          source=f"tfds:downsampled_imagenet/{size}x{size}", binarization="none"),
      optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=1_000),
      train=TrainConfig(
          batch_size=64 if size == 32 else 32, accumulate=accumulate, steps=500_000,
          eval_batch_size=64 if size == 32 else 32,
      ),
  )


def pixel_cnn_imagenet32() -> Config:
  """PixelCNN, 15 layers, h = 128. Not in the paper."""
  return _imagenet("pixel_cnn", 32, layers=15, hidden=128)


def row_lstm_imagenet32() -> Config:
  """Row LSTM, 12 layers, h = 384. Paper: 3.86 bits/dim."""
  return _imagenet("row_lstm", 32, layers=12, hidden=384)


def diagonal_bilstm_imagenet32() -> Config:
  """Diagonal BiLSTM, 12 layers, h = 128. Not in the paper."""
  return _imagenet("diagonal_bilstm", 32, layers=12, hidden=128)


def pixel_cnn_imagenet64() -> Config:
  """PixelCNN, 15 layers, h = 128. Not in the paper."""
  return _imagenet("pixel_cnn", 64, layers=15, hidden=128)


def row_lstm_imagenet64() -> Config:
  """Row LSTM, 4 layers, h = 512, no residual or skip. Paper: 3.63 bits/dim.

  The batch is taken in two parts, because a whole one takes more than 16 GiB in
  float32. With 32 devices, which have one image each, set `train.accumulate=1`.
  """
  return _imagenet(
      "row_lstm", 64, layers=4, hidden=512, residual=False, accumulate=2)


def diagonal_bilstm_imagenet64() -> Config:
  """Diagonal BiLSTM, 12 layers, h = 128. Not in the paper."""
  return _imagenet("diagonal_bilstm", 64, layers=12, hidden=128)
