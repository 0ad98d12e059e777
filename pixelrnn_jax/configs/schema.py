"""Configurations: plain dataclasses, checked before anything is built.

`load_config("row_lstm_cifar10")` returns a tree of the dataclasses below. `Config` is
the whole, and has one part for the model, the data, the optimiser and the training.
"""

import dataclasses
import math
from typing import Any

from pixelrnn_jax.configs.checks import (
  PlainFields,
  check_choice,
  check_least,
  check_most,
  check_types,
)
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.ops import IMPLEMENTATIONS, Choices
from pixelrnn_jax.ops.choices import AUTO, OPTIONS

KINDS = ("pixel_cnn", "row_lstm", "diagonal_bilstm")
DTYPES = ("float32", "bfloat16", "float64")
SPLITS = ("train", "validation", "test")
BINARIZATIONS = ("none", "static", "dynamic", "threshold")
AUGMENTATIONS = ("none", "mirror", "colours")
# Sizes are bounded: a config.json may come from anybody.
MOST_VALUES = 2**24  # of an image
_MOST_WEIGHTS = 2**29  # of a convolution
# Processes, and images of a grid: many more only keep a run from its work.
_MOST_WORKERS, _MOST_SAMPLES = 2**10, 2**12
PACKAGED_SOURCES = ("packaged_mnist", "coloured_mnist", "packaged_photos")
OPTIMIZERS = ("rmsprop", "muon")
DECAY_SHAPES = ("cosine", "linear")
TO_THE_END = -1  # of optimizer.decay_steps: the decay ends with train.steps


def _resumable(default: Any, retrains: bool = False) -> Any:
  """Return a field that may change when a run is resumed. `train.steps` may grow too.

  All other fields must stay, because the parameters would be those of no config. Most
  fields that may change alter the parameters by rounding at most: the ways to compute
  (of `model`, `train.accumulate`), where the data lies, and when and how a run reports,
  validates and saves.

  Three fields alter what is trained from then on, each for a reason. The user is told
  the step of such a change.

  - `optimizer.decay_steps`: a run can be prolonged at a constant rate and then decay.
  - `train.scale`: scales that are trained one after another become one model.
  - `data.augmentation`: a run that overfits goes on with it, or ends without it.

  Args:
    default: the default of the field.
    retrains: whether the field alters what is trained.
  """
  return dataclasses.field(
      default=default, metadata={"resumable": True, "retrains": retrains})


