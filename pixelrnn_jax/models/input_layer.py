"""The first layer: raw values to the trunk, mask A (paper, section 3.4 and Table 1).

    x = 2 value / (levels - 1) - 1
    y = K * x                        7 x 7, mask A, C to 2h

Shapes: H height, W width, B batch, C channels, h hidden units, P = 7 // 2 pixels that
the kernel reaches to each side.
"""

from jaxtyping import Array, Float, Real

from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.parts import MaskedConvolution, Weights


class InputLayer(MaskedConvolution):
  """The first convolution and the scaling of its input.

  Attributes:
    reach: P.
  """

  def __init__(self, config: ModelConfig):
    size, self.channels = config.first_kernel_size, config.image_shape[2]
    super().__init__(ops.conv_mask(
        "A", (size, size), self.channels, 2 * config.hidden, self.channels),
        config.choices)
    self.config = config
    self.reach = size // 2

  def scale(self, values: Real[Array, "..."]) -> Float[Array, "..."]:
    """Scale raw values 0 to levels - 1 linearly to -1 to 1, in the model's dtype."""
    x = values.astype(ops.at_least_float32(self.config.dtype))
    return ((2.0 / (self.config.levels - 1)) * x - 1.0).astype(self.config.dtype)

  # Value by value; see `decoding.py`.

  def contribution_from_above(
      self, params: Weights, rows: Float[Array, "P W B C"]
  ) -> Float[Array, "W B G"]:
    """Return what the rows above contribute to each pixel of a row, with the bias.

    Args:
      params: the parameters of the layer.
      rows: the scaled values of the P rows above, [P, W, B, C].

    Returns:
      [W, B, 2h].
    """
    return ops.rows_above(rows, **params, mask=self.mask)

  def channel_kernel(
      self, params: Weights, channel: int
  ) -> Float[Array, "known g"]:
    """Return the kernel of the pixel's own row, cut to one channel's group.

    Args:
      params: the parameters of the layer.
      channel: the channel.

    Returns:
      [P C + channel, g]: the weights of the P pixels to the left, then those of the
      channels before this one.
    """
    row = (params["kernel"] * self.mask)[self.reach]
    row = row[: self.reach + 1].reshape(
        (self.reach + 1) * self.channels, row.shape[-1])
    row = row[: self.reach * self.channels + channel].astype(self.config.dtype)
    return groups.select(row, channel, self.channels)
