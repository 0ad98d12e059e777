"""Training, evaluation and sampling on each source of natural images."""

import json

import numpy as np
import pytest
from PIL import Image

from helpers import archives
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.training import evaluate_run, train
from pixelrnn_jax.visualization import run_pictures


def shrink(config):
  """Change a config to a run of seconds, and return it."""
  config.model.hidden, config.model.layers, config.model.head_features = 6, 1, 12
  config.data.validation_images = 4
  config.train.batch_size, config.train.eval_batch_size = 4, 4
  config.train.steps = config.train.eval_every = config.train.checkpoint_every = 3
  config.train.log_every, config.train.samples = 1, 0
  return config


@pytest.fixture
def tfds_config(prepare):
  rng = np.random.default_rng(0)
  parts = {
      part: rng.integers(0, 256, (n, 8, 8, 3), np.uint8)
      for part, n in (("train", 12), ("test", 5))}
  config = shrink(load_config("pixel_cnn_cifar10"))
  config.model.image_shape = (8, 8, 3)
  config.data.source = "tfds:tiny_cifar"
  config.data.data_dir = str(prepare("tiny_cifar", parts))
  return config, "tfds tiny_cifar:1.0.0, test", 5


@pytest.fixture
def cifar10_config(tmp_path, monkeypatch):
  """Return a config of CIFAR-10, the description of its test set and its size.

  The user has put the archive in place. There is no TensorFlow.
  """
  folder = tmp_path / "downloads" / "manual"
  folder.mkdir(parents=True)
  archives.write_tar_gz(
      folder / "cifar-10-binary.tar.gz", archives.cifar_files("cifar10", 5))
  archives.record(monkeypatch, "cifar10", folder)
  config = shrink(load_config("row_lstm_cifar10"))
  config.data.data_dir = str(tmp_path)
  return config, "tfds cifar10:3.0.2, test", 5


@pytest.fixture
def photos_config():
  config = shrink(load_config("quickstart_photos"))
  config.model.image_shape = (8, 8, 3)
  config.data.max_images = 20
  return config, "photographs (packaged), test", 20


@pytest.fixture
def imagenet_config(tars, tmp_path):
  tars("32x32")
  config = shrink(load_config("row_lstm_imagenet32"))
  config.data.data_dir = str(tmp_path)
  return config, "tfds downsampled_imagenet/32x32:2.0.0, validation", 10


@pytest.fixture
def folder_config(tmp_path):
  rng = np.random.default_rng(1)
  folder = tmp_path / "birds"
  folder.mkdir()
  for i in range(20):
    shape = (rng.integers(5, 40), rng.integers(5, 40), 3)
    pixels = rng.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels[..., 0] if i % 5 == 0 else pixels).save(
        folder / f"{i}.{'jpg' if i % 3 == 0 else 'png'}")
  Image.fromarray(pixels).quantize(64).save(folder / "palette.png")
  config = shrink(load_config("diagonal_bilstm_cifar10"))
  config.model.image_shape = (8, 8, 3)
  config.data.source, config.data.data_dir = f"folder:{folder}", str(tmp_path)
  return config, f"folder {folder} (21 images of any size cropped and resized to", 2


@pytest.mark.parametrize("kind", ["tfds", "cifar10", "imagenet", "folder", "photos"])
def test_train_evaluate_sample(kind, request, tmp_path, capsys):
  config, title, test_images = request.getfixturevalue(f"{kind}_config")
  workdir = tmp_path / "run"
  train(config, str(workdir))
  printed = capsys.readouterr().out
  assert title in printed
  record = json.loads((workdir / "evaluation.json").read_text())
  assert record["data"].startswith(title) and record["images"] == test_images
  assert 7 < record["bits_per_dim"] < 9  # near 8, the uniform model, after 3 steps
  for line in (workdir / "metrics.jsonl").read_text().splitlines():
    assert json.loads(line)["data"].startswith(title.split(",")[0])
  validation = evaluate_run(str(workdir), "validation")["images"]
  assert validation == (20 if kind == "photos" else 4)
  printed = capsys.readouterr().out
  assert title.split(",")[0] in printed
  assert ("the standard error over" in printed) == (kind == "photos")
  if kind == "cifar10":  # the data set is prepared now; training continues
    config.train.steps = 5
    train(config, str(workdir))
    record = json.loads((workdir / "evaluation.json").read_text())
    assert record["step"] == 5 and record["images"] == test_images
  path = run_pictures.draw_completions(
      str(workdir), num=1, completions=1,
      known_rows=config.model.image_shape[0] - 1)
  assert Image.open(path).mode == "RGB"
  if kind != "imagenet":  # ImageNet is left out: 3,072 values one by one
    assert Image.open(run_pictures.draw_samples(str(workdir), num=2)).mode == "RGB"
