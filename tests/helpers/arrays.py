"""Conversion of NumPy arrays to JAX arrays, which `ops` takes."""

import jax.numpy as jnp


def as_jax(*arrays):
  return tuple(map(jnp.asarray, arrays))
