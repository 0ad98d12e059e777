"""The network around the layers (paper, section 4 and Table 1).

    first layer   7 x 7 convolution, mask A, C to 2h
    stack         L layers of one kind over a trunk of 2h features
    head          2 x (ReLU, 1 x 1 convolution, mask B), ReLU, 1 x 1 to the logits

The same network, conditional on a smaller image (section 3.6), is one scale of a
multi-scale model.

Shapes: B batch, H height, W width, C channels, h hidden units, f the factor from a
smaller scale to this one. Images are [B, H, W, C]. Inside the network maps are
[H, W, B, F].
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Real, UInt8

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models.decoding import Choose, Decoder
from pixelrnn_jax.models.diagonal_bilstm import DiagonalBiLSTMLayer
from pixelrnn_jax.models.head import Head
from pixelrnn_jax.models.input_layer import InputLayer
from pixelrnn_jax.models.layer import Layer
from pixelrnn_jax.models.parts import Params, Part
from pixelrnn_jax.models.pixel_cnn import PixelCNNLayer
from pixelrnn_jax.models.row_lstm import RowLSTMLayer
from pixelrnn_jax.models.stack import LayerStack
from pixelrnn_jax.models.upsampler import Upsampler

LAYERS = {
    "pixel_cnn": PixelCNNLayer,
    "row_lstm": RowLSTMLayer,
    "diagonal_bilstm": DiagonalBiLSTMLayer,
}

# Images as a caller gives them. `arguments.model_input` checks their shape and dtype.
Images = Array | np.ndarray | Sequence


class PixelRNN(nn.Module):
  """PixelCNN, Row LSTM or Diagonal BiLSTM over a whole image.

  Parameters, of float32 (float64 if the dtype is):
    first: kernel [7, 7, C, 2h], bias [2h].
    layers: the layers' parameters, each with a leading axis of L.
    head_0, head_1, head_2: the two output layers and the logits.
    upsampler: the parts of the upsampling network, in a conditional network.

  Attributes:
    config: the configuration of this scale alone; see `build_model`.
    factor: f, how many times larger the images are than those that the network is
      conditional on. It is 1 for an unconditional network. The methods of a
      conditional network also take the smaller images.
  """

  config: ModelConfig
  factor: int = 1

  def setup(self):
    """Register the parameters of all parts, each under its part's name."""
    dtype = ops.at_least_float32(self.config.dtype)
    # The order matters: Flax draws a key for each parameter in turn.
    self.params = {
        name: self.param(name, part.init, dtype) for name, part in self.parts.items()}

  def make_parameters(self) -> None:
    """Make all parameters and compute nothing, so `init` can tell their shapes."""
    jax.tree.leaves(self.params)  # reading one of them makes Flax call `setup`

  @functools.cached_property
  def parts(self) -> dict[str, Part]:
    """The parts by the names of their parameters."""
    upsampler: dict[str, Part] = (
        {"upsampler": self.upsampler} if self.conditional else {})
    return {
        "first": self.first, "layers": self.stack, **upsampler, **self.head.parts}

  @functools.cached_property
  def first(self) -> InputLayer:
    """The first layer."""
    return InputLayer(self.config)

  @functools.cached_property
  def layer(self) -> Layer:
    """The kind's layer, and the two ways to run it."""
    return LAYERS[self.config.kind](self.config, self.conditional)

  @functools.cached_property
  def stack(self) -> LayerStack:
    """The layers on top of one another."""
    return LayerStack(self.config, self.layer)

  @functools.cached_property
  def head(self) -> Head:
    """The output layers."""
    return Head(self.config)

  @functools.cached_property
  def upsampler(self) -> Upsampler:
    """The upsampling network of a conditional network."""
    return Upsampler(self.config, self.factor)

  @property
  def conditional(self) -> bool:
    """Whether the network is conditional on smaller images."""
    return self.factor > 1

  @property
  def head_params(self) -> Params:
    """The parameters of the output layers."""
    return {name: self.params[name] for name in self.head.parts}

  def __call__(
      self, images: Images, small: Images | None = None
  ) -> Float[Array, "B H W C levels"]:
    """Return the logits of every value given all values before it.

    Args:
      images: [B, H, W, C], raw values 0 to levels - 1, of an integer or real dtype.
        Real values are taken as they are, so gradients with respect to them exist.
        There is no likelihood of such images: `log_prob` refuses them.
      small: the smaller images [B, H / f, W / f, C], for a conditional network.

    Returns:
      [B, H, W, C, levels], float32 (float64 for that dtype). For two levels they are
      (0, l), where l is the network's single output: the probability of a 1 is
      sigmoid(l).

    Raises:
      InputError: the images are not of the model's shape, not numbers, or have values
        out of range. Inside `jax.jit` and the like values cannot be looked at.
        Forward-mode differentiation without `implementation="autodiff"`.
    """
    with arguments.forward_mode_explained():
      x = self.head(self.head_params, self.trunk(images, small))
      return jnp.transpose(x, (2, 0, 1, 3, 4))

  def batch_nats(self, images: Images, small: Images | None = None) -> Float[Array, ""]:
    """Return -sum log p(x) over a batch of images; all logits never exist at once.

    Args:
      images: integers [B, H, W, C], raw values 0 to levels - 1.
      small: see `__call__`.

    Returns:
      A scalar in nats, float32 (float64 for that dtype).

    Raises:
      InputError: see `__call__`.
    """
    with arguments.forward_mode_explained():
      x = self.trunk(images, small)
      values = jnp.transpose(jnp.asarray(images), (1, 2, 0, 3))
      return self.head.chunked_nats(self.head_params, x, values)

  def trunk(
      self, images: Images, small: Images | None = None
  ) -> Float[Array, "H W B F"]:
    """Return the input of the head: [B, H, W, C] to [H, W, B, 2h]."""
    images = arguments.model_input(self.config, images)
    condition = self.condition(small, len(images))
    x = self.first.scale(jnp.transpose(images, (1, 2, 0, 3)))
    return self.stack(
        self.params["layers"], self.first(self.params["first"], x), condition)

  def condition(
      self, small: Images | None, batch: int
  ) -> Float[Array, "H W B c"] | None:
    """Return the map that the layers are conditional on.

    Args:
      small: [B, H / f, W / f, C]; not read in an unconditional network.
      batch: B.

    Returns:
      [H, W, B, c], or None for an unconditional network.

    Raises:
      InputError: the small images are of another shape, or missing.
    """
    if not self.conditional:
      return None
    height, width, channels = self.config.image_shape
    shape = (batch, height // self.factor, width // self.factor, channels)
    if small is None or np.shape(small) != shape:
      given = "None" if small is None else f"Images of shape {np.shape(small)}"
      raise InputError(
          f"{given} as the smaller scale: this network needs [B, H / {self.factor},"
          f" W / {self.factor}, C] = {list(shape)}."
      )
    x = self.first.scale(jnp.transpose(jnp.asarray(small), (1, 2, 0, 3)))
    return self.upsampler(self.params["upsampler"], x)

  def by_value(
      self,
      choose: Choose,
      batch: int,
      small: Images | None = None,
      state: PyTree = (),
  ) -> tuple[UInt8[Array, "B H W C"], PyTree, PyTree]:
    """Run the network value by value, in raster order and R, G, B.

    The logits are those of `__call__`, with the arithmetic of one pass over the
    images; see `decoding.py`.

    Args:
      choose: a function of (state, logits [B, levels], row, column, channel). It
        returns the next state, the values of all images there, int [B], and a tree to
        collect. It may draw the values, look them up, or decode them.
      batch: B.
      small: see `__call__`.
      state: the state that `choose` receives at the first value, a tree of arrays.

    Returns:
      The values; the results of `choose` to collect, a list of C trees with leading
      axes [H, W]; and the state after the last value.

    Raises:
      InputError: the small images are of another shape, or missing.
    """
    condition = self.condition(small, batch)
    decoder = Decoder(
        self.config, self.first, self.layer, self.head, self.params["first"],
        self.params["layers"], self.head_params, choose)
    return decoder.decode_images(batch, condition, state)

  # The same for a model of one or more scales; see `MultiScalePixelRNN`.

  def all_scales(
      self, images: Images, smaller: Sequence[Images] | None = None
  ) -> tuple[Real[Array, "B H W C"], ...]:
    """Return the images of all scales, here of the only one.

    Args:
      images: [B, H, W, C].
      smaller: must be None.

    Raises:
      InputError: the images are not of the model's shape, or smaller ones are given.
    """
    if smaller is not None:
      raise InputError("This model has a single scale: it takes no smaller images.")
    return (arguments.model_input(self.config, images),)

  def logits_by_scale(
      self, images: Images, smaller: Sequence[Images] | None = None
  ) -> tuple[Float[Array, "B H W C levels"], ...]:
    """Return the logits of all scales, here of the only one; see `__call__`."""
    return tuple(self(x) for x in self.all_scales(images, smaller))

  def nats_by_scale(self, images: Images) -> tuple[Float[Array, ""], ...]:
    """Return `batch_nats` of all scales, here of the only one."""
    return (self.batch_nats(images),)

  def decode_scales(
      self,
      choose: Callable[..., tuple],
      batch: int,
      given: Sequence[Array] = (),
      state: PyTree = (),
  ) -> tuple[tuple[tuple[UInt8[Array, "B H W C"], PyTree], ...], PyTree]:
    """Run `by_value` for all scales, here for the only one.

    Args:
      choose: see `MultiScalePixelRNN.decode_scales`. The scale is 0.
      batch: B.
      given: must be empty.
      state: the state that `choose` receives at the first value.

    Returns:
      ((images, collected),) and the state after the last value.
    """
    del given
    images, collected, state = self.by_value(
        functools.partial(choose, 0), batch, state=state)
    return ((images, collected),), state
