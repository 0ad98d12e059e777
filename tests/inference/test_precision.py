"""The precision of matrix products on accelerators, as the programs set it."""

import jax
import numpy as np
import pytest

from helpers.parameters import random_model
from pixelrnn_jax.inference import likelihood, precision

SHAPE = (2, 2, 1)


@pytest.fixture
def tpu(monkeypatch):
  """Make JAX report a TPU as its backend."""
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")


def program(function):
  model, variables = random_model("pixel_cnn", SHAPE, 2)
  images = np.zeros((1, *SHAPE), np.uint8)
  return str(jax.make_jaxpr(lambda v: function(model, v, images))(variables))


@pytest.mark.usefixtures("tpu")
def test_likelihoods_take_the_highest_and_training_the_default():
  assert "HIGHEST" in program(likelihood.log_prob)
  assert "HIGHEST" not in program(likelihood.total_nats)
  assert precision.describe("float32") == "float32 at the highest precision"
  assert "default" in precision.describe("bfloat16", training=True)


@pytest.mark.usefixtures("tpu")
def test_the_user_decides():
  with jax.default_matmul_precision("tensorfloat32"):
    text = program(likelihood.log_prob)
    assert "HIGHEST" not in text and "tensorfloat32" in precision.describe("float32")


def test_a_cpu_is_asked_for_nothing():
  assert "HIGHEST" not in program(likelihood.log_prob)
  assert precision.describe("float32") == "float32"
