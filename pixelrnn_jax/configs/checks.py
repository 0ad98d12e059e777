"""Checks of a dataclass's fields: types, least values, choices, missing ones.

Each check raises an InputError that names the field as the command line does.
"""

import dataclasses
import typing
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from pixelrnn_jax.errors import InputError

# The largest whole number of a field. A config.json may come from anybody.
_LARGEST = 2**32 - 1


class PlainFields:
  """A base of dataclasses whose fields become plain values of Python when they are set.

  Numbers and arrays of NumPy and JAX become numbers and tuples, and lists become
  tuples: JSON and hashing need that.
  """

  def __setattr__(self, name: str, value: Any) -> None:
    """Set a field."""
    super().__setattr__(name, _plain(value))


def _plain(value: Any) -> Any:
  """Return a value as one of Python's own; others are returned as they are."""
  if isinstance(value, (np.generic, np.ndarray, jax.Array)) and not isinstance(
      value, Tracer):
    value = value.tolist()
  if isinstance(value, (list, tuple)):
    return tuple(map(_plain, value))
  return value


def check_types(part: Any, path: str) -> None:
  """Raise InputError where a field's value is not of its annotated type."""
  for name, hint in typing.get_type_hints(type(part)).items():
    value = getattr(part, name)
    for number in value if isinstance(value, tuple) else (value,):
      if isinstance(number, int) and abs(number) > _LARGEST:
        raise InputError(f"{path}.{name}: whole numbers are at most {_LARGEST}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
      continue  # 1 for 1.0
    if typing.get_origin(hint) is tuple:
      wanted = typing.get_args(hint)
      described = "(" + ", ".join(getattr(w, "__name__", "...") for w in wanted) + ")"
      found = [type(v) for v in value] if isinstance(value, tuple) else None
      if wanted[-1] is ... and found is not None:  # of any length
        wanted = wanted[:1] * len(found)
      good = found == list(wanted)
    else:
      good = type(value) is hint
      described = hint.__name__
    if not good:
      raise InputError(
          f"{path}.{name}={value!r} is of the wrong type: it must be {described}."
      )


def check_least(part: Any, path: str, least: int, *names: str) -> None:
  """Raise InputError unless the fields of these names are at least `least`."""
  for name in names:
    value = getattr(part, name)
    if value < least:
      allowed = f"at least {least}" if least else "0 or more"
      raise InputError(f"{path}.{name}={value}: must be {allowed}.")


def check_most(part: Any, path: str, most: int, *names: str) -> None:
  """Raise InputError unless the fields of these names are at most `most`."""
  for name in names:
    value = getattr(part, name)
    if value > most:
      raise InputError(f"{path}.{name}={value}: must be at most {most:,}.")


def check_choice(path: str, value: str, choices: tuple[str, ...]) -> None:
  """Raise InputError unless `value` is one of `choices`."""
  if value not in choices:
    raise InputError(f"{path}={value!r}: must be one of {', '.join(choices)}.")


def required_fields(cls: type) -> set[str]:
  """Return the names of a dataclass's fields that have no default."""
  return {
      field.name for field in dataclasses.fields(cls)
      if field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
  }
