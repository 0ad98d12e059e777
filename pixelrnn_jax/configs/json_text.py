"""A configuration as the text of `config.json`, and back."""

import dataclasses
import json
import typing
from typing import Any

from pixelrnn_jax.configs.checks import required_fields
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.errors import InputError


def to_json(config: Config) -> str:
  """Return the configuration as JSON, for `config.json`."""
  return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
  """Return the checked configuration that `to_json` wrote.

  Raises:
    InputError: the text is no JSON, or a field is unknown, missing or wrong.
  """
  try:
    tree = json.loads(text)
  except (ValueError, RecursionError) as error:  # nested without end, for one
    raise InputError(f"The configuration is not valid JSON: {error}.") from error
  config = _from_tree(Config, tree, "config")
  config.validate()
  return config


def _from_tree(cls: type, tree: Any, path: str) -> Any:
  """Return an instance of the dataclass `cls` from nested dictionaries."""
  if not isinstance(tree, dict):
    raise InputError(f"{path} must be an object with fields, not {tree!r}.")
  hints = typing.get_type_hints(cls)
  unknown = sorted(set(tree) - set(hints))
  if unknown:
    raise InputError(
        f"{path} has no field {unknown[0]!r}; it has: {', '.join(hints)}."
    )
  missing = sorted(required_fields(cls) - set(tree))
  if missing:
    raise InputError(f"{path} lacks the field {missing[0]!r}.")
  values = {}
  for name, value in tree.items():
    if dataclasses.is_dataclass(hints[name]):
      value = _from_tree(hints[name], value, f"{path}.{name}")
    values[name] = value
  return cls(**values)
