"""The photographs in the package, 32x32 RGB crops of 256 levels. Not in the paper.

    python experiments/train.py --config=NAME

The NLL is in bits per dimension of the crops of three photographs. Their authors took
none of the photographs that are trained on. `data/packaged_photos.py` has the splits
and the groups of the standard error. The crops are reduced photographs, as CIFAR-10's
images are. Some photographs are harder to predict than those images, others easier, so
figures on the two cannot be compared.
"""

from pixelrnn_jax.configs.schema import (
  Config,
  DataConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)


def _photos(
    kind: str, layers: int, hidden: int, head_features: int, steps: int,
    multi_scale: tuple[int, ...] = (),
) -> Config:
  """Return a config with the photographs' data and training."""
  return Config(
      name="",
      model=ModelConfig(
          kind=kind, image_shape=(32, 32, 3), hidden=hidden, layers=layers,
          head_features=head_features, multi_scale=multi_scale,
      ),
      data=DataConfig(source="packaged_photos", binarization="none"),
      optimizer=OptimizerConfig(
          name="muon", learning_rate=3e-3, adam_learning_rate=3e-3, warmup_steps=50,
          decay_steps=-1),
      train=TrainConfig(
          batch_size=16, steps=steps, log_every=25, eval_every=500,
          checkpoint_every=500, samples=16,
      ),
  )


def quickstart_photos() -> Config:
  """Row LSTM, 3 layers, h = 24: natural images from the package."""
  return _photos("row_lstm", layers=3, hidden=24, head_features=96, steps=2_000)


def pixel_cnn_photos() -> Config:
  """PixelCNN, 5 layers, h = 48."""
  return _photos("pixel_cnn", layers=5, hidden=48, head_features=192, steps=10_000)


def row_lstm_photos() -> Config:
  """Row LSTM, 5 layers, h = 48."""
  return _photos("row_lstm", layers=5, hidden=48, head_features=192, steps=10_000)


def diagonal_bilstm_photos() -> Config:
  """Diagonal BiLSTM, 5 layers, h = 48."""
  return _photos(
      "diagonal_bilstm", layers=5, hidden=48, head_features=192, steps=10_000)


def multi_scale_photos() -> Config:
  """Row LSTMs, 16x16 to 32x32, 5 layers, h = 48. Figures are upper bounds."""
  return _photos(
      "row_lstm", layers=5, hidden=48, head_features=192, steps=10_000,
      multi_scale=(2,))
