"""NumPy's arrays as JAX's: what `ops` is made for."""

import jax.numpy as jnp


def as_jax(*arrays):
  return tuple(map(jnp.asarray, arrays))
