"""The models: parts, the network that they make, networks of several scales.

A network is made of parts: the first layer, the stack of layers, the head, the
upsampling network. All parts follow one protocol (`parts.py`):

    init(key, dtype) -> params         draw the initial parameters
    __call__(params, x, ...) -> y      compute, as a pure function of them

`PixelRNN` is a Flax Linen module. It registers the parts' parameters and calls the
parts with them. The parts themselves are not Linen modules, for three reasons:

- The same parameters run in two ways, over a whole image and value by value. The second
  way needs them cut to one channel's group, which a module that owns its parameters
  does not offer.
- The layers' parameters are stacked, and `lax.scan` and `jax.vmap` run over them. Pure
  functions need no lifted versions of these for that.
- A part computes the same on any parameters of its shape, so tests and tools call it
  with a tree of arrays.
"""

from pixelrnn_jax.models.build import Model, build_model
from pixelrnn_jax.models.multi_scale import MultiScalePixelRNN
from pixelrnn_jax.models.pixel_rnn import PixelRNN

__all__ = ["Model", "MultiScalePixelRNN", "PixelRNN", "build_model"]
