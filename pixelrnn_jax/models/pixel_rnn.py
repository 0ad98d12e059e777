"""The network around the layers (paper, section 4 and Table 1).

    7x7 convolution, mask A -> L layers of one kind over a trunk of 2h features
    -> 2 x (ReLU, 1x1 convolution, mask B) -> ReLU, 1x1 to the logits, mask B

The same network, conditional on a smaller image (section 3.6), is one scale of a
multi-scale model.

Shapes: B batch, H height, W width, C channels, F features. Inside the network
maps are [H, W, B, F].
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models import groups
from pixelrnn_jax.models.diagonal_bilstm import DiagonalBiLSTMLayer
from pixelrnn_jax.models.head import Head
from pixelrnn_jax.models.layer import Layer
from pixelrnn_jax.models.parameters import masked_layer, stacked, together
from pixelrnn_jax.models.pixel_cnn import PixelCNNLayer
from pixelrnn_jax.models.row_lstm import RowLSTMLayer
from pixelrnn_jax.models.upsampler import Upsampler

LAYERS = {
    "pixel_cnn": PixelCNNLayer,
    "row_lstm": RowLSTMLayer,
    "diagonal_bilstm": DiagonalBiLSTMLayer,
}

# (state, logits [B, levels], row, column, channel) to (state, values [B], something to
# collect).
Choose = Callable[
    [Any, jax.Array, jax.Array, jax.Array, int], tuple[Any, jax.Array, Any]]


class PixelRNN(nn.Module):
  """PixelCNN, Row LSTM or Diagonal BiLSTM over a whole image.

  Parameters, of float32 (float64 if the dtype is):
    first: kernel [7, 7, C, 2h], bias.
    layers: the layers' parameters, each with a leading axis of L.
    head_0, head_1, head_2: the two output layers and the logits.
    upsampler: the layers of the upsampling network, where there is one.

  Attributes:
    config: the model's configuration, of this scale alone; see `build_model`.
    factor: how many times larger the images are than those that they are
      conditional on; 1 for an unconditional network. The methods of a conditional
      one take the smaller images too.
  """

  config: ModelConfig
  factor: int = 1

  def setup(self):
    config = self.config
    dtype = jnp.promote_types(config.dtype, jnp.float32)
    self.first = self.param("first", masked_layer(self.first_mask), dtype)
    inits = stacked(self.layer.inits(), config.layers)
    self.layers = self.param("layers", inits, dtype)
    if self.conditional:
      self.upsampler_params = self.param(
          "upsampler", together(self.upsampler.inits()), dtype)
    self.head_params = [
        self.param(f"head_{i}", masked_layer(mask), dtype)
        for i, mask in enumerate(self.head.masks)
    ]

  def make_parameters(self) -> None:
    """Makes all parameters and computes nothing, for `init` to tell their shapes."""
    jax.tree.leaves(self.first)  # reading one of them makes Flax call `setup`

  @functools.cached_property
  def layer(self) -> Layer:
    """The kind's layer: its masks, its initialisers and the two ways to run it."""
    return LAYERS[self.config.kind](self.config, self.conditional)

  @property
  def conditional(self) -> bool:
    """Whether it is conditional on smaller images."""
    return self.factor > 1

  @functools.cached_property
  def upsampler(self) -> Upsampler:
    """The upsampling network of a conditional one."""
    return Upsampler(self.config, self.factor)

  @functools.cached_property
  def first_mask(self) -> np.ndarray:
    size, channels = self.config.first_kernel_size, self.config.image_shape[2]
    trunk = 2 * self.config.hidden
    return ops.conv_mask("A", (size, size), channels, trunk, channels)

  @functools.cached_property
  def head(self) -> Head:
    """The output layers."""
    return Head(self.config)

  def __call__(self, images: jax.Array, small: jax.Array | None = None) -> jax.Array:
    """Logits of every value given all values before it.

    Args:
      images: [B, H, W, C], raw values 0 .. levels - 1 of an integer or real dtype.
        Real ones are taken as they are, so that gradients with respect to them
        exist: they are not images of which there is a likelihood, which `log_prob`
        makes sure of.
      small: [B, H / f, W / f, C], likewise: what a conditional network is
        conditional on, f its factor.

    Returns:
      [B, H, W, C, levels], float32 (float64 for that dtype). For two levels
      they are (0, l), l being the network's single output: the probability of
      a 1 is sigmoid(l).

    Raises:
      InputError: the images are not of the model's shape, not numbers, or values are
        out of range. Inside `jax.jit` and the like values cannot be looked at.
        Forward-mode differentiation without `implementation="autodiff"`.
    """
    with arguments.forward_mode_explained():
      x = self.head.logits(self.head_params, self.trunk(images, small))
      return jnp.transpose(x, (2, 0, 1, 3, 4))

  def total_nats(
      self, images: jax.Array, small: jax.Array | None = None
  ) -> jax.Array:
    """-sum log p(x) over a batch of images, without ever holding all logits.

    Args and errors: see `__call__`; the values must be integers.

    Returns:
      A scalar, nats, float32 (float64 for that dtype).
    """
    with arguments.forward_mode_explained():
      x = self.trunk(images, small)
      values = jnp.transpose(images, (1, 2, 0, 3))
      return self.head.total_nats(self.head_params, x, values)

  def trunk(self, images: jax.Array, small: jax.Array | None = None) -> jax.Array:
    """What the output layers get: [B, H, W, C] to [H, W, B, 2h]."""
    config = self.config
    images = arguments.model_input(config, images)
    condition = self.condition(small, len(images))
    x = self.embed(jnp.transpose(images, (1, 2, 0, 3)))
    layer = jax.checkpoint(self.layer) if config.rematerialize else self.layer

    def one_layer(carry, params):
      x, skips = carry
      x, skip = layer(params, x, condition)
      return (x, skips + skip if config.skip else None), None

    start = (x, jnp.zeros_like(x) if config.skip else None)
    (x, skips), _ = lax.scan(one_layer, start, self.layers)
    return x + skips if config.skip else x

  def condition(self, small: jax.Array | None, batch: int) -> jax.Array | None:
    """The map that the layers are conditional on, [H, W, B, c].

    Args:
      small: [B, H / f, W / f, C], or None for an unconditional network.
      batch: B.

    Raises:
      InputError: images of another shape, or none where they are needed.
    """
    if not self.conditional:
      return None
    height, width, channels = self.config.image_shape
    shape = (batch, height // self.factor, width // self.factor, channels)
    if small is None or small.shape != shape:
      given = "None" if small is None else f"Images of shape {small.shape}"
      raise InputError(
          f"{given} as the smaller scale: this network needs [B, H / {self.factor},"
          f" W / {self.factor}, C] = {list(shape)}."
      )
    small = jnp.transpose(small, (1, 2, 0, 3))
    return self.upsampler(self.upsampler_params, self.scale(small))

  def embed(self, x: jax.Array) -> jax.Array:
    """Values through the first layer: [H, W, B, C] to [H, W, B, 2h]."""
    return ops.masked_conv2d(self.scale(x), **self.first, mask=self.first_mask)

  def scale(self, values: jax.Array) -> jax.Array:
    """Raw values 0 .. levels - 1, scaled and centred to -1 .. 1."""
    x = values.astype(jnp.promote_types(self.config.dtype, jnp.float32))
    return ((2.0 / (self.config.levels - 1)) * x - 1.0).astype(self.config.dtype)

  def by_value(
      self, choose: Choose, batch: int, small: jax.Array | None = None, state=()
  ):
    """Runs the network value by value, in raster order and R, G, B.

    Each layer computes only what is new at a pixel and channel, so that the
    arithmetic is that of one pass over the images, not of H W C passes. The
    logits are those of `__call__`.

    Args:
      choose: (state, logits [B, levels], row, column, channel) to the next state,
        the values of all images there, int [B], and whatever is to be collected. It
        may draw them, look them up, or decode them.
      batch: B.
      small: see `__call__`.
      state: what `choose` is given at the first value, a tree of arrays.

    Returns:
      The values, uint8 [B, H, W, C], what `choose` gave to be collected, a list of C
      trees with leading axes [H, W], and the state after the last value.
    """
    config, layer = self.config, self.layer
    height, width, channels = config.image_shape
    reach = config.first_kernel_size // 2
    condition = self.condition(small, batch)
    channel_params = [layer.channel_params(self.layers, c) for c in range(channels)]
    first_params = [self.first_own_row(c) for c in range(channels)]
    head_params = [
        self.head.channel_params(self.head_params, c) for c in range(channels)]

    def one_pixel(carry, xs):
      values_left, lefts, state = carry
      row, column, first_above, above = xs
      seen, values, collected = values_left, [], []
      pixels, known = {}, [[] for _ in self.head_params]
      for c in range(channels):
        x = groups.own(first_above, c, channels) + seen @ first_params[c]

        def one_layer(x, xs, c=c):
          params, above, left, pixel = xs
          y, skip, pixel = layer.value(params, c, above, left, pixel, x)
          return y, (skip, pixel)

        x, (skips, pixels) = lax.scan(
            one_layer, x, (channel_params[c], above, lefts, pixels))
        if config.skip:
          x = x + skips.sum(axis=0)
        logits, known = self.head.value_logits(head_params[c], known, x)
        state, value, more = choose(state, logits, row, column, c)
        values.append(value.astype(jnp.uint8))
        collected.append(more)
        seen = jnp.concatenate([seen, self.scale(value)[:, None]], axis=-1)
      lefts = jax.vmap(layer.next_pixel)(lefts, pixels)
      values = jnp.stack(values, axis=-1)
      return (seen[:, channels:], lefts, state), (pixels, values, collected)

    def one_row(carry, xs):
      values_above, states, state = carry
      row, condition = xs
      first_above = ops.rows_above(
          values_above, **self.first, mask=self.first_mask)
      biases = jax.vmap(layer.biases, in_axes=(0, None))(self.layers, condition)
      above = jax.vmap(layer.row, out_axes=1)(self.layers, states, biases)
      start = (
          jnp.zeros((batch, reach * channels), config.dtype),
          jax.vmap(lambda params: layer.start_row(params, batch))(self.layers),
          state,
      )
      rows = jnp.full(width, row)
      (_, _, state), (pixels, values, collected) = lax.scan(
          one_pixel, start, (rows, jnp.arange(width), first_above, above))
      states = jax.vmap(layer.next_row, in_axes=(0, 0, 1, 0))(
          self.layers, states, pixels, biases)
      values_above = jnp.concatenate([values_above, self.scale(values)[None]])[1:]
      return (values_above, states, state), (values, collected)

    start = (
        jnp.zeros((reach, width, batch, channels), config.dtype),
        jax.vmap(lambda params: layer.start(params, batch))(self.layers),
        state,
    )
    (_, _, state), (values, collected) = lax.scan(
        one_row, start, (jnp.arange(height), condition))
    return jnp.transpose(values, (2, 0, 1, 3)), collected, state

  def first_own_row(self, channel: int) -> jax.Array:
    """The first layer's weights of its own row, cut to a channel's group.

    [reach * C + channel, g]: the values to the left, then the channels before.
    """
    channels = self.config.image_shape[2]
    reach = self.config.first_kernel_size // 2
    row = (self.first["kernel"] * self.first_mask)[reach]
    row = row[: reach + 1].reshape((reach + 1) * channels, row.shape[-1])
    row = row[: reach * channels + channel].astype(self.config.dtype)
    return groups.own(row, channel, channels)
