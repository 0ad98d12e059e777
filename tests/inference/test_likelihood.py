"""Likelihoods: they are normalised, and have the documented units."""


import jax
import numpy as np
import pytest

import pixelrnn_jax as prnn
from helpers.distributions import every_image
from helpers.parameters import random_model
from pixelrnn_jax.configs.schema import KINDS
from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.inference.likelihood import nats_to_bits_per_dim
from pixelrnn_jax.models import head


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, levels", [
    ((3, 3, 1), 2), ((1, 2, 3), 4), ((2, 3, 1), 3), ((1, 1, 1), 256),
    ((1, 1, 3), 5), ((2, 1, 3), 2)])
def test_the_probabilities_of_all_images_sum_to_one(kind, shape, levels):
  model, variables = random_model(kind, shape, levels, skip=True)
  images = every_image(shape, levels)
  log_prob = np.asarray(prnn.log_prob(model, variables, images), np.float64)
  assert abs(np.exp(log_prob).sum() - 1) < 1e-5
  # The model is not uniform. A uniform model would pass with any mask.
  assert log_prob.std() > 0.1


def test_images_side_by_side_have_the_same_likelihoods(x64):
  """Images in strips have the same likelihoods as images by themselves.

  The Diagonal BiLSTM puts images side by side in strips. The images here are wide,
  square and high.
  """
  for shape in [(3, 4, 3), (3, 3, 3), (4, 3, 3)]:
    images = np.random.default_rng(0).integers(0, 4, (6, *shape), np.uint8)
    one, *others = (
        prnn.log_probs(*random_model(
            "diagonal_bilstm", shape, 4, dtype="float64", images_per_strip=n), images)
        for n in (1, 4, 100))
    for other in others:
      np.testing.assert_allclose(other, one, rtol=1e-11)


@pytest.mark.parametrize("levels", [2, 256])
def test_units_of_a_uniform_model(levels):
  shape = (4, 5, 3)
  model, variables = random_model("row_lstm", shape, levels)
  variables = jax.tree.map(np.zeros_like, variables)
  images = np.random.default_rng(0).integers(0, levels, (2, *shape), np.uint8)
  log_probs = prnn.log_probs(model, variables, images)
  assert log_probs.shape == (2, *shape)
  np.testing.assert_allclose(log_probs, -np.log(levels), rtol=1e-6)
  np.testing.assert_allclose(
      prnn.log_prob(model, variables, images), -60 * np.log(levels), rtol=1e-6)
  np.testing.assert_allclose(
      prnn.bits_per_dim(model, variables, images), np.log2(levels), rtol=1e-6)


def test_bits_per_dim_are_divided_once():
  # An image of CIFAR-10 has 3072 dimensions. 3.00 bits/dim are 6388 nats an image.
  assert nats_to_bits_per_dim(3072 * 3 * np.log(2), (32, 32, 3)) == pytest.approx(3)


def test_log_probs_are_the_logits_of_the_values():
  model, variables = random_model("diagonal_bilstm", (3, 4, 3), 7)
  images = np.random.default_rng(1).integers(0, 7, (2, 3, 4, 3), np.uint8)
  logits = np.asarray(model.apply(variables, images), np.float64)
  log_probs = np.asarray(prnn.log_probs(model, variables, images))
  for index in np.ndindex(images.shape):
    expected = logits[index][images[index]] - np.log(np.exp(logits[index]).sum())
    assert log_probs[index] == pytest.approx(expected, abs=1e-5)


def test_a_bound_model_has_the_same_likelihoods():
  model, variables = random_model("pixel_cnn", (2, 3, 1), 4)
  images = np.random.default_rng(1).integers(0, 4, (2, 2, 3, 1), np.uint8)
  np.testing.assert_array_equal(
      prnn.log_probs(model.bind(variables), variables, images),
      prnn.log_probs(model, variables, images))


def test_bad_images():
  model, variables = random_model("pixel_cnn", (2, 2, 1), 4)
  with pytest.raises(prnn.InputError, match="takes 0 to 3"):
    prnn.log_probs(model, variables, np.full((1, 2, 2, 1), 4, np.uint8))
  with pytest.raises(prnn.InputError, match="raw integer values"):
    prnn.log_probs(model, variables, np.zeros((1, 2, 2, 1), np.float32))
  with pytest.raises(prnn.InputError, match=r"\[B, 2, 2, 1\]"):
    likelihood.total_nats(model, variables, np.zeros((2, 2, 1), np.uint8))
  with pytest.raises(prnn.InputError, match="B at least 1"):
    prnn.log_prob(model, variables, np.zeros((0, 2, 2, 1), np.uint8))
  lists = prnn.log_prob(model, variables, np.zeros((1, 2, 2, 1), np.uint8).tolist())
  np.testing.assert_array_equal(
      lists, prnn.log_prob(model, variables, np.zeros((1, 2, 2, 1), np.uint8)))
  with pytest.raises(prnn.InputError, match=r"\[B, 2, 2, 1\]"):
    prnn.log_probs(model, variables, np.zeros((1, 2, 3, 1), np.uint8))
  # A function under jit cannot raise an error. The result is NaN, so the mistake shows.
  log_probs = jax.jit(lambda x: prnn.log_probs(model, variables, x))
  assert np.isnan(log_probs(np.full((1, 2, 2, 1), 4, np.uint8))).all()


@pytest.mark.parametrize("changes, chunk", [
    ({}, 1), ({"skip": True}, 2**22), ({"rematerialize": True}, 1),
    ({"residual": False}, 2**22)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_total_and_its_gradient_are_those_of_all_logits(
    kind, changes, chunk, x64, monkeypatch):
  """The total likelihood and its gradient agree with autodiff of all logits.

  The total is computed in chunks of one row, or of all rows.
  """
  monkeypatch.setattr(head, "_CHUNK", chunk)
  model, variables = random_model(kind, (4, 3, 3), 4, dtype="float64", **changes)
  images = np.random.default_rng(0).integers(0, 4, (2, 4, 3, 3), np.uint8)

  def total(variables):
    return 1.5 * likelihood.total_nats(model, variables, images)

  def plain(variables):
    return -1.5 * prnn.log_prob(model, variables, images).sum()

  got, gradient = jax.jit(jax.value_and_grad(total))(variables)
  want, plain_gradient = jax.jit(jax.value_and_grad(plain))(variables)
  np.testing.assert_allclose(got, want, rtol=1e-12)
  if not changes:  # also without a gradient
    np.testing.assert_allclose(jax.jit(total)(variables), want, rtol=1e-12)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
      gradient, plain_gradient)


def test_the_training_loss_never_holds_all_logits():
  model = prnn.build_model(prnn.ModelConfig(
      "row_lstm", (32, 32, 3), hidden=8, layers=2, head_features=64))
  images = np.zeros((16, 32, 32, 3), np.uint8)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)

  def temporaries(loss):
    compiled = jax.jit(jax.grad(loss)).lower(variables).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  total = temporaries(lambda v: likelihood.total_nats(model, v, images))
  plain = temporaries(lambda v: -prnn.log_prob(model, v, images).sum())
  logits = 4 * images.size * 256
  assert plain - total > logits
