"""Binarised MNIST (paper, section 5.5 and Table 4), NLL in nats per image.

    python experiments/train.py --config=NAME

| config                         | paper, test |
|--------------------------------|-------------|
| `diagonal_bilstm_mnist_1layer` | 80.75 nats  |
| `diagonal_bilstm_mnist`        | 79.20 nats  |
| `row_lstm_mnist`               | 80.54 nats  |
| `pixel_cnn_mnist`              | 81.30 nats  |

Batch 16, 7 layers with h = 16, two output layers of 32 features, one sigmoid. The
paper gives these sizes for the Diagonal BiLSTM only.

The data is the packaged MNIST, binarised once from the intensities. It has the same
distribution as the paper's static file, but is another draw, so figures can differ by
sampling noise. The last 2,000 training images are the validation split. The other
58,000 are trained on.

Departures: the optimiser is Muon, with a learning rate that decays linearly to 0 and
gradients clipped at a global norm of 1. The paper has RMSProp: `NAME:rmsprop`. It names
neither RMSProp's constants nor a schedule.
"""

from pixelrnn_jax.configs.schema import (
  Config,
  DataConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)


def _mnist(kind: str, steps: int, layers: int = 7, hidden: int = 16) -> Config:
  """Return a config with MNIST's data and training."""
  return Config(
      name="",
      model=ModelConfig(
          kind=kind, image_shape=(28, 28, 1), levels=2, hidden=hidden,
          layers=layers, head_features=32,
      ),
      data=DataConfig(
          source="packaged_mnist", binarization="static", validation_images=2_000),
      optimizer=OptimizerConfig(
          name="muon", learning_rate=3e-3, adam_learning_rate=3e-3,
          warmup_steps=100, decay_steps=-1,
          decay_shape="linear"),
      train=TrainConfig(
          batch_size=16, steps=steps, eval_every=2_000, checkpoint_every=1_000),
  )


def diagonal_bilstm_mnist_1layer() -> Config:
  """Diagonal BiLSTM, 1 layer, h = 32. Paper: 80.75 nats."""
  return _mnist("diagonal_bilstm", steps=60_000, layers=1, hidden=32)


def diagonal_bilstm_mnist() -> Config:
  """Diagonal BiLSTM, 7 layers, h = 16. Paper: 79.20 nats."""
  return _mnist("diagonal_bilstm", steps=50_000)


def row_lstm_mnist() -> Config:
  """Row LSTM, 7 layers, h = 16. Paper: 80.54 nats."""
  return _mnist("row_lstm", steps=60_000)


def pixel_cnn_mnist() -> Config:
  """PixelCNN, 7 layers, h = 16. Paper: 81.30 nats."""
  return _mnist("pixel_cnn", steps=60_000)
