"""Float64 for a test: exact zeros and tight tolerances."""

import jax
import jax.experimental

# JAX 0.7, Colab's, has it among what is experimental.
enable_x64 = getattr(jax, "enable_x64", None) or jax.experimental.enable_x64
