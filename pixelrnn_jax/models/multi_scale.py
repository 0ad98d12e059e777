"""The multi-scale PixelRNN (paper, section 3.6).

There is an unconditional network for the smallest scale. For each larger scale there
is a network that is conditional on the scale below it:

    log p(x_0, ..., x_S) = log p(x_0) + sum_s log p(x_s | x_{s-1})

x_S is the whole image, and x_{s-1} is every f-th pixel of x_s (`ops.subsample`), in
training, evaluation and sampling alike. This joint is exact. The smaller scales follow
from the image, so the likelihood of the image alone is the sum of the joint over all
smaller scales that there might have been. The joint is therefore a lower bound of
log p(x_S).

The scales share no parameters, so each can be trained by itself.

Shapes: B batch, H height, W width, C channels of the whole image; S + 1 scales.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PyTree, Real

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.models.pixel_rnn import Images, PixelRNN


class MultiScalePixelRNN(nn.Module):
  """One `PixelRNN` for each scale, all of the same kind and sizes.

  Parameters: scales_0 (the coarsest, unconditional), scales_1, ...; see `PixelRNN`.

  Attributes:
    config: the model's configuration; see `build_model`.
  """

  config: ModelConfig

  def setup(self):
    """Make a network for each scale, the coarsest first."""
    config = self.config
    self.scales = [
        PixelRNN(dataclasses.replace(config, image_shape=shape, multi_scale=()), factor)
        for shape, factor in zip(
            config.scale_shapes(), (1, *config.multi_scale), strict=True)
    ]

  def make_parameters(self) -> None:
    """Make all parameters and compute nothing, so `init` can tell their shapes."""
    for network in self.scales:
      network.make_parameters()

  def __call__(
      self, images: Images, smaller: Sequence[Images] | None = None
  ) -> tuple[Float[Array, "B _ _ C levels"], ...]:
    """Return the logits of every value of every scale given all values before it.

    Args:
      images: [B, H, W, C]; see `PixelRNN.__call__`.
      smaller: the images of the smaller scales, the coarsest first. By default they
        are the subsampled images, as everywhere else.

    Returns:
      [B, H_s, W_s, C, levels] of each scale, the coarsest first; see `PixelRNN`.

    Raises:
      InputError: see `PixelRNN.__call__`.
    """
    return self.logits_by_scale(images, smaller)

  def logits_by_scale(
      self, images: Images, smaller: Sequence[Images] | None = None
  ) -> tuple[Float[Array, "B _ _ C levels"], ...]:
    """Return the logits of all scales; see `__call__`."""
    scales = self.all_scales(images, smaller)
    return tuple(
        network(x, small) for network, x, small in self._with_smaller(scales))

  def nats_by_scale(self, images: Images) -> tuple[Float[Array, ""], ...]:
    """Return -sum log p(x_s | x_{s-1}) over a batch for every scale.

    Args:
      images: integers [B, H, W, C], raw values 0 to levels - 1.

    Returns:
      A scalar in nats for each scale, the coarsest first.

    Raises:
      InputError: the images are not of the model's shape.
    """
    scales = self.all_scales(images)
    return tuple(
        network.batch_nats(x, small)
        for network, x, small in self._with_smaller(scales))

  def decode_scales(
      self,
      choose: Callable[..., tuple],
      batch: int,
      given: Sequence[Integer[Array, "B _ _ C"]] = (),
      state: PyTree = (),
  ) -> tuple[tuple[tuple[Integer[Array, "B _ _ C"], PyTree], ...], PyTree]:
    """Run the networks value by value, the coarsest first.

    Args:
      choose: a function of (scale, state, logits, row, column, channel). It returns
        the next state, the values and a tree to collect; see `PixelRNN.by_value`.
      batch: B.
      given: the images of the coarsest scales, which are taken as they are.
      state: the state that `choose` receives at the first value of all.

    Returns:
      (images, collected) of each scale, and the state after the last value; see
      `PixelRNN.by_value`. Nothing is collected for the given images.

    Raises:
      InputError: the given images are of another shape.
    """
    results = [(images, None) for images in given]
    for scale, network in enumerate(self.scales):
      if scale >= len(given):
        small = results[-1][0] if results else None
        images, collected, state = network.by_value(
            functools.partial(choose, scale), batch, small, state)
        results.append((images, collected))
    return tuple(results), state

  @property
  def parameter_names(self) -> tuple[str, ...]:
    """The names of the scales' parameters, the coarsest's first."""
    return tuple(f"scales_{s}" for s in range(len(self.config.multi_scale) + 1))

  def all_scales(
      self, images: Images, smaller: Sequence[Images] | None = None
  ) -> tuple[Real[Array, "B _ _ C"], ...]:
    """Return the images of all scales, the coarsest first.

    Args:
      images: [B, H, W, C].
      smaller: see `__call__`.

    Raises:
      InputError: the images are not of the model's shapes.
    """
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

  def _with_smaller(
      self, scales: Sequence[Array]
  ) -> Iterator[tuple[PixelRNN, Array, Array | None]]:
    """Return for each scale (network, its images, the next smaller images)."""
    return zip(self.scales, scales, (None, *scales[:-1]), strict=True)
