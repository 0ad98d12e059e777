"""The protocol of a network's parts, and the elementary parts.

    init(key, dtype) -> params         draw the initial parameters
    __call__(params, x, ...) -> y      compute, as a pure function of them

A part holds sizes and masks and no arrays, so one part serves any parameters of its
shape. The package's docstring says why parts are not Linen modules.

Shapes: H height, W width, B batch, F input features, G output features.
"""

import abc
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from pixelrnn_jax import ops

# The parameters of an elementary part, by name: `kernel`, `bias`, ...
Weights = Mapping[str, Float[Array, "..."]]
# The parameters of a composite part: its parts' parameters, by their names.
Params = Mapping[str, Weights]


class Part(abc.ABC):
  """A part of a network: how it is initialised and what it computes."""

  @abc.abstractmethod
  def init(self, key: PRNGKeyArray, dtype: np.dtype) -> PyTree:
    """Draw the initial parameters.

    Args:
      key: a key of `jax.random`.
      dtype: the dtype of the parameters.
    """

  @abc.abstractmethod
  def __call__(self, params: PyTree, x: Array, /) -> PyTree:
    """Compute the part's output.

    Args:
      params: parameters of the shapes that `init` gives.
      x: the input.
    """


class MaskedConvolution(Part):
  """A masked convolution with a bias.

  The mask's axes are those of the kernel: [F, G] is a 1 x 1 convolution, [K, F, G] one
  along the row, [KH, KW, F, G] one in both directions. A mask of ones is no mask.
  """

  def __init__(
      self, mask: Bool[np.ndarray, "*K F G"],
      choices: ops.Choices = ops.BY_BACKEND,
  ):
    self.mask = mask
    self.choices = choices

  def init(self, key: PRNGKeyArray, dtype: np.dtype) -> Weights:
    """Draw a normal kernel of variance 1 / (visible inputs); the bias is zero.

    The visible inputs of an output are the weights that its mask shows. So the mask
    does not shrink the activations.

    Args:
      key: a key of `jax.random`.
      dtype: the dtype of the parameters.

    Returns:
      kernel, of the mask's shape, and bias [G].
    """
    # In a 1 x 1 mask A, channel R sees nothing.
    visible = np.maximum(self.mask.sum(axis=tuple(range(self.mask.ndim - 1))), 1)
    scale = jnp.asarray(1.0 / np.sqrt(visible), dtype)
    kernel = jax.random.normal(key, self.mask.shape, dtype) * scale
    return {"kernel": kernel, "bias": jnp.zeros(self.mask.shape[-1:], dtype)}

  def __call__(
      self, params: Weights, x: Float[Array, "*N F"]
  ) -> Float[Array, "*N G"]:
    """Convolve a map, [..., F] to [..., G]; see `ops.masked_conv2d`."""
    if self.mask.ndim == 2:
      return ops.masked_dense(x, params["kernel"], params["bias"], self.mask)
    convolve = {3: ops.masked_conv1d, 4: ops.masked_conv2d}[self.mask.ndim]
    return convolve(x, params["kernel"], params["bias"], self.mask, self.choices)


class TransposedConvolution(Part):
  """A transposed convolution with stride f and a kernel of f x f."""

  def __init__(self, factor: int, features: int, outputs: int):
    self.kernel_shape = (factor, factor, features, outputs)

  def init(self, key: PRNGKeyArray, dtype: np.dtype) -> Weights:
    """Draw a normal kernel of variance 1 / F; the bias is zero.

    An output sees a single position of the input, so it sees F values.

    Args:
      key: a key of `jax.random`.
      dtype: the dtype of the parameters.

    Returns:
      kernel [f, f, F, G] and bias [G].
    """
    *_, features, outputs = self.kernel_shape
    kernel = jax.random.normal(key, self.kernel_shape, dtype)
    scale = jnp.asarray(features ** -0.5, dtype)
    return {"kernel": kernel * scale, "bias": jnp.zeros(outputs, dtype)}

  def __call__(
      self, params: Weights, x: Float[Array, "H W B F"]
  ) -> Float[Array, "fH fW B G"]:
    """Enlarge a map, [H, W, B, F] to [f H, f W, B, G]."""
    return ops.transposed_conv2d(x, **params)


