"""Random parameters of a model.

They are drawn without `model.init`, which is slow to compile.
"""

import jax
import jax.numpy as jnp
import numpy as np

import pixelrnn_jax as prnn


def random_variables(model, rng, noise):
  """Return random variables of a model.

  Biases and initial states are random, too, although training starts them at 0. The
  variance of a kernel is that of its initial values plus `noise` squared. The standard
  deviation of all other parameters is `noise`.
  """
  images = jax.ShapeDtypeStruct((1, *model.config.image_shape), np.uint8)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)

  def draw(path, x):
    scale = noise
    if path[-1].key == "kernel":
      scale = np.hypot(noise, np.prod(x.shape[-3:-1]) ** -0.5)
    return jnp.asarray(scale * rng.normal(size=x.shape), x.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def strengthen_conditions(variables, factor):
  """Return variables with stronger conditions of large images on small ones.

  The weights between the small and the large image are multiplied by `factor`.
  """

  def strengthen(path, x):
    name = jax.tree_util.keystr(path)
    return factor * x if "condition" in name or "up'" in name else x

  return jax.tree_util.tree_map_with_path(strengthen, variables)


def random_model(kind, shape, levels, **changes):
  """Return a model and random variables. Its distribution is far from uniform."""
  model = prnn.build_model(prnn.ModelConfig(
      kind, shape, levels=levels, hidden=6, layers=2, head_features=9, **changes))
  return model, random_variables(model, np.random.default_rng(0), 0.5)
