"""The named configurations: one function each, its docstring on top.

`mnist.py`, `cifar10.py` and `imagenet.py` hold the paper's experiments and their
figures, `multi_scale.py` those of several scales, `quickstart.py` the five-minute
one. `CONFIGS` maps every name that
`--config` takes to its function.
"""

import inspect

from pixelrnn_jax.configs import cifar10, imagenet, mnist, multi_scale, quickstart
from pixelrnn_jax.configs.rmsprop import rmsprop
from pixelrnn_jax.configs.smoke import smoke

CONFIGS = {
    name: function
    for module in (quickstart, mnist, cifar10, imagenet, multi_scale)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if not name.startswith("_") and function.__module__ == module.__name__
}

# NAME:VARIANT is the config of that name, changed by the function.
VARIANTS = {"smoke": smoke, "rmsprop": rmsprop}

__all__ = ["CONFIGS", "VARIANTS"]
