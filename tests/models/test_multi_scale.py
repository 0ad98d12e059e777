"""Networks of several scales.

They are compared with loops, and computed value by value. Their likelihoods are
normalised. Their Jacobians, as in `helpers/causality.py`, are exactly zero in float64
where a value must not be seen, and not zero where it is seen.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pixelrnn_jax as prnn
from helpers import causality, reference
from helpers.distributions import every_image
from helpers.parameters import random_variables, strengthen_conditions
from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import KINDS
from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.inference.sampling import value_logits


def make(kind, shape, multi_scale, levels=2, dtype="float64", noise=0.3, **changes):
  """Return a model, variables that are all random, and three images."""
  config = dict(
      levels=levels, hidden=6, layers=2, head_features=9, dtype=dtype, skip=True)
  model = prnn.build_model(prnn.ModelConfig(
      kind, shape, multi_scale=multi_scale, **config | changes))
  rng = np.random.default_rng(0)
  images = rng.integers(0, levels, (3, *shape), np.uint8)
  return model, random_variables(model, rng, noise), images


CASES = [
    # kind, shape, factors, levels
    *((kind, (4, 6, 3), (2,), 4) for kind in KINDS),
    ("diagonal_bilstm", (4, 4, 1), (2, 2), 2), ("pixel_cnn", (3, 6, 1), (3,), 3),
    ("row_lstm", (6, 3, 1), (3,), 2),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind, shape, multi_scale, levels", CASES)
def test_logits_equal_the_loops_and_the_value_by_value_way(
    kind, shape, multi_scale, levels):
  model, variables, images = make(kind, shape, multi_scale, levels)
  logits, total, by_scale = jax.jit(lambda v, x: (
      model.apply(v, x), likelihood.total_nats(model, v, x),
      likelihood.log_prob_by_scale(model, v, x)))(variables, images)
  by_value = jax.jit(lambda v, x: value_logits(model, v, x))(variables, images)
  assert [x.shape[1:] for x in logits] == [
      (*scale_shape, levels) for scale_shape in model.config.scale_shapes()]
  params = jax.tree.map(np.asarray, variables["params"])
  for n, image in enumerate(images):
    scales = [image]
    for factor in reversed(multi_scale):
      scales.insert(0, reference.subsample(scales[0], factor))
    small = None
    for s, x in enumerate(scales):
      config = dataclasses.replace(model.config, image_shape=x.shape, multi_scale=())
      expected = reference.logits(config, params[f"scales_{s}"], x, small)
      np.testing.assert_allclose(logits[s][n], expected, atol=1e-9)
      np.testing.assert_allclose(by_value[s][n], expected, atol=1e-9)
      small = x
  np.testing.assert_allclose(total, -by_scale.sum(axis=0), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_agree_in_bfloat16(kind):
  model, variables, images = make(
      kind, (2, 4, 3), (2,), 4, "bfloat16", layers=1, rematerialize=True)
  logits = jax.jit(model.apply)(variables, images)
  by_value = jax.jit(lambda v, x: value_logits(model, v, x))(variables, images)
  for a, b in zip(logits, by_value, strict=True):
    assert a.dtype == b.dtype == jnp.float32
    assert np.abs(a - b).max() < 0.2 * a.std()


def jacobians(model):
  """Return a function that computes the Jacobians of the largest scale.

  It maps (variables, image, small) to |d logits / d image| [i, j] and |d logits / d
  small| [i, k]. Each entry is the largest one over the levels.
  """
  shape = model.config.image_shape
  size = int(np.prod(shape))

  @jax.jit
  def of(variables, image, small):
    def logits(image, small):
      return model.apply(variables, image[None], [small[None]])[-1].reshape(size, -1)

    return [
        jnp.abs(x).max(axis=1).reshape(size, -1)
        for x in jax.jacrev(logits, argnums=(0, 1))(image, small)]

  return of


def reach(shape, factor, first, kernel):
  """Return whether the map at (r, c) depends on the small pixel (r', c').

  The result is bool [H, W, h, w].
  """
  height, width = shape
  seen = np.zeros((height, width, height // factor, width // factor), bool)
  for r in range(height):
    for c in range(width):
      for rr in range(max(0, r - kernel // 2), min(height, r + kernel // 2 + 1)):
        for cc in range(max(0, c - kernel // 2), min(width, c + kernel // 2 + 1)):
          top, left = rr // factor - first // 2, cc // factor - first // 2
          seen[r, c, max(0, top) : top + first, max(0, left) : left + first] = True
  return seen


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind, channels", [
    *((kind, 3) for kind in KINDS), ("diagonal_bilstm", 1)])
def test_sees_its_past_and_all_around_in_the_small_image(
    kind, channels, monkeypatch):
  shape = (4, 8, channels)
  monkeypatch.setattr(causality, "HEIGHT", shape[0])
  monkeypatch.setattr(causality, "WIDTH", shape[1])
  model, _, _ = make(
      kind, shape, (2,), causality.LEVELS, hidden=12, head_features=24,
      first_kernel_size=causality.FIRST, kernel_size=causality.KERNEL)
  rng = np.random.default_rng(1)
  step, jacobian = causality.make_step(model, rng, "muon"), jacobians(model)
  coarse = jax.jit(jax.jacrev(
      lambda x, v: model.apply(v, jnp.zeros((1, *shape)), [x[None]])[0]))
  size = int(np.prod(shape))
  future = ~np.tril(np.ones((size, size), bool), k=-1)
  found = {name: (np.zeros((size, size)), np.zeros((size, size // 4)))
           for name in ("untrained", "trained")}
  for _ in range(3):
    variables = random_variables(model, rng, 0.1)
    for name, params in (("untrained", variables), ("trained", step(variables))):
      image = jnp.asarray(rng.uniform(0, causality.LEVELS - 1, shape))
      small = jnp.asarray(rng.uniform(0, causality.LEVELS - 1, (2, 4, channels)))
      for total, more in zip(found[name], jacobian(params, image, small), strict=True):
        np.maximum(total, more, out=total)
      # The smallest scale is causal, and sees nothing of the large one.
      own = np.abs(coarse(small, params)).reshape(size // 4, -1, size // 4).max(axis=1)
      assert (own[~np.tril(np.ones_like(own, bool), k=-1)] == 0).all()
      assert (own != 0).any()
  around = reach(shape[:2], 2, causality.FIRST, causality.KERNEL)
  around = np.kron(
      around.reshape(size // channels, -1), np.ones((channels, channels), bool))
  assert around.sum(axis=1).min() >= channels * 4
  for past, small_seen in found.values():
    assert np.isfinite(past).all() and np.isfinite(small_seen).all()
    assert (past[future] == 0).all(), "a logit depends on its own value or later"
    np.testing.assert_array_equal(past != 0, causality.values_seen(kind, channels))
    assert (small_seen[around] != 0).all(), "a small pixel in reach is not seen"


@pytest.mark.usefixtures("x64")
def test_one_layer_sees_the_reach_of_the_upsampler_and_no_more():
  """A PixelCNN of one layer sees just the reach of the upsampler.

  The layer adds nothing to it, so `reach` is exact.
  """
  shape = (6, 10, 1)
  model, _, _ = make(
      "pixel_cnn", shape, (2,), 3, layers=1, first_kernel_size=3, kernel_size=3,
      hidden=12)
  rng = np.random.default_rng(0)
  total, jacobian = np.zeros((60, 15)), jacobians(model)
  for _ in range(3):
    variables = random_variables(model, rng, 0.1)
    image, small = rng.uniform(0, 2, shape), rng.uniform(0, 2, (3, 5, 1))
    np.maximum(total, jacobian(variables, image, small)[1], out=total)
  np.testing.assert_array_equal(
      total != 0, reach((6, 10), 2, 3, 3).reshape(60, 15))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, multi_scale, levels", [
    ((2, 4, 1), (2,), 2), ((2, 2, 1), (2,), 4), ((3, 3, 1), (3,), 2)])
def test_the_probabilities_of_all_pairs_sum_to_one(kind, shape, multi_scale, levels):
  model, variables, _ = make(
      kind, shape, multi_scale, levels, "float32", noise=0.5)
  variables = strengthen_conditions(variables, 1.5)
  small = every_image(model.config.scale_shapes()[0], levels)
  large = every_image(shape, levels)
  pairs = np.repeat(small, len(large), axis=0), np.tile(large, (len(small), 1, 1, 1))
  by_scale = np.float64(likelihood.log_prob_by_scale(
      model, variables, pairs[1], pairs[:1]))
  assert abs(np.exp(by_scale.sum(axis=1)).sum() - 1) < 1e-5
  # The probabilities of all large images given a small one sum to 1. They depend on the
  # small image.
  given = by_scale[:, 1].reshape(len(small), len(large))
  np.testing.assert_allclose(np.exp(given).sum(axis=1), 1, atol=1e-5)
  assert given.std(axis=0).min() > 1e-3 and given.std() > 0.1
  # By default the small image is the subsampled large one. This gives the joint
  # probability of both, which is less than the marginal one of the large image.
  joint = np.float64(prnn.log_prob(model, variables, large))
  at = [np.flatnonzero((small == x).all(axis=(1, 2, 3)))[0]
        for x in ops.subsample(large, multi_scale[0])]
  all_pairs = by_scale.sum(axis=1).reshape(len(small), len(large))
  np.testing.assert_allclose(
      joint, all_pairs[at, np.arange(len(large))], rtol=1e-4)
  gap = np.logaddexp.reduce(all_pairs, axis=0) - joint
  assert gap.min() > -1e-4 and gap.max() > 0.1


def test_units():
  model, variables, images = make("row_lstm", (4, 4, 3), (2,), 256, "float32")
  variables = jax.tree.map(np.zeros_like, variables)
  small, large = prnn.log_probs(model, variables, images)
  assert small.shape == (3, 2, 2, 3) and large.shape == (3, 4, 4, 3)
  np.testing.assert_allclose(large, -np.log(256), rtol=1e-6)
  np.testing.assert_allclose(
      prnn.log_prob(model, variables, images), -60 * np.log(256), rtol=1e-6)
  # The bits of both scales are divided by the dimensions of the large image.
  np.testing.assert_allclose(
      prnn.bits_per_dim(model, variables, images), 8 * 60 / 48, rtol=1e-6)
  assert "lower bound of log p" in likelihood.bound_note(model.config)
  assert likelihood.bound_note(dataclasses.replace(model.config, multi_scale=())) == ""


@pytest.mark.parametrize("images, smaller, message", [
    ((2, 4, 3, 1), None, r"\[B, 4, 4, 1\]"),
    ((0, 4, 4, 1), None, "B at least 1"),
    ((2, 4, 4, 1), [(2, 4, 4, 1)], r"\[\(2, 2, 2, 1\)\]"),
    ((2, 4, 4, 1), [(1, 2, 2, 1)], r"\[\(2, 2, 2, 1\)\]"),
    ((2, 4, 4, 1), [], "Smaller scales of shapes"),
])
def test_images_of_the_wrong_shapes(images, smaller, message):
  model, variables, _ = make("pixel_cnn", (4, 4, 1), (2,), dtype="float32")
  if smaller is not None:
    smaller = [np.zeros(shape, np.uint8) for shape in smaller]
  with pytest.raises(prnn.InputError, match=message):
    prnn.log_probs(model, variables, np.zeros(images, np.uint8), smaller)


def test_values_out_of_range_and_a_single_scale():
  model, variables, images = make("pixel_cnn", (4, 4, 1), (2,), dtype="float32")
  with pytest.raises(prnn.InputError, match="takes 0 to 1"):
    prnn.log_prob(model, variables, images, [np.full((3, 2, 2, 1), 2)])
  model, variables, images = make("pixel_cnn", (4, 4, 1), (), dtype="float32")
  with pytest.raises(prnn.InputError, match="single scale"):
    prnn.log_prob(model, variables, images, [images])
