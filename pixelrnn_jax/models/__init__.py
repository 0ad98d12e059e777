"""The models: layers, then the network that stacks them."""

from pixelrnn_jax.models.pixel_rnn import PixelRNN, build_model

__all__ = ["PixelRNN", "build_model"]
