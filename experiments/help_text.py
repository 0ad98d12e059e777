"""The text of `--help`: the program, its flags, the configurations and their fields."""

import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from typing import Any

from absl import flags

from pixelrnn_jax.configs import CONFIGS, VARIANTS
from pixelrnn_jax.configs.schema import Config

_WIDTH = 88
_ASKING = re.compile(r"--?(h|help|helpshort|helpfull|\?)(=true)?")
# Flags of absl and of the libraries are not the program's.
_OWN_MODULES = ("command_line",)


def asked(arguments: list[str]) -> bool:
  """Return whether the command line asks for help."""
  before = arguments[1:arguments.index("--")] if "--" in arguments else arguments[1:]
  return any(map(_ASKING.fullmatch, before))


def show() -> None:
  """Print the text; BrokenPipeError if its reader has stopped, as `head` does."""
  print(make(), flush=True)


def make() -> str:
  """Return the whole text, from the program's docstring and defined flags."""
  parts = [inspect.getdoc(sys.modules["__main__"]) or "", _flags()]
  if "config" in flags.FLAGS:
    parts += [_configurations(), _fields()]
  return "\n\n".join(parts)


def _flags() -> str:
  """Return the program's own flags, without those of the configuration."""
  by_module = flags.FLAGS.flags_by_module_dict()
  own = [
      flag for module in (sys.argv[0], *_OWN_MODULES)
      for flag in by_module.get(module, [])
      if flag.name != "config" and not flag.name.startswith("config.")]
  lines = []
  for flag in own:
    text = re.sub(r"^<[^>]*>: ", "", flag.help)  # absl's, of an enumeration's values
    if flag.default or type(flag.default) in (int, float):
      values = flag.default if isinstance(flag.default, list) else [flag.default]
      text += f" (default {','.join(map(str, values))})"
    lines.append(_entry(f"--{flag.name}", _values_of(flag), text))
  return "Flags:\n\n" + "\n".join(lines)


def _values_of(flag: flags.Flag) -> str:
  """Return the values that a flag takes, as in "=a|b"."""
  if flag.boolean:
    return ""
  values = getattr(flag.parser, "enum_values", None)
  return "=" + ("|".join(values) if values else flag.flag_type().split()[-1].upper())


def _configurations() -> str:
  """Return the names that `--config` takes, each with a line about it."""
  lines = {name: _first_line(function) for name, function in CONFIGS.items()}
  lines |= {
      f"NAME:{name}": _first_line(function) for name, function in VARIANTS.items()}
  width = max(map(len, lines)) + 2
  return "--config=NAME, one of:\n\n" + "\n".join(
      textwrap.fill(
          line, _WIDTH, initial_indent=f"  {name:{width}}",
          subsequent_indent=" " * (width + 2))
      for name, line in lines.items())


def _first_line(function) -> str:
  """Return the first paragraph of a docstring, without marks of code."""
  text = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
  return text.replace("`", "")


def _fields() -> str:
  """Return every field that `--config.part.field=value` may change."""
  groups = ["--config.PART.FIELD=VALUE changes a field of the configuration:"]
  for part, cls in typing.get_type_hints(Config).items():
    if not dataclasses.is_dataclass(cls):
      continue
    described = attributes(cls)
    lines = []
    for field in dataclasses.fields(cls):
      default = ""
      if field.default is not dataclasses.MISSING:
        default = f" (default {field.default!r})"
      lines.append(_entry(
          f"--config.{part}.{field.name}", f"={_type(field)}",
          described[field.name] + default))
    groups.append(f"{_first_line(cls)}\n\n" + "\n".join(lines))
  note = (
      "Defaults are the dataclasses'; a configuration has its own values, which a run"
      " writes to config.json.")
  return "\n\n".join([*groups, textwrap.fill(note, _WIDTH)])


def configuration_page() -> str:
  """Return docs/configuration.md."""
  lines = [
      "# Configuration", "",
      "Written by `python experiments/make_configuration_docs.py` from the docstrings"
      " in `pixelrnn_jax/configs/`.", "",
      "## Names", "", "`--config=NAME` takes one of:", "",
      "| name | what |", "|---|---|"]
  lines += [
      f"| `{name}` | {_first_line(function)} |" for name, function in CONFIGS.items()]
  lines += [
      f"| `NAME:{name}` | {_first_line(function)} |"
      for name, function in VARIANTS.items()]
  lines += [
      "", "## Fields", "", "`--config.PART.FIELD=VALUE` changes a field. Defaults are"
      " the dataclasses'. A configuration has its own values, which a run writes to"
      " `config.json`."]
  for part, cls in typing.get_type_hints(Config).items():
    if not dataclasses.is_dataclass(cls):
      continue
    described = attributes(cls)
    lines += ["", f"### {part}", "", _first_line(cls), "",
              "| field | default | what |", "|---|---|---|"]
    for field in dataclasses.fields(cls):
      missing = field.default is dataclasses.MISSING
      default = "" if missing else f"`{field.default!r}`"
      text = described[field.name].replace("|", "\\|")
      lines.append(f"| `{field.name}` | {default} | {text} |")
  return "\n".join(lines) + "\n"


def attributes(cls: Any) -> dict[str, str]:
  """Return the descriptions below "Attributes:" in a class's docstring, by name."""
  _, _, section = (inspect.getdoc(cls) or "").partition("Attributes:\n")
  entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section, re.MULTILINE)
  return {name: " ".join(text.split()).replace("`", "") for name, text in entries}


def _type(field: dataclasses.Field) -> str:
  """Return the type of a field, as a placeholder for a value."""
  if typing.get_origin(field.type) is tuple:
    return "'(WHOLE,...)'"
  names = {str: "TEXT", int: "WHOLE", float: "NUMBER", bool: "true|false"}
  return names[field.type]


def _entry(name: str, values: str, text: str) -> str:
  """Return a flag and, indented below it, its description."""
  return f"  {name}{values}\n" + textwrap.fill(
      text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