@dataclasses.dataclass(unsafe_hash=True)  # a static argument of jit
class ModelConfig(PlainFields):
  """A model of the paper (arXiv 1601.06759, section 3 and Table 1).

  Attributes:
    kind: `pixel_cnn`, `row_lstm` or `diagonal_bilstm`.
    image_shape: (H, W, C), height, width and channels (1 or 3).
    levels: number of values of a channel, 0 to levels - 1, from 2 to 256.
    hidden: the paper's h. The trunk between the layers has 2h features.
    layers: number of residual layers after the first convolution.
    head_features: width of the two output layers (1024 for natural images,
      32 for MNIST).
    kernel_size: odd width of the residual layers' convolutions. They are K x K in the
      PixelCNN, and K x 1 along the row in the Row LSTM (input-to-state and
      state-to-state). The Diagonal BiLSTM's are 1x1 and 2x1 and ignore it.
    first_kernel_size: odd size of the first convolution (mask A).
    residual: whether each layer's input is added to its output.
    skip: whether a learned 1x1 projection of every layer is added to the head's input.
    dtype: the dtype of the matrix products, `float32`, `bfloat16` or `float64`.
      Parameters, cell states, logits and the loss are float32 (float64 for `float64`,
      which needs `jax_enable_x64`).
    implementation: how the LSTM scans are computed. `fused` has a gradient of its own.
      `autodiff` is the reference. `pallas` is kernels for TPUs, for a multiple of 128
      hidden units; nobody has measured them yet.
    rematerialize: whether a layer's inner values are computed again in the backward
      pass, instead of keeping those of all layers. This takes less memory and more
      arithmetic.
    multi_scale: whole factors from the coarsest scale up, () for a single scale.
      (4,) makes a 28 x 28 image from one of 7 x 7. (2, 2) makes one of 32 x 32 by way
      of 8 x 8 and 16 x 16. Every scale is a network of all the sizes above. The
      convolutions of the upsampling take `kernel_size` and `first_kernel_size`, in the
      Diagonal BiLSTM too. See `models/multi_scale.py`.
    unroll: number of steps of a scan in one iteration of the compiled loop. This field
      and those below choose between ways to compute the same values. 0 and `auto` are
      the backend's defaults (`ops/choices.py`).
    images_per_strip: largest number of images side by side in the Diagonal BiLSTM's
      skewed map. More images waste less of the map and take more steps.
    state_to_state: how an LSTM's forward scan computes the state-to-state convolution:
      `move_first` puts the states that a pixel sees side by side and multiplies once,
      `multiply_first` moves the products.
    gates_gradient: how the gradients of h and c become that of an LSTM's gates:
      `select` one of them for each gate, or `concatenate` them.
    kernel_gradient: where the gradient of an LSTM's state-to-state kernel is computed:
      summed up `in_scan`, or one product `after_scan`.
    saved: dtype of the derivatives of h and c that an LSTM saves for the backward pass:
      `wide` is at least float32, `narrow` is the dtype of the products.
    row_start: how the Diagonal BiLSTM puts the initial state to the left of a row, by
      `slice` or `select`.
    skew: how the Diagonal BiLSTM's maps are skewed: `reshape` the padded map, or
      `concatenate` its rows.
    convolution: masked convolutions as `products`, one for each tap, or by `xla`.
    head_products: the head's 1 x 1 convolutions as one product with the `masked`
      kernel, or as products with the `visible` blocks of it alone.
    logits: whether the training loss takes the logits of all channels `together` or
      `by_channel`.
  """

  kind: str
  image_shape: tuple[int, int, int]
  levels: int = 256
  hidden: int = 128
  layers: int = 12
  head_features: int = 1024
  kernel_size: int = 3
  first_kernel_size: int = 7
  residual: bool = True
  skip: bool = False
  dtype: str = "float32"
  implementation: str = "fused"
  rematerialize: bool = False
  multi_scale: tuple[int, ...] = ()
  unroll: int = _resumable(0)
  images_per_strip: int = _resumable(0)
  state_to_state: str = _resumable(AUTO)
  gates_gradient: str = _resumable(AUTO)
  kernel_gradient: str = _resumable(AUTO)
  saved: str = _resumable(AUTO)
  row_start: str = _resumable(AUTO)
  skew: str = _resumable(AUTO)
  convolution: str = _resumable(AUTO)
  head_products: str = _resumable(AUTO)
  logits: str = _resumable(AUTO)

  @property
  def choices(self) -> Choices:
    """The ways to compute, as the ops take them."""
    return Choices(**{
        field.name: getattr(self, field.name)
        for field in dataclasses.fields(Choices)})

  def scale_shapes(self) -> tuple[tuple[int, int, int], ...]:
    """Return (H, W, C) of every scale, the coarsest first, the whole image last."""
    height, width, channels = self.image_shape
    shapes = [(height, width, channels)]
    for factor in reversed(self.multi_scale):
      height, width = height // factor, width // factor
      shapes.append((height, width, channels))
    return tuple(reversed(shapes))

  def validate(self) -> None:
    """Raise InputError for sizes that make no model."""
    check_types(self, "model")
    check_choice("model.kind", self.kind, KINDS)
    check_choice("model.dtype", self.dtype, DTYPES)
    height, width, channels = self.image_shape
    if height < 1 or width < 1:
      raise InputError(
          f"model.image_shape={self.image_shape}: height and width must be at"
          " least 1."
      )
    if channels not in (1, 3):
      raise InputError(
          f"model.image_shape={self.image_shape}: the last entry is the number"
          " of channels and must be 1 (grey) or 3 (RGB)."
      )
    if math.prod(self.image_shape) > MOST_VALUES:
      raise InputError(
          f"model.image_shape={self.image_shape}: an image has at most {MOST_VALUES:,}"
          " values."
      )
    if not 2 <= self.levels <= 256:
      raise InputError(
          f"model.levels={self.levels}: must be from 2 (binary) to 256 (8 bit)."
      )
    for name in ("hidden", "head_features"):
      if getattr(self, name) < channels:
        raise InputError(
            f"model.{name}={getattr(self, name)} is fewer features than the"
            f" image's {channels} channels, so a channel would have none. Set"
            f" model.{name} to {channels} or more."
        )
    check_choice("model.implementation", self.implementation, IMPLEMENTATIONS)
    if self.implementation == "pallas" and self.kind != "pixel_cnn":
      if self.hidden % 128 or self.dtype == "float64":
        raise InputError(
            f"model.implementation='pallas' with model.hidden={self.hidden} and"
            f" model.dtype={self.dtype!r}: it takes a multiple of 128 hidden units,"
            " float32 or bfloat16. Use 'fused' for others."
        )
    for name, ways in OPTIONS.items():
      check_choice(f"model.{name}", getattr(self, name), (AUTO, *ways))
    check_least(self, "model", 1, "layers")
    check_least(self, "model", 0, "unroll", "images_per_strip")
    for name, most in (
        ("layers", 2**12), ("unroll", 2**12), ("kernel_size", 2**7),
        ("first_kernel_size", 2**7)):
      if getattr(self, name) > most:
        raise InputError(f"model.{name}={getattr(self, name)}: must be at most {most}.")
    trunk, head = 2 * self.hidden, self.head_features
    weights = max(
        self.first_kernel_size**2 * channels * trunk,
        self.kernel_size**2 * trunk * 2 * trunk, trunk * head, head**2)
    if weights > _MOST_WEIGHTS:
      raise InputError(
          f"model.hidden={self.hidden}, model.head_features={head} and"
          f" model.kernel_size={self.kernel_size}: a convolution would have"
          f" {weights:,} weights; at most {_MOST_WEIGHTS:,} are good for anything.")
    for name in ("kernel_size", "first_kernel_size"):
      if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
        raise InputError(
            f"model.{name}={getattr(self, name)}: must be odd and positive, so"
            " that the kernel has a centre. Use 3 or 7, for example."
        )
    if any(factor < 2 for factor in self.multi_scale):
      raise InputError(
          f"model.multi_scale={self.multi_scale}: the factors from scale to scale"
          " must be whole numbers of at least 2, as in (4,) or (2, 2); () is a"
          " model of a single scale."
      )
    whole = math.prod(self.multi_scale)
    if height % whole or width % whole:
      raise InputError(
          f"model.multi_scale={self.multi_scale}: the height and width of"
          f" model.image_shape={self.image_shape} must be multiples of {whole}, the"
          " product of the factors. Use other factors or another size."
      )


