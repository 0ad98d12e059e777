"""What the programs in `experiments/` share: flags, messages, exit codes."""

import dataclasses
import difflib
import re
import sys
import typing
from collections.abc import Callable

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from pixelrnn_jax.config import Config, ModelConfig, load_config
from pixelrnn_jax.errors import InputError, Interrupted

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False,
    "Call jax.distributed.initialize() first: one of several processes, as on a"
    " TPU pod or under Slurm.")


def run(main: Callable, config: bool = False) -> None:
  """Runs an absl main; bad input becomes one line on stderr and exit code 1.

  Args:
    main: called without arguments, or with the configuration.
    config: define `--config=NAME` and `--config.part.field=value`, check them
      and hand the configuration to `main`.
  """
  if config:
    main_of_config = main

    def main():
      return main_of_config(_checked_config())

  def absl_main(_):
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.ERROR)  # Orbax and TFDS have much to say
    try:
      if _DISTRIBUTED.value:
        jax.distributed.initialize()
      main()
    except InputError as error:
      _fail(f"error: {error}")
    except Interrupted as interrupted:
      _fail(str(interrupted), interrupted.exit_code)
    except KeyboardInterrupt:
      _fail("SIGINT: stopped.", 130)

  try:
    if config:
      check_overrides(sys.argv)
      config_flags.DEFINE_config_dataclass(
          "config", Config(name="", model=ModelConfig("pixel_cnn", (1, 1, 1))),
          "The name of a configuration; --config.part.field=value changes it.",
          parse_fn=load_config,
      )
    app.run(absl_main, flags_parser=_parse_flags)
  except InputError as error:
    _fail(f"error: {error}")


def required(name: str, value: str | None) -> str:
  """The value of the flag `--name`; InputError if it was not given."""
  if not value:
    raise InputError(f"--{name} is required.")
  return value


def check_overrides(arguments: list[str]) -> None:
  """Raises InputError for a `--config.part.field` that no configuration has."""
  for argument in arguments:
    match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
    if match:
      _check_field(match[1])


def _check_field(path: str) -> None:
  """Raises InputError unless `path` is "part.field" of a Config."""
  cls, prefix = Config, "config"
  for name in path.split("."):
    names = list(typing.get_type_hints(cls)) if dataclasses.is_dataclass(cls) else []
    if name not in names:
      message = f"--config.{path}: {prefix} has no field {name!r}."
      if near := difflib.get_close_matches(name, names, n=3, cutoff=0.5):
        message += f" Did you mean {' or '.join(near)}?"
      if names:
        message += f" Its fields are: {', '.join(names)}."
      raise InputError(message)
    cls, prefix = typing.get_type_hints(cls)[name], f"{prefix}.{name}"
  if dataclasses.is_dataclass(cls):
    raise InputError(
        f"--config.{path} is a group of fields; set one of them:"
        f" {', '.join(typing.get_type_hints(cls))}."
    )


def _parse_flags(arguments: list[str]) -> list[str]:
  """Parses all flags; a bad one ends the program with one line."""
  try:
    rest = flags.FLAGS(arguments)
  except (flags.Error, ValueError) as error:
    _fail("error: " + " ".join(str(error).split()))
  if len(rest) > 1:
    _fail(f"error: unexpected argument {rest[1]!r}: flags start with --.")
  return rest


def _checked_config() -> Config:
  """The configuration of the command line."""
  config = flags.FLAGS.config
  if not config.name:
    from pixelrnn_jax import configs

    raise InputError(
        f"--config is required. The names are: {', '.join(configs.CONFIGS)}; each"
        " also as NAME:smoke."
    )
  config.validate()
  return config


def _fail(message: str, code: int = 1) -> None:
  print(message, file=sys.stderr)
  sys.exit(code)
