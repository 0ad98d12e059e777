"""From a configuration to its model."""

import dataclasses

import jax

from pixelrnn_jax.configs.schema import Config, ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models.multi_scale import MultiScalePixelRNN
from pixelrnn_jax.models.pixel_rnn import PixelRNN

Model = PixelRNN | MultiScalePixelRNN


def build_model(config: ModelConfig) -> Model:
  """Return the model of a configuration.

  Args:
    config: kind, image shape and sizes.

  Returns:
    A `flax.linen.Module`. `model.init(key, images)` draws the variables, and
    `model.apply(variables, images)` computes the logits; see `PixelRNN.__call__`.
    With `config.multi_scale` it is a `MultiScalePixelRNN`, whose logits are a tuple,
    one entry for each scale, the coarsest first.

  Raises:
    InputError: (a ValueError) it is no ModelConfig, the sizes make no model, or
      float64 is asked for while JAX's 64-bit types are off.
  """
  if not isinstance(config, ModelConfig):
    hint = ""
    if isinstance(config, Config):
      hint = " This is a whole configuration: build_model(config.model)."
    raise InputError(
        f"config is of the type {type(config).__name__}: give a ModelConfig.{hint}")
  config.validate()
  enabled = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
  if config.dtype == "float64" and not enabled:
    raise InputError(
        "model.dtype='float64' needs JAX's 64-bit types: set the environment"
        " variable JAX_ENABLE_X64=1 or call"
        " jax.config.update('jax_enable_x64', True)."
    )
  config = dataclasses.replace(
      config, image_shape=tuple(config.image_shape),
      multi_scale=tuple(config.multi_scale))
  return MultiScalePixelRNN(config) if config.multi_scale else PixelRNN(config)