@dataclasses.dataclass
class DataConfig(PlainFields):
  """Where images come from.

  Attributes:
    source: where the images come from. `packaged_mnist` is binarised MNIST, in the
      package. `coloured_mnist` is RGB images drawn from its digits, for smoke runs and
      tests. `packaged_photos` is crops of nine photographs in the package (see
      `data/packaged_photos.py`). `tfds:NAME[/CONFIG]` is any image data set of
      TensorFlow Datasets (`tfds:mnist`, `tfds:cifar10`, ...). `folder:PATH` is the
      user's own images: a folder of PNG and JPEG files, or an `.npz` (see
      `data/own_images.py`). `tfds:cifar10` and `tfds:cifar100` (170 MB) and
      `tfds:imagenet_resized/SIZE` (8x8: 0.25 GB, 16x16: 1 GB, 32x32: 3.7 GB, 64x64:
      14 GB) are downloaded and prepared at the first start, CIFAR in a minute. An
      epoch on two CPU cores takes 3 minutes (`quickstart`), 7
      (`diagonal_bilstm_mnist`), 2 to 5 hours (CIFAR-10) and 36 days (ImageNet
      32x32; 30 minutes on an H200). docs/data.md has more of both.
    binarization: how grey values become bits where model.levels is 2. `static` draws
      them once from the intensities with a fixed seed. `dynamic` draws them anew each
      time an image is used in training. `threshold` cuts at half the range. `none` is
      for images that are used as they are.
    augmentation: random changes of the training images (`data/augment.py`), not in
      the paper. `mirror` turns every second one left to right. `colours` also moves
      and exchanges the channels of every second one; it needs model.levels=256.
    data_dir: the directory of TFDS's data and of a folder's decoded images. "" is
      TFDS's default and `~/.cache/pixelrnn_jax`.
    validation_images: number of images cut from the end of the training part for
      validation. They are not trained on.
    max_images: number of images of each part that are used, the first ones. 0 is all.
    workers: number of Grain's worker processes. 0 reads in the training process.
  """

  source: str = "packaged_mnist"
  binarization: str = "static"
  augmentation: str = _resumable("none", retrains=True)
  data_dir: str = _resumable("")
  validation_images: int = 10_000
  max_images: int = 0
  workers: int = 0

  def validate(self) -> None:
    """Raise InputError for settings that name no data."""
    check_types(self, "data")
    check_choice("data.binarization", self.binarization, BINARIZATIONS)
    check_choice("data.augmentation", self.augmentation, AUGMENTATIONS)
    try:
      self.source.encode()
    except UnicodeEncodeError as error:
      raise InputError(
          f"data.source={self.source!r}: the name is not UTF-8, so it cannot be written"
          " beside figures. Rename it."
      ) from error
    kind, _, name = self.source.partition(":")
    packaged = self.source in PACKAGED_SOURCES
    if not packaged and not (kind in ("tfds", "folder") and name):
      raise InputError(
          f"data.source={self.source!r}: use"
          f" {', '.join(map(repr, PACKAGED_SOURCES))}, 'tfds:NAME', for example"
          " 'tfds:cifar10', or 'folder:PATH'."
      )
    check_least(self, "data", 0, "max_images", "workers")
    check_most(self, "data", _MOST_WORKERS, "workers")
    if self.validation_images < 1:
      raise InputError(
          f"data.validation_images={self.validation_images}: must be at least"
          " 1; the best checkpoint is chosen on these images."
      )


