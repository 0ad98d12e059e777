"""Samples and completions, value by value in raster order.

Shapes: B batch, H height, W width, C channels.

One pass over the image draws all values: every layer computes only what is new at
a value (`PixelRNN.by_value`), for a whole batch at once and spread over this
process's devices.

Value i = (r W + c) C + channel of image n is drawn with the key
fold_in(fold_in(key, n), i), so that a sample depends on the key and its own
index alone, not on how many are drawn together or on how many devices.
"""

import functools
import numbers
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax.errors import InputError
from pixelrnn_jax.likelihood import check_range


def sample(
    model: nn.Module, variables, key: jax.Array, num: int = 16,
    temperature: float = 1.0, batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
  """Draws images from the model, ancestral sampling (paper, section 2.1).

      x_i ~ softmax(logits(x_<i) / temperature)

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    key: a `jax.random` key.
    num: how many images, at least 1.
    temperature: positive; 1 is the model's distribution, less is safer.
    batch_size: images that a device draws at a time; bounds the memory.
    progress: called after each batch with how many images it drew.

  Returns:
    uint8 [num, H, W, C], raw values 0 .. levels - 1.

  Raises:
    InputError: `num` or `batch_size` is below 1, the temperature not positive, or
      the key none of `jax.random`.
  """
  if not isinstance(num, (int, np.integer)) or num < 1:
    raise InputError(f"num={num!r}: ask for a whole number of samples, 1 or more.")
  shape = model.config.image_shape
  images = np.zeros((num, *shape), np.uint8)
  return complete(
      model, variables, key, images, np.zeros(shape[:2], bool), temperature,
      batch_size, progress)


def complete(
    model: nn.Module, variables, key: jax.Array, images, known,
    temperature: float = 1.0, batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
  """Fills in the unknown pixels, each drawn given all values before it.

  Known values are kept exactly, also where they come after unknown ones; those
  do not see them, as the model's order is fixed.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    key: a `jax.random` key.
    images: integers [B, H, W, C], raw values 0 .. levels - 1.
    known: bool [H, W] or [B, H, W]; true where a pixel's values are kept.
    temperature: positive; 1 is the model's distribution, less is safer.
    batch_size: images that a device fills in at a time; bounds the memory.
    progress: called after each batch with how many images it filled in.

  Returns:
    uint8 [B, H, W, C].

  Raises:
    InputError: images or mask of another shape, dtype or range, a temperature
      that is not positive, a batch size below 1, or a key that is none of
      `jax.random`.
  """
  shape = tuple(model.config.image_shape)
  images, known = np.asarray(images), np.asarray(known)
  if images.ndim != 4 or images.shape[1:] != shape or len(images) < 1:
    raise InputError(
        f"Images of shape {images.shape}: this model completes [B, H, W, C] ="
        f" [B, {', '.join(map(str, shape))}], with B at least 1."
    )
  if not np.issubdtype(images.dtype, np.integer):
    raise InputError(
        f"Images of dtype {images.dtype}: raw integer values are needed (uint8)."
    )
  check_range(images, model.config.levels)
  if known.dtype != bool or known.shape not in (shape[:2], images.shape[:3]):
    raise InputError(
        f"A mask of shape {known.shape} and dtype {known.dtype}: known must be"
        f" bool, [H, W] = {list(shape[:2])} or [B, H, W] ="
        f" {list(images.shape[:3])}."
    )
  temperature = check_temperature(temperature)
  key = _typed(key)
  if batch_size < 1:
    raise InputError(f"batch_size={batch_size}: must be at least 1.")
  known = np.broadcast_to(known, images.shape[:3])
  images = np.where(known[..., None], images, 0).astype(np.uint8)
  total, devices = len(images), jax.local_device_count()
  # As few batches as the bound allows, of one size, so that one program serves.
  batches = -(-total // (batch_size * devices))
  size = -(-total // (batches * devices))
  # One process draws by itself, while others of the run may be doing something else.
  complete_batch = make_completer(model, tuple(jax.local_devices()))
  drawn = []
  for start in range(0, total, size * devices):
    # The last batch is filled up with images that are drawn and dropped.
    indices = start + np.arange(size * devices)
    rows = np.minimum(indices, total - 1)
    shape = (devices, size)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
    batch = complete_batch(
        variables, keys.reshape(shape), images[rows].reshape(*shape, *images.shape[1:]),
        known[rows].reshape(*shape, *known.shape[1:]), temperature)
    drawn.append(np.asarray(batch).reshape(-1, *images.shape[1:]))
    if progress is not None:
      progress(min(size * devices, total - start))
  return np.concatenate(drawn)[:total]


def value_logits(model: nn.Module, variables, images: jax.Array) -> jax.Array:
  """The logits of `model.apply(variables, images)`, computed value by value.

  What sampling sees when it draws these images; for tests, and a reference for
  coders.

  Args:
    images: integers [B, H, W, C].

  Returns:
    [B, H, W, C, levels].
  """
  images = jnp.asarray(images)

  def look_up(logits, row, column, channel):
    return images[:, row, column, channel], logits

  _, logits = model.apply(variables, look_up, len(images), method="by_value")
  return jnp.moveaxis(jnp.stack(logits), (0, 3), (3, 0))


def check_temperature(temperature: float) -> float:
  """The temperature; raises InputError unless it is positive and finite.

  Also below the least normal float32, which the division would take for 0.
  """
  least = np.finfo(np.float32).tiny
  if not isinstance(temperature, numbers.Real) or not (
      least <= temperature < np.inf):
    raise InputError(
        f"temperature={temperature!r}: must be positive and finite, a number of at"
        f" least {least:.1e}. For the most probable values use 1e-3, say."
    )
  return float(temperature)


def _typed(key: jax.Array) -> jax.Array:
  """A key of `jax.random.key`, also from one of the older `PRNGKey`."""
  if isinstance(key, jax.Array) and key.shape == () and jnp.issubdtype(
      key.dtype, jax.dtypes.prng_key):
    return key
  try:
    return jax.random.wrap_key_data(key)
  except (TypeError, ValueError, AttributeError) as error:
    raise InputError(
        f"key={key!r}: give one key of jax.random, such as jax.random.key(0)."
    ) from error


def draw(logits: jax.Array, keys: jax.Array, index, temperature) -> jax.Array:
  """One value for each image: logits [B, levels], keys [B] to int32 [B]."""
  keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
  # The most probable value stays at 0 however small the temperature is.
  logits = logits - logits.max(axis=-1, keepdims=True)
  return jax.vmap(jax.random.categorical)(keys, logits / temperature)


@functools.lru_cache(maxsize=8)
def make_completer(model: nn.Module, devices: tuple[jax.Device, ...]) -> Callable:
  """`complete` for a batch on each device, compiled once for a model.

  Returns:
    A function of variables, keys [D, B], images [D, B, H, W, C], known
    [D, B, H, W] and temperature to images.
  """
  _, width, channels = model.config.image_shape

  def one_device(variables, keys, images, known, temperature):

    def choose(logits, row, column, channel):
      index = (row * width + column) * channels + channel
      value = draw(logits, keys, index, temperature)
      given = images[:, row, column, channel]
      return jnp.where(known[:, row, column], given, value), None

    return model.apply(variables, choose, len(images), method="by_value")[0]

  return jax.pmap(one_device, in_axes=(None, 0, 0, 0, None), devices=devices)
