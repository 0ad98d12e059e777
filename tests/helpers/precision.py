"""Float64 for a test, for exact zeros and tight tolerances."""

import jax
import jax.experimental

# JAX 0.7, the version of Colab, has `enable_x64` in jax.experimental.
enable_x64 = (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64
