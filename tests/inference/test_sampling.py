"""The sampler with cached states: its logits, its distribution and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pixelrnn_jax as prnn
from helpers.distributions import chi_square, every_image, index_of
from helpers.parameters import random_model, random_variables
from pixelrnn_jax.configs.schema import KINDS
from pixelrnn_jax.inference import naive_sampler
from pixelrnn_jax.inference.sampling import value_logits

CASES = [
    # shape, levels, residual, skip, kernel
    ((3, 4, 3), 4, True, True, 3), ((4, 2, 1), 2, True, False, 3),
    ((1, 5, 3), 3, False, True, 5), ((5, 1, 1), 256, False, False, 1),
    ((1, 1, 3), 2, True, True, 3), ((2, 6, 1), 3, False, True, 3),
]


def case(kind, shape, levels, residual, skip, kernel, dtype="float64"):
  """Return a model, variables that are all random, and images."""
  model = prnn.build_model(prnn.ModelConfig(
      kind, shape, levels=levels, hidden=7, layers=3, head_features=8,
      residual=residual, skip=skip, kernel_size=kernel, dtype=dtype))
  rng = np.random.default_rng(0)
  images = rng.integers(0, levels, (3, *shape), np.uint8)
  return model, random_variables(model, rng, 0.3), images


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arguments, dtype, tolerance", [
    *((arguments, "float64", 1e-9) for arguments in CASES),
    (CASES[0], "float32", 1e-4)])
def test_cached_logits_equal_the_whole_image(kind, arguments, dtype, tolerance):
  model, variables, images = case(kind, *arguments, dtype)
  whole = jax.jit(model.apply)
  cached = jax.jit(lambda v, x: value_logits(model, v, x))
  expected, got = whole(variables, images), cached(variables, images)
  assert got.dtype == expected.dtype and got.shape == expected.shape
  np.testing.assert_allclose(got, expected, atol=tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, levels", [((3, 4, 1), 2), ((2, 3, 3), 5)])
def test_the_same_samples_as_the_plain_sampler(kind, shape, levels):
  model, variables, images = case(kind, shape, levels, True, True, 3)
  key = jax.random.key(3)
  known = np.random.default_rng(1).random((3, *shape[:2])) < 0.4
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(3))
  for mask, temperature in [(np.zeros_like(known), 1.0), (known, 0.7)]:
    plain = naive_sampler.complete(
        model, variables, keys, jnp.asarray(images), mask, temperature)
    cached = prnn.complete(model, variables, key, images, mask, temperature)
    np.testing.assert_array_equal(cached, plain)
    np.testing.assert_array_equal(cached[mask], images[mask])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_depend_on_the_batch(kind):
  model, variables = random_model(kind, (3, 4, 1), 4)
  key = jax.random.key(0)
  samples = prnn.sample(model, variables, key, num=7)
  assert samples.dtype == np.uint8 and samples.shape == (7, 3, 4, 1)
  assert len(np.unique(samples.reshape(7, -1), axis=0)) > 1
  np.testing.assert_array_equal(
      prnn.sample(model, variables, key, num=7, batch_size=2), samples)
  np.testing.assert_array_equal(prnn.sample(model, variables, key, num=3), samples[:3])
  assert (prnn.sample(model, variables, jax.random.key(1), num=7) != samples).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, levels", [((2, 3, 1), 2), ((1, 2, 3), 2)])
def test_samples_follow_the_exact_probabilities(kind, shape, levels):
  model, variables = random_model(kind, shape, levels)
  images = every_image(shape, levels)
  probabilities = np.exp(np.float64(prnn.log_prob(model, variables, images)))
  samples = prnn.sample(
      model, variables, jax.random.key(5), num=100_000, batch_size=50_000)
  counts = np.bincount(index_of(samples, levels), minlength=len(images))
  assert abs(chi_square(counts, probabilities / probabilities.sum())) < 5
  # The test can fail: the samples are far from uniform.
  assert chi_square(counts, np.full(len(images), 1 / len(images))) > 50


@pytest.mark.parametrize("kind", KINDS)
def test_temperature_and_completion_follow_their_distributions(kind):
  shape, levels, temperature = (2, 2, 1), 3, 0.5
  model, variables = random_model(kind, shape, levels)
  images = every_image(shape, levels)
  logits = np.float64(model.apply(variables, images)) / temperature
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  chosen = np.take_along_axis(log_probs, images[..., None].astype(int), -1)[..., 0]
  # Known pixels are not drawn, so only the factors of the other pixels count.
  for known in (np.zeros((2, 2), bool), np.array([[False, True], [True, False]])):
    given = np.array([[0, 2], [1, 0]], np.uint8)[..., None]
    fits = (images == given)[:, known].all(axis=(1, 2))
    factors = np.where(known[..., None], 0, chosen).sum(axis=(1, 2, 3))
    probabilities = np.exp(factors) * fits
    np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-5)
    drawn = prnn.complete(
        model, variables, jax.random.key(7), np.repeat(given[None], 100_000, 0),
        known, temperature, batch_size=50_000)
    counts = np.bincount(index_of(drawn, levels), minlength=len(images))
    assert counts[~fits].sum() == 0
    assert abs(chi_square(counts, probabilities / probabilities.sum())) < 5


@pytest.mark.parametrize("changes, message", [
    (dict(images=np.zeros((2, 4, 3, 1), np.uint8)), r"\[B, 3, 4, 1\]"),
    (dict(images=np.zeros((0, 3, 4, 1), np.uint8)), "at least 1"),
    (dict(images=np.full((2, 3, 4, 1), 4, np.uint8)), "takes 0 to 3"),
    (dict(images=np.full((2, 3, 4, 1), -1)), "takes 0 to 3"),
    (dict(images=np.zeros((2, 3, 4, 1))), "raw integer values"),
    (dict(known=np.zeros((4, 3), bool)), r"\[H, W\] = \[3, 4\]"),
    (dict(known=np.zeros((5, 3, 4), bool)), r"\[B, H, W\] = \[2, 3, 4\]"),
    (dict(known=np.zeros((3, 4), np.uint8)), "must be bool"),
    (dict(temperature=0.0), "positive"),
    (dict(temperature=float("nan")), "positive"),
    (dict(temperature=1e-39), "at least 1.2e-38"),  # float32 rounds it to 0
    (dict(temperature="1"), "positive"),
    (dict(key=7), "one key of jax.random"),
    (dict(key=np.zeros(3)), "one key of jax.random"),
    (dict(key=jax.random.split(jax.random.key(0))), "one key of jax.random"),
    (dict(batch_size=0), "at least 1"),
])
def test_bad_arguments_of_complete(changes, message):
  model, variables = random_model("pixel_cnn", (3, 4, 1), 4)
  arguments = dict(
      images=np.zeros((2, 3, 4, 1), np.uint8), known=np.zeros((3, 4), bool),
      key=jax.random.key(0))
  with pytest.raises(prnn.InputError, match=message):
    prnn.complete(model, variables, **(arguments | changes))


def test_an_old_key_gives_the_samples_of_the_new_one():
  model, variables = random_model("pixel_cnn", (3, 4, 1), 4)
  new = prnn.sample(model, variables, jax.random.key(5), num=3)
  old = prnn.sample(model, variables, jax.random.PRNGKey(5), num=3)
  np.testing.assert_array_equal(new, old)


def test_the_least_temperature_takes_the_most_probable_values():
  model, variables = random_model("row_lstm", (2, 2, 1), 3)
  images = prnn.sample(
      model, variables, jax.random.key(0), num=8, temperature=1.2e-38)
  best = model.apply(variables, images).argmax(axis=-1)
  np.testing.assert_array_equal(images, best)


@pytest.mark.parametrize("num, batch_size, drawn", [
    (7, 2, [4, 3]), (7, 256, [7]), (9, 1, [2, 2, 2, 2, 1])])  # two devices
def test_progress_counts_the_images_of_each_batch(num, batch_size, drawn):
  model, variables = random_model("pixel_cnn", (1, 2, 1), 4)
  calls = []
  prnn.sample(
      model, variables, jax.random.key(0), num, batch_size=batch_size,
      progress=calls.append)
  assert calls == drawn


@pytest.mark.parametrize("num", [0, -3, 2.5, "3"])
def test_no_samples(num):
  model, variables = random_model("pixel_cnn", (3, 4, 1), 4)
  with pytest.raises(prnn.InputError, match="1 or more"):
    prnn.sample(model, variables, jax.random.key(0), num=num)
