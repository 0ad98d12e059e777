"""The masks that hide the future from a convolution (paper, section 3.4).

Pixels come in raster order. Inside a pixel, channels come in the order R, G, B.
The F features of every map are split into C contiguous groups, one for each channel:

    group(i) = floor(i C / F)

Groups differ by at most one feature where F is not a multiple of C. The same rule
holds at every width, so residual sums and gates stay aligned.

    mask A: group c at the current pixel sees the groups c' <  c  (first layer)
    mask B: group c at the current pixel sees the groups c' <= c  (all other layers)

Both masks show the rows above, and the pixels to the left in the same row. Both hide
the pixels to the right in the same row, and the rows below. Masks are NumPy constants
of the program. They multiply the weights at each use, so training cannot undo them.
"""

import functools

import numpy as np
from jaxtyping import Bool, Int


def channel_groups(features: int, channels: int) -> Int[np.ndarray, " F"]:
  """Return the channel that each feature belongs to.

      group(i) = floor(i C / F)

  Args:
    features: F.
    channels: C.

  Returns:
    int [F], values 0 to C - 1.

  Raises:
    ValueError: there are fewer features than channels, so some channel has none.
  """
  if features < channels:
    raise ValueError(
        f"{features} features cannot be split into {channels} channel groups:"
        " use at least as many features as channels."
    )
  return np.arange(features) * channels // features


@functools.cache
def conv_mask(
    kind: str,
    kernel_shape: tuple[int, int],
    in_features: int,
    out_features: int,
    channels: int,
    blocks: int = 1,
) -> Bool[np.ndarray, "KH KW F G"]:
  """Return the mask of a 2-D convolution's kernel.

  Args:
    kind: "A" or "B".
    kernel_shape: (KH, KW), both odd. (1, K) is a convolution along the row, (1, 1)
      a masked matrix product.
    in_features: F.
    out_features: the output features of one block.
    channels: C, the image's channels.
    blocks: how many blocks of features the output holds side by side. Each block is
      split into groups by itself. The four gates of an LSTM are four blocks, so all
      gates of a unit belong to the same group.

  Returns:
    bool [KH, KW, F, G] with G = blocks * out_features, read-only. It is true where
    the weight is used.

  Raises:
    ValueError: the kind is unknown, the kernel has an even size, or there are fewer
      features than channels.
  """
  if kind not in ("A", "B"):
    raise ValueError(f"Mask kind {kind!r}: must be 'A' or 'B'.")
  height, width = kernel_shape
  if height % 2 == 0 or width % 2 == 0:
    raise ValueError(
        f"Kernel shape {kernel_shape}: both sizes must be odd, so that the"
        " kernel has a centre."
    )
  row, column = height // 2, width // 2
  mask = np.zeros((height, width, in_features, blocks * out_features), bool)
  mask[:row] = True
  mask[row, :column] = True
  source = channel_groups(in_features, channels)[:, None]
  target = np.tile(channel_groups(out_features, channels), blocks)[None, :]
  mask[row, column] = source < target if kind == "A" else source <= target
  mask.flags.writeable = False
  return mask


def group_slices(features: int, channels: int) -> list[slice]:
  """Return the features of each channel's group as a slice.

  Args:
    features: F.
    channels: C.
  """
  edges = np.searchsorted(channel_groups(features, channels), np.arange(channels + 1))
  return [slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
