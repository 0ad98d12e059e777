"""The multi-scale PixelRNN (paper, section 3.6).

An unconditional network for the smallest scale, and for each larger one a network
that is conditional on the scale below it:

    log p(x_0, ..., x_S) = log p(x_0) + sum_s log p(x_s | x_{s-1})

with x_S the whole image and x_{s-1} every f-th pixel of x_s (`ops.subsample`), in
training, evaluation and sampling alike. This joint is exact. The smaller scales
follow from the image, so its likelihood is the sum of the joint over all that the
smaller scales might have been: the joint is a lower bound of log p(x_S).

The scales share no parameter, so each can be trained by itself.

Shapes: B batch, H height, W width, C channels of the whole image; S + 1 scales.
"""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models.pixel_rnn import PixelRNN


class MultiScalePixelRNN(nn.Module):
  """One `PixelRNN` a scale, all of the same kind and sizes.

  Parameters: scales_0 (the coarsest, unconditional), scales_1, ...; see `PixelRNN`.

  Attributes:
    config: the model's configuration; see `build_model`.
  """

  config: ModelConfig

  def setup(self):
    config = self.config
    self.scales = [
        PixelRNN(dataclasses.replace(config, image_shape=shape, multi_scale=()), factor)
        for shape, factor in zip(
            config.scale_shapes(), (1, *config.multi_scale), strict=True)
    ]

  def make_parameters(self) -> None:
    """Makes all parameters and computes nothing, for `init` to tell their shapes."""
    for network in self.scales:
      network.make_parameters()

  def __call__(
      self, images: jax.Array, smaller: Sequence[jax.Array] | None = None
  ) -> tuple[jax.Array, ...]:
    """Logits of every value of every scale given all values before it.

    Args:
      images: [B, H, W, C], see `PixelRNN.__call__`.
      smaller: the images of the smaller scales, the coarsest first; by default
        they are the subsampled images, as everywhere else.

    Returns:
      [B, H_s, W_s, C, levels] of each scale, the coarsest first; see `PixelRNN`.

    Raises:
      InputError: images that are not of the model's shapes.
    """
    scales = self.all_scales(images, smaller)
    return tuple(
        network(x, small) for network, x, small in self._with_smaller(scales))

  def total_nats(self, images: jax.Array) -> tuple[jax.Array, ...]:
    """-sum log p(x_s | x_{s-1}) over a batch, nats, a scalar for every scale.

    Args and errors: see `__call__`; the values must be integers.
    """
    scales = self.all_scales(images)
    return tuple(
        network.total_nats(x, small)
        for network, x, small in self._with_smaller(scales))

  def by_value(
      self, choose: Callable, batch: int, given: Sequence[jax.Array] = (), state=()
  ) -> tuple:
    """Runs the networks value by value, the coarsest first.

    Args:
      choose: (scale, state, logits, row, column, channel) to the next state, values
        and what is to be collected; see `PixelRNN.by_value`.
      batch: B.
      given: images of the coarsest scales, which are taken as they are.
      state: what `choose` is given at the first value of all.

    Returns:
      (images, collected) for each scale, see `PixelRNN.by_value`; nothing is
      collected of those that were given. And the state after the last value.
    """
    results = [(images, None) for images in given]
    for scale, network in enumerate(self.scales):
      if scale >= len(given):
        small = results[-1][0] if results else None

        def of_scale(state, logits, row, column, channel, scale=scale):
          return choose(scale, state, logits, row, column, channel)

        *result, state = network.by_value(of_scale, batch, small, state)
        results.append(tuple(result))
    return tuple(results), state

  @property
  def parameter_names(self) -> tuple[str, ...]:
    """The names of the scales' parameters, the coarsest's first."""
    return tuple(f"scales_{s}" for s in range(len(self.config.multi_scale) + 1))

  def all_scales(self, images, smaller=None) -> tuple:
    """The images of all scales, the coarsest first; see `__call__`."""
    images = arguments.model_input(self.config, images)
    if smaller is None:
      return ops.pyramid(images, self.config.multi_scale)
    wanted = self.config.scale_shapes()[:-1]
    found = [np.shape(x) for x in smaller]
    if found != [(len(images), *shape) for shape in wanted]:
      raise InputError(
          f"Smaller scales of shapes {found}: this model takes"
          f" {[(len(images), *shape) for shape in wanted]}, the coarsest first."
      )
    return (*map(jnp.asarray, smaller), images)

  def _with_smaller(self, scales: Sequence[jax.Array]):
    """(network, its images, those that they are conditional on) of each scale."""
    return zip(self.scales, scales, (None, *scales[:-1]), strict=True)
