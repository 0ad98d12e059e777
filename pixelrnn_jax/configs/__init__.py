"""The named configurations: one function each, its docstring on top.

- `mnist.py`, `cifar10.py`, `imagenet.py`: the paper's experiments and their figures.
- `multi_scale.py`: experiments with several scales.
- `quickstart.py`: the three-minute experiment.
- `photos.py`: experiments on the photographs in the package.
- `smoke.py`: `NAME:smoke`, the same pipeline shrunk to a minute of work.
- `rmsprop.py`: `NAME:rmsprop`, the same experiment with the paper's optimiser.
- `schema.py`: the dataclasses of which a configuration is made; `checks.py` has the
  checks that they share.
- `fields.py`: a field by its name, as in "model.layers".
- `json_text.py`: a configuration as the text of `config.json`.

`CONFIGS` maps every name that `--config` takes to its function. `load_config` calls it.
"""

import difflib
import inspect

from pixelrnn_jax.configs import (
  cifar10,
  imagenet,
  mnist,
  multi_scale,
  photos,
  quickstart,
)
from pixelrnn_jax.configs.rmsprop import rmsprop
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.configs.smoke import smoke
from pixelrnn_jax.errors import InputError

CONFIGS = {
    name: function
    for module in (quickstart, photos, mnist, cifar10, imagenet, multi_scale)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if not name.startswith("_") and function.__module__ == module.__name__
}

# NAME:VARIANT is the config of that name, changed by the function.
VARIANTS = {"smoke": smoke, "rmsprop": rmsprop}

__all__ = ["CONFIGS", "VARIANTS", "load_config"]


def load_config(name: str) -> Config:
  """Return the configuration of that name, checked.

  Args:
    name: a function's name in `pixelrnn_jax/configs/`, `NAME:smoke` or
      `NAME:rmsprop`.

  Returns:
    A configuration of its own, which may be changed.

  Raises:
    InputError: there is no such name.
  """
  if not isinstance(name, str):
    raise InputError(
        f"The name of a config is text, not of the type {type(name).__name__}.")
  base, *variants = name.split(":")
  if base not in CONFIGS:
    near = difflib.get_close_matches(base, CONFIGS, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(
        f"There is no config named {base!r}.{hint} The names are: "
        + ", ".join(CONFIGS) + "."
    )
  for variant in variants:
    if variant not in VARIANTS:
      raise InputError(
          f"Config {name!r}: there is no variant {variant!r}; use "
          + " or ".join(f"{base}:{known}" for known in VARIANTS) + "."
      )
  config = CONFIGS[base]()
  config.name = base
  for variant in variants:
    config = VARIANTS[variant](config)
  config.validate()
  return config
