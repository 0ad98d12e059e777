"""Pure functions on arrays: masks, convolutions, skew, the LSTM and its scans.

Maps are laid out [H, W, B, F]: height, width, batch, features.
"""

from pixelrnn_jax.ops.categorical import (
    categorical_log_probs,
    log_probs_by_comparison,
)
from pixelrnn_jax.ops.choices import BY_BACKEND, Choices
from pixelrnn_jax.ops.convolution import (
    masked_conv1d,
    masked_conv2d,
    masked_dense,
    rows_above,
)
from pixelrnn_jax.ops.diagonal_scan import diagonal_scan
from pixelrnn_jax.ops.dtypes import at_least_float32
from pixelrnn_jax.ops.lstm import (
    GATES,
    IMPLEMENTATIONS,
    State,
    lstm_cell,
    lstm_scan,
    product,
)
from pixelrnn_jax.ops.masks import channel_groups, conv_mask, group_slices
from pixelrnn_jax.ops.row_scan import row_scan, row_state_to_state
from pixelrnn_jax.ops.skew import from_strips, skew, to_strips, unskew
from pixelrnn_jax.ops.upsampling import conv2d, pyramid, subsample, transposed_conv2d

__all__ = [
    "BY_BACKEND",
    "Choices",
    "GATES",
    "IMPLEMENTATIONS",
    "State",
    "at_least_float32",
    "categorical_log_probs",
    "channel_groups",
    "conv2d",
    "conv_mask",
    "diagonal_scan",
    "from_strips",
    "group_slices",
    "log_probs_by_comparison",
    "lstm_cell",
    "lstm_scan",
    "masked_conv1d",
    "masked_conv2d",
    "masked_dense",
    "product",
    "pyramid",
    "row_scan",
    "row_state_to_state",
    "rows_above",
    "skew",
    "subsample",
    "to_strips",
    "transposed_conv2d",
    "unskew",
]