def _of(optimizer: str, default):
  """Return a field that only the optimiser of that name uses."""
  return dataclasses.field(default=default, metadata={"optimizer": optimizer})


@dataclasses.dataclass
class OptimizerConfig(PlainFields):
  """The optimiser, the schedule of its learning rate, and clipping.

  The equations are in `runs/optimizer.py`. A field that belongs to the other
  optimiser must be left at its default.

  Attributes:
    name: `rmsprop` is the paper's optimiser (section 5.2). `muon` gets further in the
      same number of steps.
    learning_rate: the highest learning rate of the schedule.
    decay: RMSProp's decay of the mean of squared gradients.
    epsilon: RMSProp adds it to the root of that mean.
    momentum: RMSProp's momentum. 0 is plain RMSProp, as in the paper.
    beta: Muon's decay of the mean of the kernels' gradients.
    weight_decay: Muon's weight decay. Times the learning rate, it is the share of a
      kernel that is taken off at each step.
    adam_learning_rate: with Muon, the highest rate of Adam, which updates the biases,
      the initial states and the kernel of the logits. 0 is `learning_rate`.
    adam_b2: with Muon, Adam's decay of the mean of squared gradients.
    warmup_steps: number of steps of a linear rise from 0.
    decay_steps: the step at which the decay to 0 ends, warm-up included. -1 ends it
      with `train.steps`; a run that is not longer than the warm-up only has that. 0
      keeps the rate constant, as in the paper. It may change when a run is resumed.
    decay_shape: `cosine` (half a period) or `linear`.
    clip_norm: gradients of a larger global norm are scaled down to it. 0 is no
      clipping.
  """

  name: str = "rmsprop"
  learning_rate: float = 1e-3
  decay: float = _of("rmsprop", 0.95)
  epsilon: float = _of("rmsprop", 1e-8)
  momentum: float = _of("rmsprop", 0.0)
  beta: float = _of("muon", 0.95)
  weight_decay: float = _of("muon", 0.0)
  adam_learning_rate: float = _of("muon", 0.0)
  adam_b2: float = _of("muon", 0.95)
  warmup_steps: int = 0
  decay_steps: int = _resumable(0, retrains=True)
  decay_shape: str = "cosine"
  clip_norm: float = 1.0

  def validate(self) -> None:
    """Raise InputError for values outside their range."""
    check_types(self, "optimizer")
    check_choice("optimizer.name", self.name, OPTIMIZERS)
    check_choice("optimizer.decay_shape", self.decay_shape, DECAY_SHAPES)
    for name in ("learning_rate", "epsilon"):
      if not 0.0 < getattr(self, name) < math.inf:
        raise InputError(
            f"optimizer.{name}={getattr(self, name)}: must be positive and finite."
        )
    for name in ("decay", "momentum", "beta", "adam_b2"):
      if not 0.0 <= getattr(self, name) < 1.0:
        raise InputError(
            f"optimizer.{name}={getattr(self, name)}: must be in [0, 1)."
        )
    for name in ("warmup_steps", "clip_norm", "weight_decay", "adam_learning_rate"):
      if not 0 <= getattr(self, name) < math.inf:
        raise InputError(
            f"optimizer.{name}={getattr(self, name)}: must be 0 or more."
        )
    if self.decay_steps < TO_THE_END:
      raise InputError(
          f"optimizer.decay_steps={self.decay_steps}: must be a step, or 0 for a"
          " constant learning rate, or -1 for a decay that ends with train.steps."
      )
    if 0 < self.decay_steps <= self.warmup_steps:
      raise InputError(
          f"optimizer.decay_steps={self.decay_steps} must be larger than"
          f" optimizer.warmup_steps={self.warmup_steps}, or 0 for no decay."
      )
    for field in dataclasses.fields(self):
      owner = field.metadata.get("optimizer", self.name)
      value = getattr(self, field.name)
      if owner != self.name and value != field.default:
        raise InputError(
            f"optimizer.{field.name}={value} belongs to optimizer.name={owner!r}, and"
            f" optimizer.name is {self.name!r}. Set it to {field.default}, or use the"
            f" other optimiser. --config=NAME:rmsprop is a config with RMSProp, all of"
            " whose fields are set."
        )


