"""Every valid configuration works: a random search over `ModelConfig`.

The short search takes the same examples each time. The long search takes other examples
at each run, and prints how to repeat one:

    python -m pytest -m slow -s tests/inference/test_any_config.py
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

import pixelrnn_jax as prnn
from helpers.parameters import random_variables
from pixelrnn_jax.configs.schema import KINDS
from pixelrnn_jax.inference.sampling import draw, first_indices, value_logits

ALWAYS = dict(
    deadline=None, database=None, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@st.composite
def configs(draw_):
  """Draw a small valid configuration, often at the limits of what is valid."""
  factors = draw_(st.sampled_from([(), (), (2,), (3,), (2, 2)]))
  whole = math.prod(factors)
  largest = 5 if whole == 1 else 2
  height, width = (whole * draw_(st.integers(1, largest)) for _ in range(2))
  channels = draw_(st.sampled_from([1, 3]))
  odd = st.sampled_from([1, 3, 5, 9])
  config = prnn.ModelConfig(
      draw_(st.sampled_from(KINDS)), (height, width, channels),
      levels=draw_(st.sampled_from([2, 3, 5, 256])),
      hidden=draw_(st.integers(channels, 7)), layers=draw_(st.integers(1, 3)),
      head_features=draw_(st.integers(channels, 6)), kernel_size=draw_(odd),
      first_kernel_size=draw_(odd), residual=draw_(st.booleans()),
      skip=draw_(st.booleans()), dtype=draw_(st.sampled_from(["float64", "float32"])),
      implementation=draw_(st.sampled_from(["fused", "autodiff"])),
      unroll=draw_(st.sampled_from([1, 2, 7])),
      images_per_strip=draw_(st.sampled_from([0, 1, 2, 5])),
      rematerialize=draw_(st.booleans()), multi_scale=factors)
  config.validate()
  return config


# These configurations crashed once. A kernel of size 1 has a centre and nothing around
# it.
ONE = prnn.ModelConfig(
    "row_lstm", (3, 4, 1), levels=3, hidden=2, layers=1, head_features=2,
    kernel_size=1, first_kernel_size=1, dtype="float64")
COLOUR = prnn.ModelConfig(
    "pixel_cnn", (2, 2, 3), levels=256, hidden=3, layers=2, head_features=3,
    kernel_size=1, first_kernel_size=1, skip=True, multi_scale=(2,))


@pytest.mark.usefixtures("x64")
@example(ONE)
@example(COLOUR)
@settings(max_examples=4, derandomize=True, **ALWAYS)
@given(configs())
def test_every_config_works(config):
  check(config)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=300, **ALWAYS)
@given(configs())
def test_many_configs_work(config):
  check(config)


def check(config):
  """Assert that likelihood, sampling and completion of a model agree."""
  event(config.kind)
  model = prnn.build_model(config)
  rng = np.random.default_rng(0)
  variables = random_variables(model, rng, 0.3)
  images = rng.integers(0, config.levels, (2, *config.image_shape), np.uint8)
  known = rng.random(config.image_shape[:2]) < 0.5
  key, temperature = jax.random.key(1), 0.8
  completed = prnn.complete(model, variables, key, images, known, temperature)
  np.testing.assert_array_equal(completed[:, known], images[:, known])
  scales = prnn.sample(
      model, variables, key, num=2, temperature=temperature, return_scales=True)

  @jax.jit
  def compare(variables, images, scales):
    """Return logits, cached logits, nats and redrawn samples, from one program.

    The last are drawn from the logits of the samples, and must be equal to the samples.
    """
    logits = jax.tree.leaves(model.apply(variables, images))
    cached = jax.tree.leaves(value_logits(model, variables, images))
    nats = -prnn.log_prob(model, variables, images)
    smaller = dict(smaller=scales[:-1]) if config.multi_scale else {}
    sample_logits = jax.tree.leaves(model.apply(variables, scales[-1], **smaller))
    redrawn = [
        redraw(x, first) for x, first in zip(
            sample_logits, first_indices(config.scale_shapes()), strict=True)]
    return logits, cached, nats, redrawn

  def redraw(logits, first):
    """Draw each value of the samples again, from the logits of the samples."""
    shape = logits.shape[1:4]
    indices = first + jnp.arange(math.prod(shape))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(2))
    flat = logits.reshape(2, -1, logits.shape[-1])
    values = jax.vmap(
        lambda x, index: draw(x, keys, index, temperature),
        in_axes=(1, 0), out_axes=1)(flat, indices)
    return values.reshape(2, *shape)

  logits, cached, nats, redrawn = compare(variables, images, scales)
  tolerance = 1e-8 if config.dtype == "float64" else 1e-4
  for parallel, by_value in zip(logits, cached, strict=True):
    assert np.isfinite(parallel).all()
    np.testing.assert_allclose(by_value, parallel, atol=tolerance, rtol=tolerance)
  for drawn, again in zip(scales, redrawn, strict=True):
    assert drawn.max() < config.levels
    np.testing.assert_array_equal(again, drawn)
  small = [images]
  for factor in config.multi_scale[::-1]:
    small.insert(0, small[0][:, factor // 2::factor, factor // 2::factor])
  expected = 0
  for scale_logits, values in zip(logits, small, strict=True):
    log_probs = scale_logits - np.logaddexp.reduce(scale_logits, axis=-1, keepdims=True)
    chosen = np.take_along_axis(log_probs, values[..., None].astype(int), -1)
    expected -= chosen.sum(axis=(1, 2, 3, 4))
  np.testing.assert_allclose(nats, expected, rtol=1e-4)
  jax.clear_caches()
