"""The photographs in the package, 32x32 RGB crops of 256 levels. Not in the paper.

    python experiments/train.py --config=NAME

The NLL is in bits per dimension of the crops of three photographs. Their authors took
none of the photographs that are trained on. `data/packaged_photos.py` has the splits
and the groups of the standard error. The crops are reduced photographs, as CIFAR-10's
images are. Some photographs are harder to predict than those images, others easier, so
figures on the two cannot be compared.

| config                   | test, bits/dim    | training                       |
|--------------------------|-------------------|--------------------------------|
| `quickstart_photos`      | 3.9781 +/- 0.1251 | 8 min on two CPU cores         |
| `pixel_cnn_photos`       | 3.3155 +/- 0.1101 | 49 min on one CPU core         |
| `row_lstm_photos`        | 3.2844 +/- 0.1082 | 67 min on one CPU core         |
| `diagonal_bilstm_photos` | 3.2475 +/- 0.1103 | 88 min on one CPU core         |

`photos`, in the package, is the last one after 32,000 steps, 3.1283 +/- 0.1139. PNG has
4.227 on the same crops side by side, WebP 3.227 and JPEG XL 3.137 (3.089 crop by
crop). docs/experiments.md has the paired differences, depth, skip and residual
connections, and `multi_scale_photos`.

Departures from the paper: the optimiser is Muon, and the training images are changed at
random (`data.augmentation=colours`). Five photographs have few colours. Without the
changes a model gives almost no probability to some crops of other photographs:
docs/experiments.md has the figures.
"""

from pixelrnn_jax.configs.schema import (
  Config,
  DataConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)


def _photos(
    kind: str, layers: int = 4, hidden: int = 32, head_features: int = 192,
    steps: int = 7_500, multi_scale: tuple[int, ...] = (),
) -> Config:
  """Return a config with the photographs' data and training."""
  return Config(
      name="",
      model=ModelConfig(
          kind=kind, image_shape=(32, 32, 3), hidden=hidden, layers=layers,
          head_features=head_features, multi_scale=multi_scale,
      ),
      data=DataConfig(
          source="packaged_photos", binarization="none", augmentation="colours"),
      optimizer=OptimizerConfig(
          name="muon", learning_rate=3e-3, adam_learning_rate=3e-3, warmup_steps=50,
          decay_steps=-1),
      train=TrainConfig(
          batch_size=16, steps=steps, log_every=25, eval_every=500,
          checkpoint_every=500, samples=16,
      ),
  )


def quickstart_photos() -> Config:
  """Row LSTM, 3 layers, h = 24: natural images in eight minutes on two CPU cores."""
  return _photos("row_lstm", layers=3, hidden=24, head_features=96, steps=3_000)


def pixel_cnn_photos() -> Config:
  """PixelCNN, 4 layers, h = 32."""
  return _photos("pixel_cnn")


def row_lstm_photos() -> Config:
  """Row LSTM, 4 layers, h = 32."""
  return _photos("row_lstm")


def diagonal_bilstm_photos() -> Config:
  """Diagonal BiLSTM, 4 layers, h = 32. `photos`, in the package, has more steps."""
  return _photos("diagonal_bilstm")


def multi_scale_photos() -> Config:
  """Row LSTMs, 16x16 to 32x32, 4 layers, h = 32. Figures are upper bounds."""
  return _photos("row_lstm", multi_scale=(2,))
