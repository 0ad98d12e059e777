"""The upsampling network: from the small image to a condition (paper, section 3.6).

    ReLU(K x K convolution)           at the small size, C to c, K = first_kernel_size
    ReLU(f x f transposed convolution, stride f)                 c to c
    K x K convolution                 at the large size, c to c, K = kernel_size

There are no masks, because the whole small image is known before the first value of
the large one. The result is the map that the layers are conditional on. A position of
the map sees the small pixels within first_kernel_size // 2 of those whose blocks the
last convolution reaches.

The paper asks for a convolutional network with deconvolution layers and says no more.
These layers and c = h are our choice.

Shapes: B batch, H height, W width, C channels, f factor, c features of the map.
"""

import jax
import numpy as np
from jaxtyping import Array, Float

from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models.parts import (
  Composite,
  MaskedConvolution,
  Params,
  TransposedConvolution,
)


class Upsampler(Composite):
  """The upsampling network of one factor."""

  def __init__(self, config: ModelConfig, factor: int):
    features = config.hidden

    def convolution(size, inputs):
      return MaskedConvolution(
          np.ones((size, size, inputs, features), bool), config.choices)

    self.small = convolution(config.first_kernel_size, config.image_shape[2])
    self.transposed = TransposedConvolution(factor, features, features)
    self.large = convolution(config.kernel_size, features)
    self.parts = {
        "small": self.small, "transposed": self.transposed, "large": self.large}

  def __call__(
      self, params: Params, x: Float[Array, "h w B C"]
  ) -> Float[Array, "H W B c"]:
    """Return the map that the layers are conditional on.

    Args:
      params: the parameters of the network.
      x: the small image's scaled values, [H / f, W / f, B, C].

    Returns:
      [H, W, B, c].
    """
    x = jax.nn.relu(self.small(params["small"], x))
    x = jax.nn.relu(self.transposed(params["transposed"], x))
    return self.large(params["large"], x)
