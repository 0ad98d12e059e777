"""Fields of a configuration by their names, as in "model.layers"."""

import dataclasses
import difflib
import typing
from collections.abc import Callable
from typing import Any

from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError


def check_field(path: str) -> None:
  """Raise InputError unless `path` is "part.field" of a Config."""
  cls, prefix = Config, "config"
  for name in path.split("."):
    names = list(typing.get_type_hints(cls)) if dataclasses.is_dataclass(cls) else []
    if name not in names:
      message = f"config.{path}: {prefix} has no field {name!r}."
      if near := difflib.get_close_matches(name, names, n=3, cutoff=0.5):
        message += f" Did you mean {' or '.join(near)}?"
      if names:
        message += f" Its fields are: {', '.join(names)}."
      raise InputError(message)
    cls, prefix = typing.get_type_hints(cls)[name], f"{prefix}.{name}"
  if dataclasses.is_dataclass(cls):
    raise InputError(
        f"config.{path} is a group of fields; set one of them:"
        f" {', '.join(typing.get_type_hints(cls))}."
    )


def set_field(config: Config, path: str, value: Any) -> None:
  """Set the field "part.field"; `Config.validate` checks the value.

  Raises:
    InputError: there is no such field.
  """
  check_field(path)
  part, dot, name = path.partition(".")
  if not dot:
    raise InputError(f"{path!r}: give a part and its field, as in 'model.layers'.")
  setattr(getattr(config, part), name, value)


def changed_fields(
    old: Config, new: Config, keep: Callable[[dataclasses.Field], bool]
) -> list[str]:
  """Return lines "part.field: OLD became NEW" of the fields that `keep` selects."""

  def changes(old_part, new_part, prefix):
    for field in dataclasses.fields(old_part):
      before = getattr(old_part, field.name)
      after = getattr(new_part, field.name)
      if dataclasses.is_dataclass(before):
        yield from changes(before, after, f"{prefix}{field.name}.")
      elif before != after and keep(field):
        yield f"{prefix}{field.name}: {before!r} became {after!r}"

  return list(changes(old, new, ""))
