"""From grey values to bits: three rules of binarisation.

`static` and `dynamic` read a grey value x in 0 to 255 as the probability x / 255 of a
one, as in Salakhutdinov and Murray (2008). With a 16-bit uniform u in 0 to 65535,

    bit = 1  where  u * 255 < x * 65536,  else 0.

So p(bit = 1) is x / 255 to within 2^-16. It is exactly 0 for x = 0 and exactly 1 for
x = 255. `static` takes u from a hash of the image itself. `dynamic` takes u from a
random generator at each call. `threshold` has no randomness.
"""

import hashlib

import numpy as np

from pixelrnn_jax.errors import InputError

# It is hashed before the image. Another text is another draw of the whole data set.
_STATIC_TAG = b"pixelrnn_jax static binarisation 1"


def static(image: np.ndarray) -> np.ndarray:
  """Return the one fixed draw of an image, a function of its bytes alone.

  u is SHAKE-256 of a fixed tag followed by the image's bytes in C order, read as
  little-endian 16-bit numbers. Neither the place of the image in its data set nor the
  version of NumPy changes the bits.

  Args:
    image: uint8 [...], one image of grey values 0 to 255.

  Returns:
    uint8 of the same shape, 0 or 1.

  Raises:
    InputError: the image is not uint8.
  """
  _check_uint8(image)
  digest = hashlib.shake_256(_STATIC_TAG + image.tobytes()).digest(2 * image.size)
  return _compare(np.frombuffer(digest, "<u2").reshape(image.shape), image)


def dynamic(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Return a new draw of an image, with u from `rng`.

  Args:
    image: see `static`.
    rng: the random generator.

  Returns:
    See `static`.

  Raises:
    InputError: the image is not uint8.
  """
  _check_uint8(image)
  return _compare(rng.integers(0, 2**16, size=image.shape, dtype=np.uint16), image)


def threshold(image: np.ndarray) -> np.ndarray:
  """Return 1 where the grey value is 128 or more, else 0; otherwise see `static`."""
  _check_uint8(image)
  return (image >= 128).astype(np.uint8)


def _compare(uniform: np.ndarray, image: np.ndarray) -> np.ndarray:
  """Return u * 255 < x * 65536 for uint16 u and uint8 x of one shape, as uint8."""
  bits = uniform.astype(np.uint32) * 255 < image.astype(np.uint32) * 65536
  return bits.astype(np.uint8)


def _check_uint8(image: np.ndarray) -> None:
  """Raise InputError unless `image` holds bytes."""
  if image.dtype != np.uint8:
    raise InputError(
        f"Images of dtype {image.dtype} cannot be binarised: they must be uint8"
        " grey values from 0 to 255."
    )
