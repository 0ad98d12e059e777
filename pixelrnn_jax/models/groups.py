"""Cutting parameters and maps into the groups of single channels.

For running a network value by value: the features of channel c's group are
computed from those of the groups up to c, and no others.

Shapes: F input features, G output features, g features of a group.
"""

import jax
import numpy as np

from pixelrnn_jax import ops
from pixelrnn_jax.models.parameters import Params


def own(x: jax.Array, channel: int, channels: int, blocks: int = 1) -> jax.Array:
  """The channel's features in each block, [..., blocks * G] to [..., blocks * g]."""
  features = x.shape[-1] // blocks
  group = ops.group_slices(features, channels)[channel]
  x = x.reshape(*x.shape[:-1], blocks, features)[..., group]
  # No -1 for the last size: NumPy and JAX cannot tell it of an array without values.
  return x.reshape(*x.shape[:-2], blocks * (group.stop - group.start))


def known(features: int, channel: int, channels: int) -> int:
  """How many features belong to the groups up to and with the channel's."""
  return ops.group_slices(features, channels)[channel].stop


def cut(params: Params, mask: np.ndarray, channel: int, channels: int) -> Params:
  """A 1x1 convolution (mask B) cut to the channel: [..., F, G] to [..., known, g]."""
  kernel = params["kernel"] * mask
  rows = known(kernel.shape[-2], channel, channels)
  return {
      "kernel": own(kernel[..., :rows, :], channel, channels),
      "bias": own(params["bias"], channel, channels),
  }


def dense(params: Params, x: jax.Array) -> jax.Array:
  """What `cut` has cut, applied: [..., known] to [..., g], of x's dtype."""
  return x @ params["kernel"].astype(x.dtype) + params["bias"].astype(x.dtype)
