"""From a configuration to its model."""

import dataclasses

import jax

from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models.multi_scale import MultiScalePixelRNN
from pixelrnn_jax.models.pixel_rnn import PixelRNN


def build_model(config: ModelConfig) -> PixelRNN | MultiScalePixelRNN:
  """The model of a configuration.

  Args:
    config: kind, image shape and sizes.

  Returns:
    A `flax.linen.Module`: `model.init(key, images)` makes the variables,
    `model.apply(variables, images)` the logits, see `PixelRNN.__call__`. With
    `config.multi_scale` a `MultiScalePixelRNN`, whose logits are a tuple, one entry
    a scale, the coarsest first.

  Raises:
    InputError: (a ValueError) the sizes make no model, or float64 is asked for
      while JAX's 64-bit types are off.
  """
  config.validate()
  if config.dtype == "float64" and not jax.config.jax_enable_x64:
    raise InputError(
        "model.dtype='float64' needs JAX's 64-bit types: set the environment"
        " variable JAX_ENABLE_X64=1 or call"
        " jax.config.update('jax_enable_x64', True)."
    )
  config = dataclasses.replace(
      config, image_shape=tuple(config.image_shape),
      multi_scale=tuple(config.multi_scale))
  return MultiScalePixelRNN(config) if config.multi_scale else PixelRNN(config)
