"""CIFAR-10 (paper, sections 5.4 and 5.6), NLL in bits per dimension.

    python experiments/train.py --config=NAME

| config                          | paper, test (train) |
|---------------------------------|---------------------|
| `pixel_cnn_cifar10`             | 3.14 (3.08)         |
| `row_lstm_cifar10`              | 3.07 (3.00)         |
| `diagonal_bilstm_cifar10`       | 3.00 (2.93)         |
| `row_lstm_cifar10_depth1`       | 3.30                |
| `row_lstm_cifar10_depth2`       | 3.20                |
| `row_lstm_cifar10_depth3`       | 3.17                |
| `row_lstm_cifar10_depth6`       | 3.09                |
| `row_lstm_cifar10_depth9`       | 3.08                |
| `row_lstm_cifar10_depth12`      | 3.06                |
| `row_lstm_cifar10_plain`        | 3.22                |
| `row_lstm_cifar10_skip`         | 3.09                |
| `row_lstm_cifar10_residual`     | 3.07                |
| `row_lstm_cifar10_both`         | 3.06                |

Batch 16, h = 128, output layers of 1024 features, 256-way softmax per channel.
The last 5,000 training images are the validation split. The first start downloads the
images (170 MB) and prepares them, without TensorFlow.

Departures: the paper names neither the learning rate, nor RMSProp's constants, nor the
length of training. Ours are not tuned on CIFAR-10. The depth table does not say whether
it used skip connections. Its 12-layer figure is that of residual and skip connections
together, so the depth configs use both.
"""

from pixelrnn_jax.configs.schema import (
  Config,
  DataConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)


def _cifar10(
    kind: str, layers: int = 12, residual: bool = True, skip: bool = False
) -> Config:
  """Return a config with CIFAR-10's data and training."""
  return Config(
      name="",
      model=ModelConfig(
          kind=kind, image_shape=(32, 32, 3), hidden=128, layers=layers,
          residual=residual, skip=skip,
      ),
      data=DataConfig(
          source="tfds:cifar10", binarization="none", validation_images=5_000),
      optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=1_000),
      train=TrainConfig(batch_size=16, steps=500_000),
  )


def pixel_cnn_cifar10() -> Config:
  """PixelCNN, 15 layers. Paper: 3.14 bits/dim."""
  return _cifar10("pixel_cnn", layers=15)


def row_lstm_cifar10() -> Config:
  """Row LSTM, 12 layers, residual connections. Paper: 3.07 bits/dim."""
  return _cifar10("row_lstm")


def diagonal_bilstm_cifar10() -> Config:
  """Diagonal BiLSTM, 12 layers, residual connections. Paper: 3.00 bits/dim."""
  return _cifar10("diagonal_bilstm")


def row_lstm_cifar10_depth1() -> Config:
  """Depth table, 1 layer. Paper: 3.30 bits/dim."""
  return _cifar10("row_lstm", layers=1, skip=True)


def row_lstm_cifar10_depth2() -> Config:
  """Depth table, 2 layers. Paper: 3.20 bits/dim."""
  return _cifar10("row_lstm", layers=2, skip=True)


def row_lstm_cifar10_depth3() -> Config:
  """Depth table, 3 layers. Paper: 3.17 bits/dim."""
  return _cifar10("row_lstm", layers=3, skip=True)


def row_lstm_cifar10_depth6() -> Config:
  """Depth table, 6 layers. Paper: 3.09 bits/dim."""
  return _cifar10("row_lstm", layers=6, skip=True)


def row_lstm_cifar10_depth9() -> Config:
  """Depth table, 9 layers. Paper: 3.08 bits/dim."""
  return _cifar10("row_lstm", layers=9, skip=True)


def row_lstm_cifar10_depth12() -> Config:
  """Depth table, 12 layers. Paper: 3.06 bits/dim."""
  return _cifar10("row_lstm", skip=True)


def row_lstm_cifar10_plain() -> Config:
  """Neither residual nor skip connections. Paper: 3.22 bits/dim."""
  return _cifar10("row_lstm", residual=False)


def row_lstm_cifar10_skip() -> Config:
  """Skip connections only. Paper: 3.09 bits/dim."""
  return _cifar10("row_lstm", residual=False, skip=True)


def row_lstm_cifar10_residual() -> Config:
  """Residual connections only. Paper: 3.07 bits/dim."""
  return _cifar10("row_lstm")


def row_lstm_cifar10_both() -> Config:
  """Residual and skip connections. Paper: 3.06 bits/dim."""
  return _cifar10("row_lstm", skip=True)
