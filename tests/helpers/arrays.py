"""NumPy's arrays as JAX's, which `ops` takes."""

import jax.numpy as jnp


def as_jax(*arrays):
  return tuple(map(jnp.asarray, arrays))
