"""From the smaller image to the map that a network is conditioned on (section 3.6).

    ReLU(K x K convolution)           at the small size, C to c, K = first_kernel_size
    ReLU(f x f transposed convolution, stride f)                 c to c
    K x K convolution                 at the large size, c to c, K = kernel_size

with no masks: the whole small image is known before the first value of the large
one. A position of the map sees the small pixels within first_kernel_size // 2 of
those whose blocks the last convolution reaches. The paper asks for a convolutional
network with deconvolution layers and says no more; these layers and c = h are ours.

Shapes: B batch, H height, W width, C channels, f factor, c features of the map.
"""

import jax
import numpy as np

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models.parameters import Init, Params, masked_layer, upsampling


class Upsampler:
  """The upsampling network; `params` are its layers' by name."""

  def __init__(self, config: ModelConfig, factor: int):
    self.config = config
    self.factor = factor

  def inits(self) -> dict[str, Init]:
    """Initialisers of the parameters, by layer."""
    small, large = self.config.first_kernel_size, self.config.kernel_size
    channels, features = self.config.image_shape[2], self.config.hidden

    def conv(size, inputs):
      return masked_layer(np.ones((size, size, inputs, features), bool))

    return {
        "small": conv(small, channels),
        "transposed": upsampling(self.factor, features, features),
        "large": conv(large, features),
    }

  def __call__(self, params: dict[str, Params], x: jax.Array) -> jax.Array:
    """Scaled values [H / f, W / f, B, C] to the map, [H, W, B, c]."""
    x = jax.nn.relu(ops.conv2d(x, **params["small"]))
    x = jax.nn.relu(ops.transposed_conv2d(x, **params["transposed"]))
    return ops.conv2d(x, **params["large"])
