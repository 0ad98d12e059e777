"""Samples, super-resolution and completion of models of several scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pixelrnn_jax as prnn
from helpers.distributions import chi_square, every_image, index_of
from helpers.parameters import random_variables, strengthen_conditions
from pixelrnn_jax import ops
from pixelrnn_jax.configs.schema import KINDS
from pixelrnn_jax.inference import likelihood, naive_sampler


def make(kind, shape, multi_scale, levels=2, dtype="float32"):
  """Return a model and random parameters.

  Its large images depend strongly on the small ones.
  """
  model = prnn.build_model(prnn.ModelConfig(
      kind, shape, levels=levels, hidden=6, layers=1, head_features=9, dtype=dtype,
      multi_scale=multi_scale))
  variables = random_variables(model, np.random.default_rng(0), 0.2)
  return model, strengthen_conditions(variables, 5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_as_the_plain_sampler(kind):
  shape = (4, 4, 1) if kind == "row_lstm" else (2, 4, 3)
  multi_scale = (2, 2) if kind == "row_lstm" else (2,)
  model, variables = make(kind, shape, multi_scale, 3, "float64")
  rng = np.random.default_rng(1)
  images = rng.integers(0, 3, (3, *shape), np.uint8)
  known = rng.random((3, *shape[:2])) < 0.4
  key = jax.random.key(3)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(3))
  for mask, temperature in [(np.zeros_like(known), 1.0), (known, 0.7)]:
    plain = naive_sampler.complete(
        model, variables, keys, jnp.asarray(images), mask, temperature)
    cached = prnn.complete(model, variables, key, images, mask, temperature)
    np.testing.assert_array_equal(cached, plain)
    np.testing.assert_array_equal(cached[mask], images[mask])


def test_samples_do_not_depend_on_the_batch_nor_on_where_their_small_ones_are_from():
  model, variables = make("row_lstm", (4, 8, 1), (2, 2), 4)
  key = jax.random.key(0)
  scales = prnn.sample(model, variables, key, 5, return_scales=True)
  assert [(x.shape, x.dtype) for x in scales] == [
      ((5, *shape), np.uint8) for shape in ((1, 2, 1), (2, 4, 1), (4, 8, 1))]
  assert len(np.unique(scales[-1].reshape(5, -1), axis=0)) > 1
  again = prnn.sample(model, variables, key, 5, batch_size=1)
  np.testing.assert_array_equal(again, scales[-1])
  # Each scale draws its values with its own keys. So the same smaller images lead to
  # the same larger images.
  for scale in range(2):
    given = prnn.sample(
        model, variables, key, small=scales[scale], return_scales=True)
    np.testing.assert_array_equal(given[-1], scales[-1])
    np.testing.assert_array_equal(given[scale], scales[scale])
  # The scales below a given one are subsampled from it.
  np.testing.assert_array_equal(given[0], ops.subsample(scales[1], 2))


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_follow_the_exact_probabilities(kind):
  shape, levels = (2, 4, 1), 2
  model, variables = make(kind, shape, (2,), levels)
  small, large = every_image((1, 2, 1), levels), every_image(shape, levels)
  first, second = np.indices((len(small), len(large))).reshape(2, -1)
  log_probs = np.float64(likelihood.log_prob_by_scale(
      model, variables, large[second], [small[first]]))
  probabilities = np.exp(log_probs.sum(axis=1))
  drawn = prnn.sample(
      model, variables, jax.random.key(5), 100_000, batch_size=50_000,
      return_scales=True)
  numbers = index_of(drawn[0], levels) * len(large) + index_of(drawn[1], levels)
  counts = np.bincount(numbers, minlength=len(probabilities))
  assert abs(chi_square(counts, probabilities / probabilities.sum())) < 5
  # The test can fail: the statistic is large if large images are independent of small
  # ones.
  apart = np.outer(*(
      np.bincount(index_of(x, levels), minlength=n) / len(x)
      for x, n in zip(drawn, (4, 256), strict=True))).reshape(-1)
  assert chi_square(counts, apart) > 50

  # Super-resolution of one given small image, which is not taken from a sample.
  given = np.repeat(small[2:3], 50_000, axis=0)
  grown = prnn.sample(
      model, variables, jax.random.key(6), batch_size=50_000, small=given)
  counts = np.bincount(index_of(grown, levels), minlength=len(large))
  conditional = np.exp(log_probs[first == 2, 1])
  assert abs(chi_square(counts, conditional / conditional.sum())) < 5
  others = np.exp(log_probs[first == 1, 1])
  assert chi_square(counts, others / others.sum()) > 50


def test_completion_keeps_what_is_known_and_the_scales_share_it():
  """Completion keeps the known pixels, and draws the others from the distribution.

  Some of the known large pixels also belong to the small image.
  """
  shape, levels = (2, 4, 1), 2
  model, variables = make("diagonal_bilstm", shape, (2,), levels)
  known = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], bool)  # the first is shared
  image = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.uint8)[..., None]
  assert ops.subsample(known[None], 2).tolist() == [[[True, False]]]
  drawn = prnn.complete(
      model, variables, jax.random.key(1), np.repeat(image[None], 100_000, 0), known,
      batch_size=50_000)
  assert (drawn[:, known] == 1).all()

  large = every_image(shape, levels)
  fits = (large == image)[:, known].all(axis=(1, 2))
  total = np.zeros(len(large))
  for second in range(levels):  # the small image's second pixel is drawn
    small = np.broadcast_to(
        np.array([[1, second]], np.uint8)[..., None], (len(large), 1, 2, 1))
    small_log_probs, large_log_probs = (
        np.float64(x) for x in prnn.log_probs(model, variables, large, [small]))
    factors = np.where(known[..., None], 0, large_log_probs).sum(axis=(1, 2, 3))
    total += fits * np.exp(small_log_probs[:, 0, 1, 0] + factors)
  np.testing.assert_allclose(total.sum(), 1, atol=1e-5)
  counts = np.bincount(index_of(drawn, levels), minlength=len(large))
  assert counts[~fits].sum() == 0
  assert abs(chi_square(counts, total / total.sum())) < 5


SMALL = np.zeros((2, 2, 4, 1), np.uint8)


@pytest.mark.parametrize("arguments, message", [
    (dict(small=SMALL[..., 0]), r"\[B, 1, 2, 1\] or \[B, 2, 4, 1\]"),
    (dict(small=SMALL[:, :, :3]), r"takes \[B, h, w, C\]"),
    (dict(small=np.zeros((2, 4, 8, 1), np.uint8)), r"shape \(2, 4, 8, 1\)"),
    (dict(small=SMALL[:0]), "at least 1"),
    (dict(small=SMALL.astype(float)), "raw integer values"),
    (dict(small=SMALL + 4), "takes 0 to 3"),
    (dict(small=SMALL.astype(int) - 1), "takes 0 to 3"),
    (dict(small=SMALL, num=3), "num=3 with 2 small images"),
    (dict(small=SMALL, num=0), "1 or more"),
    (dict(small=SMALL, temperature=0.0), "positive"),
    (dict(small=SMALL, key=3), "one key of jax.random"),
    (dict(small=SMALL, batch_size=0), "at least 1"),
])
def test_bad_small_images(arguments, message):
  model, variables = make("pixel_cnn", (4, 8, 1), (2, 2), 4)
  with pytest.raises(prnn.InputError, match=message):
    prnn.sample(model, variables, **{"key": jax.random.key(0)} | arguments)


def test_small_images_for_a_single_scale():
  model, variables = make("pixel_cnn", (4, 8, 1), (), 4)
  with pytest.raises(prnn.InputError, match="model of a single scale"):
    prnn.sample(model, variables, jax.random.key(0), small=SMALL)
