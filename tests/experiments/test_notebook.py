"""The notebook experiments/pixelrnn_jax.ipynb, run as a whole at a small size."""

import base64
import configparser
import io
import json
import math
import os
import re
import types
import warnings

import jax
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import pixelrnn_jax as prnn
from helpers.programs import EXPERIMENTS
from pixelrnn_jax import data
from pixelrnn_jax.runs.optimizer import make_schedule
from pixelrnn_jax.visualization import learning_curves

PATH = EXPERIMENTS / "pixelrnn_jax.ipynb"
SMALL = """\
CONFIG = "quickstart:smoke"
WORKDIR = "runs/smoke"
STEPS = 6
SAMPLES = 4
COMPLETED = 2
SHOWN = 3
"""
# The ids of the cells that show a picture.
PICTURES = [
    "train", "samples", "completions", "conditionals", "nll", "packaged", "fields"]


def read():
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # a cell without an id is only a warning
    document = nbformat.read(PATH, as_version=4)
    nbformat.validate(document)
  return document


def parameters_of(document):
  cell, = (c for c in document.cells if "parameters" in c.metadata.get("tags", []))
  return cell


def code_of(document):
  return [cell for cell in document.cells if cell.cell_type == "code"]


def text_of(cell, name="stdout"):
  return "".join(
      output.text for output in cell.outputs
      if output.output_type == "stream" and output.name == name)


def pixels_of(cell):
  """Return the pixels of a cell's PNG pictures, [H, W] or [H, W, C] each."""
  pngs = [
      output.data["image/png"] for output in cell.outputs
      if "image/png" in output.get("data", {})]
  return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in pngs]


def execute(folder):
  """Run the notebook at the small size in `folder`; return its code cells by id."""
  document = read()
  parameters_of(document).source = SMALL
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JAX_NUM_CPU_DEVICES", "2")
    # The notebook reads nothing of the user's and leaves nothing in their home.
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR",
                 "JUPYTER_RUNTIME_DIR"):
      patch.setenv(name, str(folder / name.lower()))
    NotebookClient(
        document, timeout=300, kernel_name="python3",
        resources={"metadata": {"path": str(folder)}}).execute()
  return {cell.id: cell for cell in code_of(document)}


def test_it_is_stored_without_outputs():
  document = read()
  assert (document.nbformat, document.nbformat_minor) == (4, 5)
  for cell in code_of(document):
    assert cell.outputs == [] and cell.execution_count is None
  # The test overwrites every parameter, and nothing else.
  names = [
      re.findall(r"^([A-Z]+) =", source, re.MULTILINE)
      for source in (parameters_of(document).source, SMALL)]
  assert names[0] == names[1]


def test_it_runs_from_top_to_bottom(tmp_path):
  # This is one test, because several would run the notebook once in each worker of
  # pytest-xdist.
  cells, workdir = execute(tmp_path), tmp_path / "runs" / "smoke"
  check_every_cell_ran(cells)
  check_figures(cells, workdir)
  check_pictures(cells, workdir)


def check_every_cell_ran(cells):
  assert [cell.execution_count for cell in cells.values()] == list(
      range(1, len(cells) + 1))
  for cell in cells.values():
    assert not [o for o in cell.outputs if o.output_type == "error"]
    # Only progress bars may appear on stderr.
    assert not re.search("warning|error|traceback", text_of(cell, "stderr"), re.I)
  assert "pip" not in text_of(cells["install"])  # the package is installed already
  if os.environ["JAX_PLATFORMS"] == "cpu":
    assert text_of(cells["train"]).count("CpuDevice") == 2
    assert "2 device(s), 8 images of a batch on each" in text_of(cells["devices"])


def check_figures(cells, workdir):
  """Assert that the printed figures are those of the run, and finite."""
  record = json.loads((workdir / "evaluation.json").read_text())
  nats = record["nats_per_image"]
  assert math.isfinite(nats) and record["step"] == 6 and record["images"] == 256
  assert record["data"] == "MNIST (packaged), static binarisation, test[:256]"
  for cell, pattern in (("train", r"^test: (\S+) \+/-"), ("evaluation", r"^NLL (\S+)")):
    printed, = re.findall(pattern, text_of(cells[cell]), re.MULTILINE)
    assert float(printed) == pytest.approx(nats, abs=1e-3)
    assert record["data"] in text_of(cells[cell])
  # The likelihoods of the first images are computed again.
  _, model, variables = prnn.restore(str(workdir))
  config = prnn.load_config("quickstart:smoke")
  source = data.load_source(config, "test")
  by_hand = -prnn.log_prob(model, variables, np.stack([source[i] for i in range(3)]))
  text = text_of(cells["api"])
  assert [float(x) for x in re.findall(r"\d+\.\d\d", text)] == pytest.approx(
      np.asarray(by_hand), abs=0.01)
  assert "nats/image" in text and source.description in text


def check_pictures(cells, workdir):
  """Assert that each picture is shown, is not blank, and belongs to the run."""
  shown = {id: pixels_of(cell) for id, cell in cells.items()}
  assert {id: len(images) for id, images in shown.items() if images} == {
      id: 1 for id in PICTURES}
  for image, in (shown[id] for id in PICTURES):
    assert min(image.shape[:2]) >= 150 and image.std() > 5
  # Each cell shows the picture in the work directory. The learning curve is shown in
  # its last state.
  names = {"train": "curves.png", "packaged": "packaged.png",
           "fields": "receptive_fields.png"}
  for id in PICTURES:
    path, = (workdir / "samples").glob(names.get(id, f"{id}_*.png"))
    np.testing.assert_array_equal(shown[id][0], np.asarray(Image.open(path)))
  learning_curves.draw_curves([str(workdir)], output=str(workdir / "again.png"))
  np.testing.assert_array_equal(
      shown["train"][0], np.asarray(Image.open(workdir / "again.png")))
  # The receptive field grows from the first to the third kind of model.
  seen = np.all(shown["fields"][0][..., :3] == (0x7F, 0xA8, 0xD9), axis=-1)
  counts = [part.sum() for part in np.array_split(seen[:, :, None], 3, axis=1)]
  assert 0 < counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("steps", [1, 2, 10, 50, 51, 1_800])
@pytest.mark.parametrize("name", ["quickstart", "row_lstm_mnist", "row_lstm_cifar10"])
def test_any_number_of_steps_makes_a_config(steps, name, monkeypatch):
  """Any number of STEPS makes a valid config.

  The fields that the user does not set are valid with it.
  """
  source, = (cell.source for cell in code_of(read()) if cell.id == "train")
  trained = []
  namespace = {
      "CONFIG": name, "STEPS": steps, "WORKDIR": "runs/none", "prnn": prnn, "jax": jax,
      "LiveCurve": lambda workdir: None,
      "parallel": types.SimpleNamespace(use_cores=lambda config: None),
      "train": lambda config, workdir, on_metrics: trained.append(config)}
  exec(source, namespace)
  config, = trained
  config.validate()
  assert config.train.steps == steps
  schedule = make_schedule(config.optimizer, steps)
  assert np.isfinite([schedule(step) for step in (0, steps - 1, steps)]).all()
  if config.optimizer.decay_steps and steps > config.optimizer.warmup_steps:
    assert schedule(steps) == 0


def test_the_extra_brings_jupyter():
  parser = configparser.ConfigParser()
  parser.read(PATH.parent.parent / "setup.cfg")
  extra = parser["options.extras_require"]["notebook"]
  assert re.search(r"^(jupyterlab|notebook)>=", extra, re.MULTILINE)
