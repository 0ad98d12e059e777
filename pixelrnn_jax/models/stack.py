"""The layers on top of one another (paper, section 4 and Table 1).

The parameters of all L layers are stacked on a leading axis, and `lax.scan` runs over
it. So the compiled program does not grow with the number of layers.

Shapes: L layers, H height, W width, B batch, F = 2h features of the trunk, c features
of the condition.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models.layer import Layer
from pixelrnn_jax.models.parts import Params, Part


class LayerStack(Part):
  """L layers of one kind, and the sum of their skips.

  Attributes:
    layer: one of them.
  """

  def __init__(self, config: ModelConfig, layer: Layer):
    self.config = config
    self.layer = layer

  def init(self, key: PRNGKeyArray, dtype: np.dtype) -> Params:
    """Draw each layer's parameters with a key of its own.

    Args:
      key: a key of `jax.random`.
      dtype: the dtype of the parameters.

    Returns:
      The layer's parameters, each with a leading axis of L.
    """
    init = functools.partial(self.layer.init, dtype=dtype)
    return jax.vmap(init)(jax.random.split(key, self.config.layers))

  def __call__(
      self,
      params: Params,
      x: Float[Array, "H W B F"],
      condition: Float[Array, "H W B c"] | None = None,
  ) -> Float[Array, "H W B F"]:
    """Run all layers over a whole map.

    Args:
      params: the parameters of the stack.
      x: the output of the first layer, [H, W, B, 2h].
      condition: the map that the layers are conditional on, [H, W, B, c].

    Returns:
      The last layer's output plus all skips, [H, W, B, 2h].
    """
    layer = jax.checkpoint(self.layer) if self.config.rematerialize else self.layer

    def one_layer(carry, params):
      x, skips = carry
      x, more = layer(params, x, condition)
      return (x, None if skips is None else skips + more), None

    start = (x, jnp.zeros_like(x) if self.config.skip else None)
    with jax.named_scope("layers"):
      (x, skips), _ = lax.scan(one_layer, start, params)
    return x if skips is None else x + skips
