"""The named configurations: one function each, its docstring on top.

`mnist.py`, `cifar10.py` and `imagenet.py` hold the paper's experiments and their
figures, `quickstart.py` the five-minute one. `CONFIGS` maps every name that
`--config` takes to its function.
"""

import inspect

from pixelrnn_jax.configs import cifar10, imagenet, mnist, quickstart
from pixelrnn_jax.configs.smoke import smoke

CONFIGS = {
    name: function
    for module in (quickstart, mnist, cifar10, imagenet)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if not name.startswith("_") and function.__module__ == module.__name__
}

__all__ = ["CONFIGS", "smoke"]
