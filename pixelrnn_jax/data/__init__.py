"""Images: sources of uint8 [H, W, C] and the batches made from them."""

from pixelrnn_jax.data.pipeline import eval_batches, train_iterator
from pixelrnn_jax.data.sources import ImageSource, load_source

__all__ = ["ImageSource", "eval_batches", "load_source", "train_iterator"]
