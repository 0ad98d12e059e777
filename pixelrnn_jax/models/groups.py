"""Cut parameters and maps to the feature group of one channel (paper, section 3.4).

The features of a channel's group are computed from the groups up to that channel, and
from no others. Sampling and coding compute so value by value, and the head may compute
so for whole images (`Choices.head_products`).

Shapes: F input features, G output features, g features of a group.
"""

import numpy as np
from jaxtyping import Array, Bool, Float

from pixelrnn_jax import ops
from pixelrnn_jax.models.parts import Weights


def select(
    x: Float[Array, "*N G"], channel: int, channels: int, blocks: int = 1
) -> Float[Array, "*N g"]:
  """Return the features of a channel's group in each block.

  Args:
    x: [..., blocks G].
    channel: the channel.
    channels: how many there are.
    blocks: how many blocks of features stand side by side; see `ops.conv_mask`.

  Returns:
    [..., blocks g].
  """
  features = x.shape[-1] // blocks
  group = ops.group_slices(features, channels)[channel]
  x = x.reshape(*x.shape[:-1], blocks, features)[..., group]
  # No -1 for the last size: NumPy and JAX cannot tell it of an array without values.
  return x.reshape(*x.shape[:-2], blocks * (group.stop - group.start))


def count_known(features: int, channel: int, channels: int) -> int:
  """Return the number of features of the groups up to and including a channel's."""
  return ops.group_slices(features, channels)[channel].stop


def cut(
    params: Weights, mask: Bool[np.ndarray, "F G"], channel: int, channels: int
) -> Weights:
  """Mask a 1 x 1 convolution and cut it to a channel's group.

  Args:
    params: kernel [..., F, G] and bias [..., G].
    mask: mask B.
    channel: the channel.
    channels: how many there are.

  Returns:
    kernel [..., known, g] and bias [..., g], where `known` counts the features of the
    groups up to this channel's.
  """
  kernel = params["kernel"] * mask
  rows = count_known(kernel.shape[-2], channel, channels)
  return {
      "kernel": select(kernel[..., :rows, :], channel, channels),
      "bias": select(params["bias"], channel, channels),
  }


def dense(params: Weights, x: Float[Array, "*N known"]) -> Float[Array, "*N g"]:
  """Apply a 1 x 1 convolution from `cut`, [..., known] to [..., g], of x's dtype."""
  return x @ params["kernel"].astype(x.dtype) + params["bias"].astype(x.dtype)
