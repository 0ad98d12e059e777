"""The text of `--help`, which comes from the docstrings of the programs."""

import ast
import dataclasses
import pathlib
import re
import subprocess
import sys
import typing

import pytest

import help_text
from helpers.programs import EXPERIMENTS, run_program
from pixelrnn_jax.configs import CONFIGS, VARIANTS
from pixelrnn_jax.configs.schema import Config

PARTS = {
    name: cls for name, cls in typing.get_type_hints(Config).items()
    if dataclasses.is_dataclass(cls)}
PROGRAMS = {
    path.name: ast.parse(path.read_text())
    for path in sorted(pathlib.Path(EXPERIMENTS).glob("*.py"))
    if "command_line.run(" in path.read_text()}


@pytest.fixture(scope="module")
def texts():
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("COLUMNS", "80")
    done = {program: run_program(program, "--help") for program in PROGRAMS}
  for each in done.values():
    assert (each.returncode, each.stderr) == (0, ""), each.stderr
  return {program: each.stdout for program, each in done.items()}


def flags_of(tree):
  """Return the names of the flags that a program defines."""
  calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
  return [
      call.args[0].value for call in calls
      if ast.unparse(call.func).startswith("flags.DEFINE")]


def takes_a_config(tree):
  return any(
      keyword.arg == "config" for node in ast.walk(tree) if isinstance(node, ast.Call)
      and ast.unparse(node.func) == "command_line.run" for keyword in node.keywords)


def test_every_program_says_what_it_is_and_takes(texts):
  assert len(PROGRAMS) >= 8
  for program, text in texts.items():
    tree = PROGRAMS[program]
    assert text.startswith(ast.get_docstring(tree)), program
    for name in flags_of(tree):
      assert re.search(rf"^  --{name}(=\S+)?\n      \S", text, re.MULTILINE), name
    # Flags of libraries are left out.
    assert "--alsologtostderr" not in text and "--xml_output" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_configurations_and_fields(texts):
  with_config = {name for name, tree in PROGRAMS.items() if takes_a_config(tree)}
  assert with_config >= {"train.py", "plot.py", "benchmark_scan.py"}
  for program, text in texts.items():
    assert ("--config=NAME" in text) == (program in with_config)
    if program not in with_config:
      continue
    for name, function in (*CONFIGS.items(), *VARIANTS.items()):
      line, = re.findall(rf"^  (?:NAME:)?{name} +(\S.*)$", text, re.MULTILINE)
      first = function.__doc__.strip().split("\n")[0].replace("`", "")
      assert first.startswith(line) or line.startswith(first)
    for part, cls in PARTS.items():
      for field in dataclasses.fields(cls):
        assert re.search(
            rf"^  --config\.{part}\.{field.name}=\S+\n      \S", text, re.MULTILINE)


@pytest.mark.parametrize("part", PARTS)
def test_every_field_is_described_in_its_docstring(part):
  described = help_text.attributes(PARTS[part])
  assert set(described) == {field.name for field in dataclasses.fields(PARTS[part])}
  assert all(len(text) > 10 and "\n" not in text for text in described.values())


def test_one_field_in_full(texts):
  assert (
      "  --config.train.log_every=WHOLE\n      steps between two lines of metrics."
      " (default 50)") in texts["train.py"]
  assert "  --seed=INT\n      Another seed gives other samples. (default 0)\n" in (
      texts["sample.py"])
  assert (
      "  --split=test|validation|train\n      Where images come from. (default test)\n"
      ) in texts["sample.py"]


@pytest.mark.parametrize("arguments, asked", [
    (["--help"], True), (["-h"], True), (["--config=a", "-help"], True), ([], False),
    (["--helpfull"], True), (["--", "--help"], False), (["--workdir=--help"], False)])
def test_who_asks_for_help(arguments, asked):
  assert help_text.asked(["train.py", *arguments]) == asked


def test_a_reader_may_stop_early():
  program = EXPERIMENTS / "train.py"
  done = subprocess.run(
      f"{sys.executable} {program} --help | head -1", shell=True, capture_output=True,
      text=True)
  assert done.stdout.startswith("Train and evaluate") and done.stderr == ""
