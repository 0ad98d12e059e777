"""README and docs/: the code runs as pasted, and all that they name exists."""

import re

import pytest

import help_text
from helpers.programs import ROOT

PAGES = [
    ROOT / "README.md", ROOT / "WORKSPACE.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_python_block_runs_as_pasted(capsys):
  block, = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
  names = {}
  exec(compile(block, "README.md", "exec"), names)
  assert names["completed"].shape == (4, 28, 28, 1)
  assert (names["completed"][:, :14] == names["images"][:, :14]).all()
  assert names["logits"].shape == (4, 28, 28, 1, 2)
  assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
  links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
  missing = [
      link for link in links
      if "://" not in link and not (page.parent / link).exists()]
  assert not missing


def test_the_package_indexs_page_works_there():
  """The description on the package index has only absolute links.

  The index shows it without the files beside it.
  """
  name, = re.findall(
      r"^long_description = file: (\S+)$", (ROOT / "setup.cfg").read_text(), re.M)
  text = (ROOT / name).read_text()
  assert re.findall(r"\]\(", text)
  assert re.findall(r"\]\((?!https://)", text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_and_configs_that_are_named_exist(page):
  from pixelrnn_jax.configs import CONFIGS

  text = page.read_text()
  for program in set(re.findall(r"python (experiments/\w+\.py)", text)):
    assert (ROOT / program).exists(), program
  for name in set(re.findall(r"--config=([a-z]\w+)", text)):
    assert name in CONFIGS, name


def test_the_page_of_fields_is_that_of_the_code():
  """docs/configuration.md is what the code describes.

  `python experiments/make_configuration_docs.py` writes it.
  """
  page = (ROOT / "docs" / "configuration.md").read_text()
  assert page == help_text.configuration_page()


def test_the_front_page_is_short():
  assert len((ROOT / "README.md").read_text().split()) <= 1_600
