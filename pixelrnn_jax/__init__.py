"""Pixel Recurrent Neural Networks (van den Oord et al., 2016) in JAX and Flax.

The main functions are here, and are used like this:

    import pixelrnn_jax as prnn

    config = prnn.load_config("row_lstm_cifar10")
    model = prnn.build_model(config.model)
    variables = model.init(key, images)
    prnn.bits_per_dim(model, variables, images)
    prnn.sample(model, variables, key, num=16)
"""

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import (
  Config,
  DataConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference.coding import compress, decompress
from pixelrnn_jax.inference.likelihood import bits_per_dim, log_prob, log_probs
from pixelrnn_jax.inference.sampling import complete, sample
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs.restore import restore
from pixelrnn_jax.training import train
from pixelrnn_jax.version import __version__

__all__ = [
    "__version__",
    "Config",
    "DataConfig",
    "InputError",
    "ModelConfig",
    "OptimizerConfig",
    "TrainConfig",
    "bits_per_dim",
    "build_model",
    "complete",
    "compress",
    "decompress",
    "load_config",
    "log_prob",
    "log_probs",
    "restore",
    "sample",
    "train",
]
