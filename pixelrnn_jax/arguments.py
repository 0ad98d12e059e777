"""Checks of what a caller hands to the package's functions, in one place.

Whole and real numbers may be Python's, NumPy's or JAX's. The values of images are
checked where they are known. Inside `jax.jit` and the like only their shape and dtype
are known.
"""

import contextlib
import functools
import math
import numbers
import operator
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict, unfreeze
from jax.core import Tracer

from pixelrnn_jax.configs.schema import Config, ModelConfig
from pixelrnn_jax.errors import InputError

# The most images at a call: their keys count them in 32 bits.
MOST_IMAGES = 2**31 - 1


def is_traced(*trees) -> bool:
  """Return whether an array in the trees is a tracer, such as of `jax.jit`."""
  return any(isinstance(x, Tracer) for x in jax.tree.leaves(trees))


def whole(
    name: str, value, least: int | None = 1, most: int | None = None
) -> int:
  """Return a whole number as an int.

  Args:
    name: the name of the argument, for the message.
    value: an integer of Python, NumPy or JAX, also an array of shape ().
    least: the least value that is allowed. None allows any.
    most: the largest value that is allowed. None allows any.

  Raises:
    InputError: another type, such as a float or a bool, a value below `least` or above
      `most`, or a tracer.
  """
  _check_known(name, value)
  allowed = "a whole number" if least is None else f"a whole number, {least} or more"
  boolean = isinstance(value, bool) or getattr(value, "dtype", None) == np.bool_
  try:
    number = None if boolean or np.ndim(value) else operator.index(value)
  except (TypeError, ValueError):  # no integer; lists within lists of other lengths
    number = None
  if number is None:
    raise InputError(f"{name}={shown(value)}: must be {allowed}.")
  if least is not None and number < least:
    raise InputError(
        f"{name}={shown(value)}: must be at least {least}. Give {allowed}."
    )
  if most is not None and number > most:
    raise InputError(f"{name}={shown(value)}: must be at most {most:,}.")
  return number


def pixel(value, height: int, width: int) -> tuple[int, int]:
  """Return a pixel's row and column as ints.

  Args:
    value: (row, column), from 0; whole numbers of Python, NumPy or JAX.
    height: the number of rows.
    width: the number of columns.

  Raises:
    InputError: it is no such pair, or outside the image.
  """
  try:
    row, column = value
  except (TypeError, ValueError) as error:
    raise InputError(
        f"pixel={shown(value)}: give a row and a column, (row, column)."
    ) from error
  row = whole("the row of pixel", row, least=None)
  column = whole("the column of pixel", column, least=None)
  if not (0 <= row < height and 0 <= column < width):
    raise InputError(
        f"There is no pixel {shown(row)},{shown(column)}: rows are 0 to {height - 1},"
        f" columns 0 to {width - 1}."
    )
  return row, column


def real(name: str, value: Any, least: float, needed: str) -> float:
  """Return a finite real number as a float.

  Args:
    name: the name of the argument, for the message.
    value: a number of Python, NumPy or JAX, also an array of shape ().
    least: the least value that is allowed.
    needed: the message after the value, such as "must be positive.".

  Raises:
    InputError: another type, a value below `least`, infinity, NaN or a tracer.
  """
  _check_known(name, value)
  dtype = getattr(value, "dtype", None)
  if dtype is None:
    kind = type(value)
    good = issubclass(kind, numbers.Real) and kind is not bool
  else:
    good = np.ndim(value) == 0 and (
        jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))
  # A number of Python: NumPy would warn that the largest float is none of float32.
  number = value.item() if good and dtype is not None else value
  # `not <=` refuses NaN, too. A whole number beyond floats is no float.
  if not good or not least <= number < math.inf or number > sys.float_info.max:
    raise InputError(f"{name}={shown(value)}: {needed}")
  return float(number)


def shown(value) -> str:
  """Return a value for a message: in one line, and not a long one."""
  try:
    text = " ".join(repr(value).split())
  except ValueError:  # of a number of thousands of digits
    return f"a {type(value).__name__} of very many digits"
  return text if len(text) <= 100 else f"{text[:100]}..."


def _check_known(name: str, value) -> None:
  """Raise InputError for a tracer."""
  if is_traced(value):
    raise InputError(
        f"{name} is traced by jax.jit, jax.vmap or jax.grad, but its value must be"
        " known when the function is called. Give it from outside as a number; jax.jit"
        " has static_argnames for that."
    )