class Projection(Part):
  """A 1 x 1 convolution without a mask and without a bias."""

  def __init__(self, features: int, outputs: int):
    self.features = features
    self.outputs = outputs

  def init(self, key: PRNGKeyArray, dtype: np.dtype) -> Weights:
    """Draw a normal kernel of variance 1 / F.

    Args:
      key: a key of `jax.random`.
      dtype: the dtype of the parameters.

    Returns:
      kernel [F, G].
    """
    kernel = jax.random.normal(key, (self.features, self.outputs), dtype)
    return {"kernel": kernel * jnp.asarray(self.features ** -0.5, dtype)}

  def __call__(
      self, params: Weights, x: Float[Array, "*N F"]
  ) -> Float[Array, "*N G"]:
    """Return x kernel, [..., F] to [..., G]."""
    return x @ params["kernel"].astype(x.dtype)


class Recurrence(Part):
  """An LSTM's state-to-state convolution and its learned initial states.

  Attributes:
    scan: `ops.row_scan` or `ops.diagonal_scan`.
    kernel_shape: (taps, h, 4h).
    directions: () for one recurrence, (D,) for D side by side.
  """

  def __init__(
      self,
      scan: Callable[..., Array],
      kernel_shape: tuple[int, int, int],
      directions: tuple[int, ...] = (),
  ):
    self.scan = scan
    self.kernel_shape = kernel_shape
    self.directions = directions

  def init(self, key: PRNGKeyArray, dtype: np.dtype) -> Weights:
    """Draw a normal kernel of variance 1 / (taps h); the initial states are zero.

    Args:
      key: a key of `jax.random`.
      dtype: the dtype of the parameters.

    Returns:
      kernel [..., taps, h, 4h], hidden [..., h] and cell [..., h], where ... is
      nothing or the directions.
    """
    taps, hidden, _ = self.kernel_shape
    kernel = jax.random.normal(key, (*self.directions, *self.kernel_shape), dtype)
    return {
        "kernel": kernel * jnp.asarray((taps * hidden) ** -0.5, dtype),
        "hidden": jnp.zeros((*self.directions, hidden), dtype),
        "cell": jnp.zeros((*self.directions, hidden), dtype),
    }

  def __call__(
      self, params: Weights, x: Float[Array, "*N G"], width: int | None = None
  ) -> Float[Array, "*N h"]:
    """Run the recurrence over input-to-state maps.

    Args:
      params: from `init`.
      x: the maps with their biases, as the scan takes them.
      width: see `ops.diagonal_scan`.

    Returns:
      The hidden states.
    """
    options = {} if width is None else {"width": width}
    return self.scan(x, **params, **options)


class Composite(Part):
  """A part that is made of others.

  Attributes:
    parts: the parts by name.
  """

  parts: Mapping[str, Part]

  def init(self, key: PRNGKeyArray, dtype: np.dtype) -> Params:
    """Draw each part's parameters with a key of its own.

    Args:
      key: a key of `jax.random`.
      dtype: the dtype of the parameters.

    Returns:
      The parts' parameters, by name.
    """
    keys = jax.random.split(key, len(self.parts))
    return {
        name: part.init(k, dtype)
        for (name, part), k in zip(sorted(self.parts.items()), keys, strict=True)
    }

  @functools.cached_property
  def masks(self) -> dict[str, Bool[np.ndarray, "..."]]:
    """The masks of the masked convolutions, by name."""
    return {
        name: part.mask for name, part in self.parts.items()
        if isinstance(part, MaskedConvolution)
    }
