"""Masks that make a convolution see only the past (paper, section 3.4).

Pixels come in raster order and, inside a pixel, channels in the order R, G, B.
The F features of every map are split into C contiguous groups, one a channel:

    group(i) = floor(i C / F)

so groups differ by at most one feature where F is not a multiple of C, and the
same rule at every width keeps residual sums and gates aligned.

    mask A: group c at the current pixel sees the groups c' <  c  (first layer)
    mask B: group c at the current pixel sees the groups c' <= c  (all others)

Pixels above, and to the left in the same row, are seen; pixels to the right in
the same row and below are not. The masks are NumPy constants of the program,
multiplied with the weights at each use, so training cannot undo them.
"""

import functools

import numpy as np


def channel_groups(features: int, channels: int) -> np.ndarray:
  """The channel that each feature belongs to: floor(i C / F), int [F].

  Raises:
    ValueError: fewer features than channels, so that a channel has none.
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
) -> np.ndarray:
  """The mask of a 2-D convolution's kernel.

  Args:
    kind: "A" or "B".
    kernel_shape: (KH, KW), both odd; (1, K) is a convolution along the row and
      (1, 1) a masked matrix product.
    in_features: F.
    out_features: G, the features of one block.
    channels: C, the image's channels.
    blocks: the output holds this many blocks of G features side by side, each
      split into groups by itself: the four gates of an LSTM, say, so that all
      gates of one unit are of the same group.

  Returns:
    bool [KH, KW, F, blocks * G], read-only; true where the weight is used.

  Raises:
    ValueError: an unknown kind, an even kernel, or fewer features than channels.
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
  """The features of each channel's group, as slices."""
  edges = np.searchsorted(channel_groups(features, channels), np.arange(channels + 1))
  return [slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
