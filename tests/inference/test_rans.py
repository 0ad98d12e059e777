"""The entropy coder: integer probabilities, and symbols to words and back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixelrnn_jax.inference import rans

TOTAL = 2**24


frequencies = jax.jit(rans.frequencies)


def random_logits(rng, shape, levels, scale):
  return jnp.asarray(scale * rng.normal(size=(*shape, levels)), jnp.float32)


@jax.jit
def pop_all(streams, words, sizes):
  """Pop the symbols [n, S] of all streams one by one, given sizes [n, S, L]."""

  def one(streams, sizes):
    ends = jnp.cumsum(sizes, axis=-1, dtype=jnp.uint32)
    symbols = rans.find(streams, ends)
    size, end = (
        jnp.take_along_axis(x, symbols[:, None], axis=-1)[:, 0] for x in (sizes, ends))
    return rans.pop(streams, words, end - size, size), symbols

  return jax.lax.scan(one, streams, sizes)


def intervals(sizes, symbols):
  """Return the starts and sizes of symbols [n], given all sizes [n, L]."""
  ends = np.cumsum(sizes, axis=-1)
  size, end = (
      np.take_along_axis(x, symbols[:, None], -1)[:, 0] for x in (sizes, ends))
  return end - size, size


@pytest.mark.parametrize("levels, scale", [
    (2, 8), (2, 1e4), (3, 2), (256, 0.0), (256, 30)])
def test_what_is_pushed_is_popped(levels, scale):
  rng, streams, number = np.random.default_rng(levels), 3, 400
  sizes = frequencies(random_logits(rng, (number, streams), levels, scale))
  numpy_sizes = np.asarray(sizes, np.int64)
  # Half of the symbols are the most likely ones. The others are arbitrary, and some are
  # rare.
  symbols = rng.integers(0, levels, (number, streams))
  likely = numpy_sizes.argmax(axis=-1)
  symbols = np.where(rng.random(symbols.shape) < 0.5, likely, symbols)
  firsts, packed = [0, 2**32 - 1, 12345], []
  for s in range(streams):
    starts, chosen = intervals(numpy_sizes[:, s], symbols[:, s])
    stream = rans.push(starts, chosen, firsts[s])
    # The size is the cost of the symbols, the 4 bytes of the initial x, and rounding.
    cost = -np.log2(chosen / TOTAL).sum() / 8
    assert cost + 4 - 0.01 < len(stream) < 1.0005 * cost + 5.01
    packed.append(rans.unpack(stream))
  words = np.zeros((streams, max(len(w) for *_, w in packed) + 1), np.uint32)
  for s, (*_, some) in enumerate(packed):
    words[s, : len(some)] = some
  high, low = (np.array([x[i] for x in packed], np.uint32) for i in range(2))
  left, popped = pop_all(
      rans.Streams(high, low, np.zeros(streams, np.int32)), words, sizes)
  np.testing.assert_array_equal(popped, symbols)
  np.testing.assert_array_equal(left.high, 1)
  np.testing.assert_array_equal(left.low, np.array(firsts, np.uint32))
  np.testing.assert_array_equal(left.position, [len(w) for *_, w in packed])


def test_products_of_words_are_exact():
  rng = np.random.default_rng(0)
  a, b = rng.integers(0, 2**32, (2, 1000), np.uint64)
  a[:3], b[:3] = 2**32 - 1, [0, 1, 2**32 - 1]
  high, low = jax.jit(rans._multiply)(a.astype(np.uint32), b.astype(np.uint32))
  got = (np.asarray(high, np.uint64) << np.uint64(32)) | np.asarray(low, np.uint64)
  np.testing.assert_array_equal(got, a * b)


@pytest.mark.parametrize("levels", [2, 7, 256])
@pytest.mark.parametrize("scale", [0.0, 0.1, 1, 3, 10, 100, 1e5])
def test_frequencies_lose_next_to_nothing(levels, scale):
  rng = np.random.default_rng(levels)
  logits = random_logits(rng, (500,), levels, scale)
  sizes = np.asarray(frequencies(logits), np.int64)
  assert sizes.min() >= 1
  np.testing.assert_array_equal(sizes.sum(axis=-1), TOTAL)
  # The entropy and the overhead, in bits a symbol, are means over the softmax.
  logits = np.float64(logits) - np.float64(logits).max(axis=-1, keepdims=True)
  log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  p = np.exp(log_p)
  entropy = -(p * log_p).sum(axis=-1) / np.log(2)
  added = -(p * np.log2(sizes / TOTAL)).sum(axis=-1) - entropy
  assert added.min() > -1e-9
  # The overhead is at most 2.2e-5 bits for 256 levels and 1.7e-7 bits for 2 levels. It
  # is also added where the entropy is 0.
  assert added.max() < 1.01 * levels / TOTAL / np.log(2)
  if entropy.mean() > 0.03 or levels == 2 and entropy.mean() > 2e-4:
    assert added.mean() < 1e-3 * entropy.mean()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_extreme_logits_of_any_dtype(dtype, x64):
  logits = jnp.array([[0, 60000.0], [0, -60000.0], [88, 88], [-3e4, -3e4]], dtype)
  sizes = np.asarray(rans.frequencies(logits), np.int64)
  np.testing.assert_array_equal(
      sizes, [[1, TOTAL - 1], [TOTAL - 1, 1], *2 * [[TOTAL // 2, TOTAL // 2]]])


@pytest.mark.parametrize("stream", [
    b"", b"\1", b"\1\0\0\0", bytes(5), bytes(8), b"\1\2\3\4\0", 12 * b"\0"])
def test_bytes_that_are_no_stream(stream):
  with pytest.raises(ValueError, match="no stream"):
    rans.unpack(stream)


@pytest.mark.parametrize("number", range(4))
def test_the_length_of_a_stream_tells_words_from_the_rest(number):
  push = functools.partial(rans.push, first=7)
  # A symbol of size 1 costs 24 bits.
  stream = push(np.full(number, 5), np.ones(number, np.int64))
  high, low, words = rans.unpack(stream)
  assert len(stream) == -(-(33 + 24 * number - 32 * len(words)) // 8) + 4 * len(words)
  assert high > 0 and len(words) == max(0, 24 * number // 32)
