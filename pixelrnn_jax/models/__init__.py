"""The models: layers, the network that stacks them, the networks of several scales."""

from pixelrnn_jax.models.build import build_model
from pixelrnn_jax.models.multi_scale import MultiScalePixelRNN
from pixelrnn_jax.models.pixel_rnn import PixelRNN

__all__ = ["MultiScalePixelRNN", "PixelRNN", "build_model"]
