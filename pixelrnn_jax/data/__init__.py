"""Images: sources of uint8 [H, W, C] and the batches made from them."""

from pixelrnn_jax.data.given_images import GivenImages
from pixelrnn_jax.data.own_images import same_images, without_path
from pixelrnn_jax.data.pipeline import eval_batches, lost_worker, train_iterator
from pixelrnn_jax.data.sources import (
  ImageSource,
  check_enough,
  check_split,
  load_source,
)

__all__ = [
    "GivenImages", "ImageSource", "check_enough", "check_split", "eval_batches",
    "load_source", "lost_worker", "same_images", "train_iterator", "without_path"]
