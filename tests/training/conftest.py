"""A run of seconds that the tests of this folder share."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable

import jax
import pytest

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.training import train


def make_tiny_config() -> Config:
  """Twelve steps of a small PixelCNN on 8x8 coloured digits."""
  config = load_config("pixel_cnn_cifar10:smoke")
  config.model = dataclasses.replace(
      config.model, hidden=6, layers=1, head_features=12)
  config.data = dataclasses.replace(
      config.data, validation_images=10, max_images=24)
  config.optimizer = dataclasses.replace(
      config.optimizer, learning_rate=1e-3, warmup_steps=2, momentum=0.5)
  config.train = dataclasses.replace(
      config.train, batch_size=4, steps=12, log_every=2, eval_every=4,
      checkpoint_every=3, eval_batch_size=8, samples=2)
  config.validate()
  return config


@pytest.fixture
def tiny_config() -> Config:
  return make_tiny_config()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> pathlib.Path:
  """The work directory of a whole run on two devices; not to be changed."""
  assert jax.local_device_count() == 2
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  train(make_tiny_config(), str(workdir))
  return workdir


@pytest.fixture
def copy_run(finished_run, tmp_path) -> Callable[[], pathlib.Path]:
  """Makes a copy of the finished run that may be changed."""
  return lambda: pathlib.Path(shutil.copytree(finished_run, tmp_path / "copy"))