def random_key(key) -> jax.Array:
  """Return a key of `jax.random`, typed, also from an older `PRNGKey`.

  Raises:
    InputError: it is no single key.
  """
  try:
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
      typed = key
    else:
      typed = jax.random.wrap_key_data(key)
  except (TypeError, ValueError, AttributeError):
    typed = None
  if typed is None or typed.shape != ():
    raise InputError(
        f"key={shown(key)}: give one key of jax.random, such as jax.random.key(0)."
    )
  return typed


def path(name: str, value) -> str:
  """Return a path as text, also from `pathlib`.

  Args:
    name: the name of the argument, for the message.
    value: the path.

  Raises:
    InputError: it is of another type.
  """
  try:
    text = os.fspath(value)
  except TypeError:
    text = None
  if not isinstance(text, str):
    raise InputError(f"{name}={shown(value)}: must be a path, as text or of pathlib.")
  return text


def check_on_host(
    name: str, *trees,
    reason: str = "it runs a program of its own for one batch after another",
) -> None:
  """Raise InputError if the function is called while JAX traces.

  Args:
    name: the name of the function.
    *trees: its arguments.
    reason: why it cannot be traced.
  """
  # Inside `jax.jit` a new array is traced too, even where no argument is.
  if is_traced(trees, jnp.zeros(())):
    raise InputError(
        f"{name} runs on the host: {reason}, so it cannot be called inside jax.jit,"
        " jax.vmap or jax.grad. Call it outside of them."
    )


def unbound(model: Any) -> Any:
  """Return the model by itself.

  The given one may be bound to variables, or be part of another model.

  Returns:
    A `models.Model`.

  Raises:
    InputError: it is no model.
  """
  if isinstance(model, nn.Module) and isinstance(
      getattr(model, "config", None), ModelConfig):
    return model.clone(parent=None)
  hint = ""
  if isinstance(model, Config):
    hint = " This is a configuration: build_model(config.model) makes its model."
  elif isinstance(model, ModelConfig):
    hint = " This is a configuration: build_model(config) makes its model."
  raise InputError(
      f"model is of the type {type(model).__name__}: give the model that build_model or"
      f" restore returned.{hint}"
  )


def check_variables(model: nn.Module, variables) -> None:
  """Raise InputError unless the variables are of this model.

  Args:
    model: from `unbound`.
    variables: {"params": ...}, of arrays, tracers or `jax.ShapeDtypeStruct`.
  """
  wanted = parameter_shapes(model)
  usage = (
      " Give what model.init or restore returned: the dictionary {'params': ...}.")
  if not isinstance(variables, Mapping):
    raise InputError(
        f"variables are of the type {type(variables).__name__}, no dictionary.{usage}"
    )
  if "params" not in variables:
    hint = usage
    if set(variables) & set(wanted):
      hint = " These are its contents: give variables, not variables['params']."
    raise InputError(
        f"variables have no entry 'params' but {_listed(variables)}.{hint}")
  params = variables["params"]
  if isinstance(params, FrozenDict):
    params = unfreeze(params)
  wanted, found = _flat_shapes(wanted), _flat_shapes(params)
  if wanted == found:
    return
  reason = f"they hold {next(iter(found.keys() - wanted.keys()), '')}, which it has not"
  for name, shape in wanted.items():
    if name not in found:
      reason = f"they lack {name}"
      break
    if found[name] != shape:
      reason = f"{name} is of shape {found[name]}, and must be {shape}"
      break
  raise InputError(f"variables do not fit the model: {reason}.{usage}")


@functools.lru_cache(maxsize=64)
def parameter_shapes(model: nn.Module) -> dict:
  """Return the model's parameters, as `jax.ShapeDtypeStruct` without values."""
  init = functools.partial(model.init, method="make_parameters")
  return jax.eval_shape(init, jax.random.key(0))["params"]


def _flat_shapes(params) -> dict[str, tuple[int, ...]]:
  """Return the shapes of all parameters, by name, as in "layers/up/kernel"."""
  flat, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: x is None)
  return {
      jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(x)
      for path, x in flat}


def _listed(names: Mapping) -> str:
  """Return the names for a message."""
  return ", ".join(map(repr, names)) or "nothing"


