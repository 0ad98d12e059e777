"""Float64 for a test: exact zeros and tight tolerances."""

import jax
import jax.experimental

# JAX 0.7, which Colab has, keeps it in jax.experimental.
enable_x64 = (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64
