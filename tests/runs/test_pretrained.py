"""The trained models of the package, and the format of their files."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import pixelrnn_jax as prnn
from helpers.programs import ROOT, run_program
from pixelrnn_jax import data
from pixelrnn_jax.runs import layout, pretrained
from pixelrnn_jax.runs.restore import load_run
from pixelrnn_jax.training import evaluate_run
from pixelrnn_jax.visualization import learning_curves, run_pictures


# With parameters in the wrong places, or none, digits cost about 460 nats and
# photographs about 8 bits/dim.
@pytest.mark.parametrize(
    "name, num, most", [("mnist", 256, 100), ("photos", 64, 4 * 3072 * np.log(2))])
def test_two_lines_give_a_trained_model(name, num, most):
  config, model, variables = prnn.restore(name)
  source = data.load_source(config, "test")
  images = np.stack([source[i] for i in range(num)])
  nats = -np.float64(jax.jit(
      lambda variables, images: prnn.log_prob(model, variables, images)
  )(variables, images))
  evaluation = pretrained.read(name).evaluation
  error = nats.std(ddof=1) / np.sqrt(num)
  assert abs(nats.mean() - evaluation["nats_per_image"]) < 4 * error
  assert nats.mean() < most


@pytest.mark.parametrize("name, images, described, mean, error", [
    ("mnist", 10_000, "static binarisation, test", "nats_per_image",
     "nats_standard_error"),
    ("photos", 745, "photographs (packaged), test", "bits_per_dim",
     "bits_standard_error"),
])
def test_readme_has_the_figure_of_the_evaluation(name, images, described, mean, error):
  evaluation = pretrained.read(name).evaluation
  assert evaluation["images"] == images and evaluation["split"] == "test"
  assert evaluation["data"].endswith(described)
  row, = re.findall(
      rf"^\| `{name}`.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
  assert f"{evaluation[mean]:.3f} +/- {evaluation[error]:.3f}" in row


@pytest.mark.slow
def test_evaluate_prints_the_figure_of_readme(tmp_path):
  result = run_program("evaluate.py", cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  printed = re.search(r"test: (\S+ \+/- \S+) nats/image", result.stdout)[1]
  row, = re.findall(r"^\| `mnist`.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
  assert printed in row
  assert not list(tmp_path.iterdir())


def test_digits_and_completions_at_once(tmp_path):
  result = run_program("sample.py", "--num=4", cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  paths = result.stdout.split()
  assert [re.sub(r"\d{8}", "STEP", path) for path in paths] == [
      "runs/pictures/mnist_samples_step_STEP_seed_0.png",
      "runs/pictures/mnist_completions_step_STEP_seed_0.png"]
  assert [path.name for path in tmp_path.iterdir()] == ["runs"]
  for path in paths:  # the name gives the same, one picture at a time
    other = tmp_path / "other.png"
    if "samples" in path:
      run_pictures.draw_samples("mnist", 4, output=str(other))
    else:
      run_pictures.draw_completions("mnist", output=str(other))
    assert other.read_bytes() == (tmp_path / path).read_bytes()
    assert len(np.unique(np.asarray(Image.open(other)))) > 1


def test_a_file_holds_the_run(finished_run, tmp_path, monkeypatch):
  output = tmp_path / "new" / "tiny.npz"
  arguments = f"--workdir={finished_run}", f"--output={output}"
  result = run_program("package_model.py", *arguments, cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  content = output.read_bytes()
  run_program("package_model.py", *arguments, cwd=tmp_path)
  assert output.read_bytes() == content

  monkeypatch.setattr(pretrained, "_FOLDER", output.parent)
  monkeypatch.setattr(pretrained, "NAMES", ("tiny",))
  run, original = load_run("tiny"), load_run(str(finished_run))
  assert (run.config, run.step) == (original.config, original.step)
  jax.tree.map(np.testing.assert_array_equal, run.params, original.params)
  before = (finished_run / layout.EVALUATION).read_text()
  record = evaluate_run("tiny")
  assert record["nats_per_image"] == json.loads(before)["nats_per_image"]


def test_rounded_parameters_and_their_own_figures(finished_run, tmp_path, monkeypatch):
  before = (finished_run / layout.EVALUATION).read_bytes()
  for bits in (24, 5):
    result = run_program(
        "package_model.py", f"--workdir={finished_run}", f"--bits={bits}",
        f"--output={tmp_path / f'bits{bits}.npz'}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
  assert (finished_run / layout.EVALUATION).read_bytes() == before
  monkeypatch.setattr(pretrained, "_FOLDER", tmp_path)
  monkeypatch.setattr(pretrained, "NAMES", ("bits24", "bits5"))
  exact, rounded = pretrained.read("bits24"), pretrained.read("bits5")

  def check(x, y):
    np.testing.assert_allclose(y, x, rtol=2.0**-5, atol=0)
    fraction, _ = np.frexp(y)
    np.testing.assert_array_equal(fraction * 32, np.round(fraction * 32))

  jax.tree.map(check, exact.params, rounded.params)
  assert any(jax.tree.leaves(jax.tree.map(
      lambda x, y: np.any(x != y), exact.params, rounded.params)))
  assert (tmp_path / "bits5.npz").stat().st_size < (
      0.8 * (tmp_path / "bits24.npz").stat().st_size)
  figure = evaluate_run("bits5")["nats_per_image"]
  assert rounded.evaluation["nats_per_image"] == figure
  assert exact.evaluation["nats_per_image"] != figure


def test_no_figures_of_the_last_step(copy_run, tmp_path):
  workdir = copy_run()
  path = workdir / layout.EVALUATION
  record = json.loads(path.read_text())
  for text in ("", json.dumps({**record, "step": 3}), "[]", "{"):
    path.write_text(text)
    result = run_program(
        "package_model.py", f"--workdir={workdir}", f"--output={tmp_path / 'a.npz'}",
        cwd=tmp_path)
    assert result.returncode == 1
    assert re.fullmatch(r"error: .*experiments/evaluate.py.*\n", result.stderr)
    assert not (tmp_path / "a.npz").exists()


def test_a_name_that_is_a_directory_too(tmp_path, monkeypatch, finished_run):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mnist").mkdir()  # for example, one of data
  assert pretrained.is_name("mnist") and not pretrained.is_name("./mnist")
  (tmp_path / "mnist" / layout.CONFIG).write_text(
      (finished_run / layout.CONFIG).read_text())
  with pytest.raises(prnn.InputError, match=r"For the directory give './mnist'"):
    prnn.restore("mnist")


def test_what_a_packaged_model_does_not_have():
  with pytest.raises(prnn.InputError, match="single set of parameters"):
    prnn.restore("mnist", "best")
  with pytest.raises(prnn.InputError, match="name of a model in the package: mnist"):
    prnn.restore("minst")
  with pytest.raises(prnn.InputError, match="needs a run, with its metrics"):
    learning_curves.draw_curves(["mnist"])
