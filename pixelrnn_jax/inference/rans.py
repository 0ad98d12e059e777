"""Asymmetric numeral systems (rANS): symbols and their probabilities to words and back.

J. Duda, arXiv 1311.2540. A stream is one big number x. Symbol s has the frequency
f_s > 0, of 2^24 in all, and the start c_s = f_0 + ... + f_{s-1}:

    push s:  x <- 2^24 floor(x / f_s) + c_s + (x mod f_s)
    pop  s:  c_s <= x mod 2^24 < c_s + f_s
             x <- f_s floor(x / 2^24) + (x mod 2^24) - c_s

A push multiplies x by about 2^24 / f_s, so it costs -log2(f_s / 2^24) bits. The symbol
that was pushed last is popped first.

x stays in [2^32, 2^64): words of 32 bits leave it at its lower end before a push, and
enter it there after a pop. Whether a word leaves or enters follows from x and f_s
alone. So popping undoes pushing exactly. After the last pop, x is the number with which
pushing began.

Popping runs inside a compiled program. JAX has no 64-bit integers there by default, so
x is two words, (high, low). Pushing runs on the host, with Python's integers.

Shapes: S streams, L levels, W words.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, UInt32

PRECISION = 24  # frequencies sum to 2^24: as fine as a float32 near 1
_TOTAL = 1 << PRECISION
_WORD = 32
_MASK = (1 << _WORD) - 1


class Streams(NamedTuple):
  """The state of popping.

  Attributes:
    high: the upper words of x, uint32 [S].
    low: the lower words, uint32 [S].
    position: how many words of the stream have entered x, int32 [S].
  """

  high: UInt32[Array, " S"]
  low: UInt32[Array, " S"]
  position: Int32[Array, " S"]


def frequencies(
    logits: Float[Array, "*shape levels"]
) -> UInt32[Array, "*shape levels"]:
  """Return probabilities as integers.

      f_s = 1 + floor(softmax(logits)_s (2^24 - L))

  The most probable symbol gets the remainder that is missing to 2^24. So no frequency
  is 0. For 256 levels a symbol costs at most 2.2e-5 bits more than under the softmax,
  on average over the softmax's own distribution.

  Args:
    logits: finite, [..., L], L at most 256.

  Returns:
    uint32 [..., L], positive, with sum 2^24.
  """
  levels = logits.shape[-1]
  largest = logits.max(axis=-1, keepdims=True)
  probabilities = jax.nn.softmax((logits - largest).astype(jnp.float32))
  scaled = jnp.floor(probabilities * np.float32(_TOTAL - levels)).astype(jnp.uint32)
  result = scaled + np.uint32(1)
  # Rounding errors of a float32 softmax may sum to more than 2^24. The difference is
  # at most some hundreds either way, the most probable symbol has 2^24 / 256 or more.
  missing = np.uint32(_TOTAL) - result.sum(axis=-1, keepdims=True, dtype=jnp.uint32)
  most = jnp.arange(levels) == logits.argmax(axis=-1)[..., None]
  return jnp.where(most, result + missing, result)  # modulo 2^32, where it is negative


def find(streams: Streams, ends: UInt32[Array, "S L"]) -> Int32[Array, " S"]:
  """Return the symbols that come next, int32 [S].

  Args:
    streams: the streams.
    ends: c_s + f_s of each symbol, uint32 [S, L].
  """
  slots = streams.low & np.uint32(_TOTAL - 1)
  return (ends <= slots[:, None]).sum(axis=-1, dtype=jnp.int32)


def pop(
    streams: Streams,
    words: UInt32[Array, "S W"],
    starts: UInt32[Array, " S"],
    sizes: UInt32[Array, " S"],
) -> Streams:
  """Take the symbols that `find` has found off the streams.

  Args:
    streams: the streams.
    words: uint32 [S, W], in the order in which they enter. Arbitrary values follow the
      last word. They are read only if a stream is not one that was pushed.
    starts: c_s of the symbols, uint32 [S].
    sizes: f_s of the symbols, uint32 [S].
  """
  high, low, position = streams
  # floor(x / 2^24), of 40 bits.
  rest_high = high >> np.uint32(PRECISION)
  rest_low = (high << np.uint32(_WORD - PRECISION)) | (low >> np.uint32(PRECISION))
  # f floor(x / 2^24) + (x mod 2^24) - c; the last two are a number below 2^24.
  high, product = _multiply(sizes, rest_low)
  high = high + sizes * rest_high
  low = product + (low & np.uint32(_TOTAL - 1)) - starts
  high = high + (low < product).astype(jnp.uint32)
  # Below 2^32, one word enters.
  short = high == 0
  there = jnp.clip(position, 0, words.shape[1] - 1)
  word = jnp.take_along_axis(words, there[:, None], axis=1)[:, 0]
  return Streams(
      jnp.where(short, low, high), jnp.where(short, word, low),
      position + short.astype(jnp.int32))


def _multiply(
    a: UInt32[Array, " S"], b: UInt32[Array, " S"]
) -> tuple[UInt32[Array, " S"], UInt32[Array, " S"]]:
  """Return the upper and the lower word of a b, from products of half words."""
  half, mask = np.uint32(16), np.uint32(0xFFFF)
  a_high, a_low, b_high, b_low = a >> half, a & mask, b >> half, b & mask
  low, middle = a_low * b_low, a_high * b_low
  middle = middle + (low >> half)  # no overflow: (2^16 - 1)^2 + 2^16 - 1 < 2^32
  carried = a_low * b_high + (middle & mask)
  high = a_high * b_high + (middle >> half) + (carried >> half)
  return high, (carried << half) | (low & mask)


def push(
    starts: Integer[np.ndarray, " n"], sizes: Integer[np.ndarray, " n"], first: int
) -> bytes:
  """Return the stream from which symbols are popped in their order.

  Args:
    starts: c_s of each symbol, integers [n].
    sizes: f_s of each symbol, integers [n].
    first: the number to begin with, 0 to 2^32 - 1. When all symbols have been popped,
      x is 2^32 + `first`.

  Returns:
    x without leading zero bytes, of 5 to 8 bytes, then the words in the order in
    which they enter.
  """
  x, words = (1 << _WORD) + first, []
  for start, size in zip(
      starts[::-1].tolist(), sizes[::-1].tolist(), strict=True):
    # A push must leave x below 2^64.
    if x >= size << (2 * _WORD - PRECISION):
      words.append(x & _MASK)
      x >>= _WORD
    quotient, remainder = divmod(x, size)
    x = (quotient << PRECISION) + start + remainder
  head = x.to_bytes(-(-x.bit_length() // 8), "little")
  return head + np.array(words[::-1], "<u4").tobytes()


def unpack(stream: bytes) -> tuple[int, int, UInt32[np.ndarray, " W"]]:
  """Return the high and the low word of a stream's x, and its words, uint32 [W].

  Raises:
    ValueError: `push` never returns such bytes.
  """
  number = (len(stream) - _WORD // 8 - 1) // 4  # words, for an x of 5 to 8 bytes
  x = int.from_bytes(stream[: len(stream) - 4 * number], "little") if number >= 0 else 0
  if not x >> _WORD:
    raise ValueError("no stream begins like that")
  words = np.frombuffer(stream[len(stream) - 4 * number :], "<u4")
  return x >> _WORD, x & _MASK, words.astype(np.uint32)
