"""Tables that compare models with each other and with codecs."""

import json
import re

import numpy as np
import pytest

from pixelrnn_jax.data import load_source
from pixelrnn_jax.data.sources import ImageSource
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs.restore import find_config
from pixelrnn_jax.studies import comparison, image_codecs
from pixelrnn_jax.studies.comparison import Row, compare, format_comparison


def cells(table, name):
  """Return the cells of the row that begins with `name`."""
  [line] = [line for line in table.splitlines() if line.startswith(f"| {name}")]
  return [cell.strip() for cell in line.strip("|").split("|")]


def test_runs_and_codecs(finished_run, copy_run):
  said = []
  table = compare([str(finished_run), str(copy_run())], say=said.append)
  record = json.loads((finished_run / "evaluation.json").read_text())
  figure = f"{record['bits_per_dim']:.4f} +/- {record['bits_standard_error']:.4f}"
  one, two = (cells(table, f"`{d}`") for d in (finished_run, said[1].split(":")[0]))
  assert one[1] == "pixel_cnn" and one[3] == "12" and one[4] == two[4] == figure
  assert (one[5], two[5]) == ("", "0.0000 +/- 0.0000")

  source = load_source(find_config(str(finished_run)), "test")
  sheet = image_codecs.sheet(np.stack(list(source)))
  size = len(image_codecs.available(256)["PNG"](sheet, 256))
  bits = 8 * size / np.stack(list(source)).size
  assert cells(table, "PNG, lossless")[4] == f"{bits:.4f}"
  assert f"{source.description}: 24 images." in table


def make_rows(bits, bound=()):
  return [
      Row(name, "row_lstm", 1, 1, np.asarray(values, float), name in bound)
      for name, values in bits.items()]


def test_paired_errors():
  """The error of a difference is over pairs, and over independent blocks.

  Images that are hard for both models do not add to it.
  """
  rng = np.random.default_rng(0)
  hard = rng.normal(3, 1, 120)
  groups = np.arange(120) // 10
  block = rng.normal(size=12)[groups] * 0.01
  rows = make_rows({"one": hard, "two": hard - 0.1 + block})
  images = np.zeros((120, 1, 1, 1), np.uint8)
  source = ImageSource(images, "x", groups=groups, group_kind="tens")
  table = format_comparison(rows, source, {"PNG": 4.5})
  difference = rows[1].bits - hard
  error = (block[::10] - block.mean()).std(ddof=1) / np.sqrt(12)
  assert cells(table, "`two`")[5] == f"{difference.mean():.4f} +/- {error:.4f}"
  assert "x: 120 images, the standard error over 12 tens." in table
  assert cells(table, "PNG, lossless")[4] == "4.5000"
  spread = re.search(r"\+/- (.*)", cells(table, "`one`")[4])[1]
  assert float(spread) > 10 * error


def test_bounds_have_no_differences():
  rows = make_rows({"one": [3, 4], "two": [5, 5]}, bound=["two"])
  source = ImageSource(np.zeros((2, 1, 1, 1), np.uint8), "x")
  table = format_comparison(rows, source, {})
  assert cells(table, "`two`")[4:] == ["<= 5.0000 +/- 0.0000", ""]


def test_other_images_are_refused(finished_run, monkeypatch):
  load = comparison.load_images
  seen = []

  def changed(run, split):
    source = load(run, split)
    seen.append(source)
    if len(seen) == 2:
      source.images[3] ^= 1
    return source

  monkeypatch.setattr(comparison, "load_images", changed)
  with pytest.raises(InputError, match="is on other images than .*evaluate.py"):
    compare([str(finished_run)] * 2)