def image_values(config: ModelConfig, images, name: str = "Images") -> jax.Array:
  """Return images as an array, checked to be raw values of the model.

  Args:
    config: the configuration of the model.
    images: integers [B, H, W, C] from 0 to levels - 1, also traced.
    name: the name of the images in the message.

  Returns:
    Integers of the same shape.

  Raises:
    InputError: they are no integers, or have other values.
  """
  if not isinstance(images, jax.Array):
    images = array(images, name)
  if not jnp.issubdtype(images.dtype, jnp.integer):
    raise InputError(
        f"{name} of dtype {images.dtype}: raw integer values are needed, 0 to"
        f" {config.levels - 1} (uint8)."
    )
  # The check comes before the conversion, which would cut 64 bits to 32.
  check_range(images, config.levels, name)
  return jnp.asarray(images)


def model_input(config: ModelConfig, images, name: str = "Images") -> jax.Array:
  """Return images as an array, checked to be raw values, integer or real.

  A likelihood needs integers. Real values are for gradients with respect to images.

  Args:
    config: the configuration of the model.
    images: [B, H, W, C], also traced.
    name: the name of the images in the message.

  Returns:
    An array of the same shape and kind.

  Raises:
    InputError: another shape or dtype, or, where they are known, values that are not
      from 0 to levels - 1.
  """
  if not isinstance(images, jax.Array):
    images = array(images, name)
  check_shape(images, config.image_shape, name)
  real = jnp.issubdtype(images.dtype, jnp.floating)
  if not real and not jnp.issubdtype(images.dtype, jnp.integer):
    raise InputError(
        f"{name} of dtype {images.dtype}: a network takes raw values, integer or real,"
        f" 0 to {config.levels - 1}."
    )
  check_range(images, config.levels, name)
  if real and config.levels > 2 and not is_traced(images):
    values = np.asarray(images)
    if values.max() <= 1 and (values % 1).any():
      warnings.warn(
          f"{name} with real values from {values.min():g} to {values.max():g}: this"
          f" model takes raw values, 0 to {config.levels - 1}, and scales them itself."
          " If these are scaled, give the integers that they were made of.",
          stacklevel=2)
  return jnp.asarray(images)


def array(images, name: str) -> np.ndarray:
  """Return an array, or a list and the like, as an array of NumPy.

  Args:
    images: the numbers.
    name: what the message calls them, in the plural.

  Raises:
    InputError: lists of several lengths.
  """
  try:
    return np.asarray(images)
  except ValueError as error:  # lists of several lengths
    raise InputError(f"{name} are no array: {error}.") from error


def check_shape(
    images, image_shape: tuple[int, int, int], name: str = "Images"
) -> None:
  """Raise InputError unless images are [B, H, W, C] of that shape."""
  if images.ndim != 4 or images.shape[1:] != tuple(image_shape) or len(images) < 1:
    raise InputError(
        f"{name} of shape {images.shape}: this model takes [B, H, W, C] ="
        f" [B, {', '.join(map(str, image_shape))}], with B at least 1."
    )


def check_range(images, levels: int, name: str = "Images") -> None:
  """Raise InputError for values outside 0 to levels - 1; traced ones pass."""
  if is_traced(images):
    return
  images = np.asarray(images)
  if images.size and not (images.min() >= 0 and images.max() <= levels - 1):
    raise InputError(
        f"{name} with values from {images.min()} to {images.max()}: this model"
        f" takes 0 to {levels - 1}. Binarise or rescale the images first."
    )


@contextlib.contextmanager
def forward_mode_explained() -> Iterator[None]:
  """Raise InputError where JAX refuses forward-mode differentiation.

  The fused scan and `total_nats` have gradients of their own, for reverse mode only.
  JAX refuses when it runs the program. Under an outer `jax.jit` that is outside of this
  context, and JAX's own error remains.
  """
  try:
    yield
  except TypeError as error:
    if "custom_vjp" not in str(error):
      raise
    raise InputError(
        "Forward-mode differentiation (jax.jvp, jax.jacfwd, jax.linearize) needs a"
        " model with implementation='autodiff'"
        " (--config.model.implementation=autodiff), and log_prob in place of"
        " total_nats. Reverse mode (jax.grad, jax.vjp) works with any, and so does"
        " jax.jvp of a gradient."
    ) from error
