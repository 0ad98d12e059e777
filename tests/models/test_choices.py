"""Every way to compute a model has the loss and the gradients of the reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import reference
from helpers.parameters import random_variables
from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.models import build_model
from pixelrnn_jax.models.head import Head
from pixelrnn_jax.ops.choices import DEFAULTS, OPTIONS


def loss_and_gradients(config, choices):
  model = build_model(dataclasses.replace(config, **vars(choices)))
  rng = np.random.default_rng(0)
  images = rng.integers(0, config.levels, (4, *config.image_shape), np.uint8)
  variables = random_variables(model, rng, 0.3)
  return jax.jit(jax.value_and_grad(
      lambda v: model.apply(v, images, method="batch_nats")))(variables)


@pytest.mark.parametrize("kind, shape, levels", [
    ("pixel_cnn", (4, 4, 1), 2), ("row_lstm", (5, 6, 3), 5),
    ("diagonal_bilstm", (5, 6, 3), 5),
    # Higher than wide, a column, a row.
    ("pixel_cnn", (5, 1, 3), 5), ("row_lstm", (6, 2, 1), 5), ("row_lstm", (1, 5, 1), 2),
    ("diagonal_bilstm", (7, 3, 3), 5), ("diagonal_bilstm", (5, 1, 1), 2),
    ("diagonal_bilstm", (1, 5, 1), 2)])
def test_every_backend_equals_the_reference(kind, shape, levels):
  config = ModelConfig(
      kind, shape, levels=levels, hidden=6, layers=2, head_features=7, skip=True)
  reference = dataclasses.replace(config, implementation="autodiff")
  expected = loss_and_gradients(reference, DEFAULTS["cpu"])
  for backend in ("gpu", "tpu"):
    got = loss_and_gradients(config, DEFAULTS[backend])
    for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
      scale = np.abs(b).max()
      np.testing.assert_allclose(
          a / scale, b / scale, atol=1e-5, err_msg=backend)


@pytest.mark.parametrize("head_products", OPTIONS["head_products"])
@pytest.mark.parametrize("logits", OPTIONS["logits"])
def test_every_head_has_the_same_loss(head_products, logits):
  config = ModelConfig(
      "pixel_cnn", (4, 5, 3), levels=7, hidden=4, layers=1, head_features=10)
  own = ops.Choices(head_products=head_products, logits=logits)
  got = loss_and_gradients(config, own)
  expected = loss_and_gradients(config, DEFAULTS["gpu"])
  for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("channels, hidden, features", [
    (1, 2, 3), (3, 5, 8), (3, 3, 3), (3, 7, 11)])
def test_visible_products_equal_the_loop(channels, hidden, features):
  """The visible head and its gradients equal the plain loops of the masked kernels."""
  config = ModelConfig(
      "pixel_cnn", (2, 3, channels), levels=5, hidden=hidden, layers=1,
      head_features=features, dtype="float64", head_products="visible")
  head = Head(config)
  masked = Head(dataclasses.replace(config, head_products="masked"))
  params = head.init(jax.random.key(0), np.dtype("float64"))
  params = jax.tree.map(  # biases too
      lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape), params)
  x = jax.random.normal(jax.random.key(2), (2, 3, 2, 2 * hidden))
  y = x[:, :, 0]
  for name in head.layers:
    y = reference.masked_conv(
        np.maximum(y, 0), np.asarray(params[name]["kernel"])[None, None],
        np.asarray(params[name]["bias"]), "B", channels)
  logits = head(params, x)
  np.testing.assert_allclose(
      logits[:, :, 0], y.reshape(2, 3, channels, 5), atol=1e-12)
  weights = jax.random.normal(jax.random.key(3), logits.shape)
  gradients = [
      jax.grad(lambda *a, h=h: (weights * h(*a)).sum(), (0, 1))(params, x)
      for h in (head, masked)]
  for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-12)
  for name, layer in head.layers.items():
    np.testing.assert_array_equal(gradients[0][0][name]["kernel"][~layer.mask], 0)


def test_values_out_of_range_have_no_likelihood():
  logits = jnp.zeros((3, 4))
  got = ops.log_probs_by_comparison(logits, jnp.array([-1, 3, 4]))
  np.testing.assert_array_equal(np.isnan(got), [True, False, True])


def test_every_default_is_an_option():
  for choices in DEFAULTS.values():
    for name, ways in OPTIONS.items():
      assert getattr(choices, name) in ways
    assert choices.unroll > 0 and choices.images_per_strip > 0


def test_a_choice_overrides_the_backend():
  own = ops.Choices(convolution="products", unroll=3).resolve("tpu")
  assert own == dataclasses.replace(
      DEFAULTS["tpu"], convolution="products", unroll=3)
  assert ops.Choices().resolve("cuda") == DEFAULTS["gpu"]
