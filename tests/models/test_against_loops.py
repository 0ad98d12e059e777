"""Complete models, compared in float64 with loops over the paper's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import reference
from helpers.parameters import random_variables
from helpers.precision import enable_x64
from pixelrnn_jax.configs.schema import KINDS, ModelConfig
from pixelrnn_jax.models import build_model


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, levels, residual, skip", [
    ((3, 4, 3), 4, True, True), ((4, 2, 1), 2, True, False),
    ((1, 5, 3), 3, False, True), ((5, 1, 1), 256, False, False),
    ((1, 1, 3), 2, True, True),
])
def test_logits_equal_the_loops(kind, shape, levels, residual, skip):
  config = ModelConfig(
      kind, shape, levels=levels, hidden=4, layers=2, head_features=7,
      residual=residual, skip=skip, first_kernel_size=5, dtype="float64")
  model = build_model(config)
  rng = np.random.default_rng(0)
  images = rng.integers(0, levels, (2, *shape), np.uint8)
  variables = random_variables(model, rng, 0.3)
  logits = jax.jit(model.apply)(variables, images)
  assert logits.shape == (2, *shape, levels) and logits.dtype == jnp.float64
  params = jax.tree.map(np.asarray, variables["params"])
  for image, got in zip(images, logits, strict=True):
    np.testing.assert_allclose(
        got, reference.logits(config, params, image), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_and_bfloat16_follow_float64(kind):
  shape = (6, 5, 3)
  images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
  logits = {}
  with enable_x64(True):
    for dtype in ("float64", "float32", "bfloat16"):
      model = build_model(ModelConfig(
          kind, shape, hidden=9, layers=3, head_features=12, dtype=dtype))
      # All dtypes have the same parameters, as float32 values are exact in float64.
      if not logits:
        variables = model.init(jax.random.key(0), images)
        variables = jax.tree.map(lambda x: x.astype(jnp.float32), variables)
      out = model.apply(variables, images)
      assert out.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
      logits[dtype] = np.asarray(out, np.float64)
  scale = logits["float64"].std()
  assert np.abs(logits["float32"] - logits["float64"]).max() < 1e-5 * scale
  error = np.abs(logits["bfloat16"] - logits["float64"]).max()
  assert 0 < error < 0.2 * scale


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_does_not_grow_with_depth(kind):
  images = np.zeros((1, 4, 4, 1), np.uint8)

  def equations(layers):
    model = build_model(ModelConfig(
        kind, (4, 4, 1), levels=2, hidden=4, layers=layers, head_features=4))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return str(jax.make_jaxpr(model.apply)(variables, images)).count(" = ")

  assert equations(2) == equations(12)


@pytest.mark.parametrize("changes, message", [
    (dict(hidden=2), "fewer features than the image's 3 channels"),
    (dict(head_features=1), "model.head_features to 3 or more"),
    (dict(kernel_size=4), "must be odd"),
    (dict(first_kernel_size=0), "must be odd"),
    (dict(kind="row"), "pixel_cnn, row_lstm, diagonal_bilstm"),
    (dict(levels=1), "from 2"),
    (dict(levels=257), "to 256"),
    (dict(layers=0), "at least 1"),
    (dict(image_shape=(4, 4, 2)), "number of channels"),
    (dict(image_shape=(0, 4, 3)), "at least 1"),
    (dict(image_shape=(4, 4)), "wrong type"),
    (dict(hidden=4.0), "wrong type"),
    (dict(residual=1), "wrong type"),
    (dict(dtype="float16"), "float32, bfloat16, float64"),
    (dict(dtype="float64"), "JAX_ENABLE_X64"),
])
def test_impossible_models(changes, message):
  arguments = dict(
      kind="row_lstm", image_shape=(4, 4, 3), hidden=4, layers=1, head_features=4)
  with pytest.raises(ValueError, match=message):
    build_model(ModelConfig(**(arguments | changes)))


def test_images_of_another_shape():
  model = build_model(ModelConfig(
      "pixel_cnn", (4, 5, 3), hidden=4, layers=1, head_features=4))
  for shape in [(1, 5, 4, 3), (4, 5, 3), (1, 4, 5, 1)]:
    with pytest.raises(ValueError, match=r"\[B, 4, 5, 3\]"):
      model.init(jax.random.key(0), np.zeros(shape, np.uint8))