@dataclasses.dataclass
class TrainConfig(PlainFields):
  """The run.

  Attributes:
    seed: determines the parameters, the order of the data and the samples.
    batch_size: images in a step, over all devices and processes.
    accumulate: number of parts of a device's share of the batch. Their gradients are
      added up one after the other. This takes less memory, and is the same step up to
      rounding.
    steps: optimiser steps in all.
    log_every: steps between two lines of metrics.
    eval_every: steps between two validations.
    checkpoint_every: steps between two checkpoints.
    eval_batch_size: images in an evaluation batch, over all devices.
    samples: images drawn for the grid at each validation. 0 draws none.
    scale: the one scale of a multi-scale model that is trained, 0 being the coarsest.
      The others' parameters stay as they are. -1 trains all of them together. It may
      change when a run is resumed, with more `steps`, so that scales that are trained
      one after another become one model.
  """

  seed: int = 0
  batch_size: int = 16
  accumulate: int = _resumable(1)
  steps: int = 100_000
  log_every: int = _resumable(50)
  eval_every: int = _resumable(2_500)
  checkpoint_every: int = _resumable(2_500)
  eval_batch_size: int = _resumable(64)
  samples: int = _resumable(16)
  scale: int = _resumable(-1, retrains=True)

  def validate(self) -> None:
    """Raise InputError for values outside their range."""
    check_types(self, "train")
    check_least(
        self, "train", 1, "batch_size", "accumulate", "steps", "log_every",
        "eval_every", "checkpoint_every", "eval_batch_size")
    check_least(self, "train", 0, "seed", "samples")
    check_most(self, "train", _MOST_SAMPLES, "samples")


@dataclasses.dataclass
class Config:
  """A whole experiment.

  Attributes:
    name: what `load_config` was called with.
    model: see ModelConfig.
    data: see DataConfig.
    optimizer: see OptimizerConfig.
    train: see TrainConfig.
  """

  name: str
  model: ModelConfig
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

  def validate(self) -> None:
    """Raise InputError for a field, or a pair of fields, that cannot work."""
    check_types(self, "config")
    if not self.name.isprintable():  # it is printed, and may be a stranger's
      raise InputError(f"config.name={self.name!r}: must be one line of letters.")
    self.model.validate()
    self.data.validate()
    self.optimizer.validate()
    self.train.validate()
    scales = len(self.model.multi_scale) + 1
    if not -1 <= self.train.scale < scales:
      raise InputError(
          f"train.scale={self.train.scale}: this model's scales are 0"
          f"{' (the coarsest)' if scales > 1 else ''} to {scales - 1}; -1 trains all"
          " of them."
      )
    binary = self.model.levels == 2
    if self.data.source == "packaged_mnist" and not (
        binary and self.data.binarization == "static"
        and tuple(self.model.image_shape) == (28, 28, 1)
    ):
      raise InputError(
          "data.source='packaged_mnist' is 28x28 MNIST, binarised once. It needs"
          " model.image_shape=(28, 28, 1), model.levels=2 and"
          " data.binarization='static'; for other binarisations or grey values"
          " use data.source='tfds:mnist'."
      )
    if self.data.source == "coloured_mnist" and (
        binary or self.model.image_shape[2] != 3
    ):
      raise InputError(
          "data.source='coloured_mnist' makes RGB images: it needs 3 channels in"
          " model.image_shape and more than 2 model.levels."
      )
    if binary == (self.data.binarization == "none"):
      raise InputError(
          f"data.binarization={self.data.binarization!r} does not go with"
          f" model.levels={self.model.levels}: binary models (levels=2) need"
          " 'static', 'dynamic' or 'threshold', all others 'none'."
      )
    if self.data.augmentation == "colours" and self.model.levels != 256:
      raise InputError(
          f"data.augmentation='colours' does not go with model.levels="
          f"{self.model.levels}: it moves values from 0 to 255. Use 'mirror', or"
          " model.levels=256."
      )
