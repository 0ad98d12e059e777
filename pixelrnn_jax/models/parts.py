"""Initial values of the parameters of masked layers.

A masked layer's parameters are a dictionary with `kernel` and `bias`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, jax.Array]
Init = Callable[[jax.Array, jnp.dtype], Params]


def masked_layer(mask: np.ndarray) -> Init:
  """Kernel and bias of a layer whose kernel has the mask's shape.

  The kernel is normal with variance 1 / (number of weights that the output
  feature really sees), so that masking does not shrink the activations; the
  bias is zero.
  """
  # An output that sees nothing (channel R at the centre of a 1x1 mask A).
  fan_in = np.maximum(mask.sum(axis=tuple(range(mask.ndim - 1))), 1)

  def init(key: jax.Array, dtype: jnp.dtype) -> Params:
    scale = jnp.asarray(1.0 / np.sqrt(fan_in), dtype)
    kernel = jax.random.normal(key, mask.shape, dtype) * scale
    return {"kernel": kernel, "bias": jnp.zeros(mask.shape[-1:], dtype)}

  return init


def upsampling(factor: int, features: int, outputs: int) -> Init:
  """A transposed convolution: kernel [f, f, F, G], bias [G].

  The kernel is normal with variance 1 / F, as an output sees one position; the
  bias is zero.
  """

  def init(key: jax.Array, dtype: jnp.dtype) -> Params:
    kernel = jax.random.normal(key, (factor, factor, features, outputs), dtype)
    scale = jnp.asarray(features ** -0.5, dtype)
    return {"kernel": kernel * scale, "bias": jnp.zeros(outputs, dtype)}

  return init


def conditioning(features: int, outputs: int) -> Init:
  """The 1x1 convolution of a layer's biases: kernel [F, G], with variance 1 / F.

  It has no bias: that would be the one of the map that it is added to.
  """

  def init(key: jax.Array, dtype: jnp.dtype) -> Params:
    kernel = jax.random.normal(key, (features, outputs), dtype)
    return {"kernel": kernel * jnp.asarray(features ** -0.5, dtype)}

  return init


def recurrence(kernel_shape: tuple[int, ...], directions: tuple[int, ...]) -> Init:
  """An LSTM's state-to-state kernel and its learned initial states.

  The kernel is normal with variance 1 / (taps x h), the initial states zero.

  Args:
    kernel_shape: (taps, h, 4h).
    directions: () for one recurrence, (D,) for D side by side.
  """
  taps, hidden, _ = kernel_shape

  def init(key: jax.Array, dtype: jnp.dtype) -> Params:
    kernel = jax.random.normal(key, (*directions, *kernel_shape), dtype)
    return {
        "kernel": kernel * jnp.asarray((taps * hidden) ** -0.5, dtype),
        "hidden": jnp.zeros((*directions, hidden), dtype),
        "cell": jnp.zeros((*directions, hidden), dtype),
    }

  return init


def together(inits: dict[str, Init]):
  """Initialises layers of several names, each with a key of its own."""

  def init(key: jax.Array, dtype: jnp.dtype):
    keys = jax.random.split(key, len(inits))
    return {
        name: init(k, dtype)
        for (name, init), k in zip(sorted(inits.items()), keys, strict=True)
    }

  return init


def stacked(inits: dict[str, Init], layers: int):
  """Initialises `layers` copies of a layer, stacked on a leading axis."""

  def init(key: jax.Array, dtype: jnp.dtype):
    one = together(inits)
    return jax.vmap(lambda k: one(k, dtype))(jax.random.split(key, layers))

  return init
