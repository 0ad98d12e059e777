"""The network around the layers (paper, section 3.6 and Table 1).

    7x7 convolution, mask A -> L layers of one kind over a trunk of 2h features
    -> 2 x (ReLU, 1x1 convolution, mask B) -> ReLU, 1x1 to the logits, mask B

Shapes: B batch, H height, W width, C channels, F features. Inside the network
maps are [H, W, B, F].
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pixelrnn_jax import ops
from pixelrnn_jax.config import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models.layers import LAYERS
from pixelrnn_jax.models.parameters import masked_layer, stacked


class PixelRNN(nn.Module):
  """PixelCNN, Row LSTM or Diagonal BiLSTM over a whole image.

  Parameters, of float32 (float64 if the dtype is):
    first: kernel [7, 7, C, 2h], bias.
    layers: the layers' parameters, each with a leading axis of L.
    head_0, head_1, head_2: the two output layers and the logits.

  Attributes:
    config: the model's configuration; see `build_model`.
  """

  config: ModelConfig

  def setup(self):
    config = self.config
    dtype = jnp.promote_types(config.dtype, jnp.float32)
    self.layer = LAYERS[config.kind](config)
    self.first = self.param("first", masked_layer(self.first_mask), dtype)
    inits = stacked(self.layer.inits(), config.layers)
    self.layers = self.param("layers", inits, dtype)
    self.head = [
        self.param(f"head_{i}", masked_layer(mask), dtype)
        for i, mask in enumerate(self.head_masks)
    ]

  @functools.cached_property
  def first_mask(self) -> np.ndarray:
    size, channels = self.config.first_kernel_size, self.config.image_shape[2]
    trunk = 2 * self.config.hidden
    return ops.conv_mask("A", (size, size), channels, trunk, channels)

  @functools.cached_property
  def head_masks(self) -> list[np.ndarray]:
    config, channels = self.config, self.config.image_shape[2]
    values = 1 if config.levels == 2 else config.levels
    widths = [2 * config.hidden, config.head_features, config.head_features,
              channels * values]
    return [
        ops.conv_mask("B", (1, 1), features, outputs, channels)[0, 0]
        for features, outputs in zip(widths[:-1], widths[1:], strict=True)
    ]

  def __call__(self, images: jax.Array) -> jax.Array:
    """Logits of every value given all values before it.

    Args:
      images: [B, H, W, C], raw values 0 .. levels - 1. Any dtype; real values
        are taken as they are, so that gradients with respect to them exist.

    Returns:
      [B, H, W, C, levels], float32 (float64 for that dtype). For two levels
      they are (0, l), l being the network's single output: the probability of
      a 1 is sigmoid(l).

    Raises:
      InputError: the images are not of the model's shape.
    """
    config = self.config
    if images.ndim != 4 or images.shape[1:] != tuple(config.image_shape):
      raise InputError(
          f"Images of shape {images.shape}: this model takes [B, H, W, C] ="
          f" [B, {', '.join(map(str, config.image_shape))}]."
      )
    x = jnp.transpose(images, (1, 2, 0, 3))
    x = self.embed(x)
    x, skips = lax.scan(lambda x, params: self.layer(params, x), x, self.layers)
    if config.skip:
      x = x + skips.sum(axis=0)
    return jnp.transpose(self.logits(x), (2, 0, 1, 3, 4))

  def embed(self, x: jax.Array) -> jax.Array:
    """Scaled and centred values through the first layer: [H, W, B, C] to 2h."""
    x = x.astype(jnp.promote_types(self.config.dtype, jnp.float32))
    x = (2.0 / (self.config.levels - 1)) * x - 1.0
    x = x.astype(self.config.dtype)
    return ops.masked_conv2d(x, **self.first, mask=self.first_mask)

  def logits(self, x: jax.Array) -> jax.Array:
    """The head: [..., 2h] to [..., C, levels]."""
    for params, mask in zip(self.head, self.head_masks, strict=True):
      x = ops.masked_dense(jax.nn.relu(x), **params, mask=mask)
    x = x.astype(jnp.promote_types(self.config.dtype, jnp.float32))
    x = x.reshape(*x.shape[:-1], self.config.image_shape[2], -1)
    if self.config.levels == 2:
      x = jnp.concatenate([jnp.zeros_like(x), x], axis=-1)
    return x


def build_model(config: ModelConfig) -> PixelRNN:
  """The model of a configuration.

  Args:
    config: kind, image shape and sizes.

  Returns:
    A `flax.linen.Module`: `model.init(key, images)` makes the variables,
    `model.apply(variables, images)` the logits, see `PixelRNN.__call__`.

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
  shape = tuple(config.image_shape)
  return PixelRNN(dataclasses.replace(config, image_shape=shape))
