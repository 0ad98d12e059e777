"""Samples and completions, value by value in raster order.

Of a multi-scale model the smallest scale is drawn first, then each larger one given
the one before.

Shapes: B batch, H height, W width, C channels.

One pass over the image draws all values: every layer computes only what is new at
a value (`PixelRNN.by_value`), for a whole batch at once and spread over this
process's devices.

Value i = (r W + c) C + channel of image n is drawn with the key
fold_in(fold_in(key, n), i), so that a sample depends on the key and its own
index alone, not on how many are drawn together or on how many devices. The values of
several scales are numbered one scale after another, the coarsest first.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.errors import InputError, out_of_memory


@out_of_memory("Draw fewer images at a time, with a smaller batch_size.")
def sample(
    model: nn.Module, variables, key: jax.Array, num: int | None = None,
    temperature: float = 1.0, batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
    small=None, return_scales: bool = False,
) -> np.ndarray | tuple[np.ndarray, ...]:
  """Draws images from the model, ancestral sampling (paper, section 2.1).

      x_i ~ softmax(logits(x_<i) / temperature)

  It runs on the host, with programs of its own that are compiled also under
  `jax.disable_jit`.

  With `small`, a multi-scale model makes a large image of each small one
  (super-resolution); several of one are several times the same in `small`.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    key: a `jax.random` key.
    num: how many images, at least 1; 16 by default, or as many as there are small
      ones.
    temperature: positive; 1 is the model's distribution, less is safer.
    batch_size: images that a device draws at a time; bounds the memory.
    progress: called after each batch with how many images it drew.
    small: integers [num, h, w, C], the images of one of the smaller scales of a
      multi-scale model, raw values 0 .. levels - 1.
    return_scales: return the smaller scales too.

  Returns:
    uint8 [num, H, W, C], raw values 0 .. levels - 1; with `return_scales` a tuple
    of the images of all scales, the coarsest first. The small ones that are given
    or drawn are not forced upon the large ones: the model is free to disagree.

  Raises:
    InputError: `num` or `batch_size` is no whole number or below 1, the temperature
      not positive, the key none of `jax.random`, or small images that the model has
      no scale for, or of another number, dtype or range; variables of another model;
      a call inside `jax.jit`, `jax.vmap` or `jax.grad`.
  """
  arguments.check_on_host("sample", variables, key, num, temperature, small)
  model = arguments.unbound(model)
  if small is not None:
    given = _given_scales(model, small)
    num = len(given[0]) if num is None else num
  else:
    given, num = (), 16 if num is None else num
  num = arguments.whole("num", num)
  if small is not None and num != len(given[0]):
    raise InputError(
        f"num={num} with {len(given[0])} small images: each gives one large image."
        " Leave num out, and repeat the small ones for several of each."
    )
  images = np.zeros((num, *model.config.image_shape), np.uint8)
  scales = _draw(
      model, variables, key, images, np.zeros(images.shape[:3], bool), temperature,
      batch_size, progress, given)
  return scales if return_scales else scales[-1]


@out_of_memory("Complete fewer images at a time, with a smaller batch_size.")
def complete(
    model: nn.Module, variables, key: jax.Array, images, known,
    temperature: float = 1.0, batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
  """Fills in the unknown pixels, each drawn given all values before it.

  It runs on the host, as `sample`.

  Known values are kept exactly, also where they come after unknown ones; those
  do not see them, as the model's order is fixed. Of a multi-scale model the known
  pixels that a smaller scale shares are kept there, its others are drawn first and
  do not see known pixels that are not shared.

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
    InputError: images or mask of another shape, dtype or range; otherwise as
      `sample`.
  """
  arguments.check_on_host("complete", variables, key, images, known, temperature)
  model = arguments.unbound(model)
  shape = tuple(model.config.image_shape)
  images = np.asarray(arguments.image_values(model.config, images))
  arguments.check_shape(images, shape)
  known = np.asarray(known)
  if known.dtype != bool or known.shape not in (shape[:2], images.shape[:3]):
    raise InputError(
        f"A mask of shape {known.shape} and dtype {known.dtype}: known must be"
        f" bool, [H, W] = {list(shape[:2])} or [B, H, W] ="
        f" {list(images.shape[:3])}."
    )
  known = np.broadcast_to(known, images.shape[:3])
  images = np.where(known[..., None], images, 0).astype(np.uint8)
  return _draw(
      model, variables, key, images, known, temperature, batch_size, progress)[-1]


def _draw(
    model: nn.Module, variables, key: jax.Array, images: np.ndarray,
    known: np.ndarray, temperature: float, batch_size: int,
    progress: Callable[[int], None] | None, given: tuple[np.ndarray, ...] = (),
) -> tuple[np.ndarray, ...]:
  """The images of all scales, the coarsest first.

  Args:
    given: images of the coarsest scales, which are not drawn.
    The others: see `complete`.
  """
  arguments.check_variables(model, variables)
  temperature = check_temperature(temperature)
  batch_size = arguments.whole("batch_size", batch_size)
  key = arguments.random_key(key)
  factors = model.config.multi_scale
  scales = (*given, *ops.pyramid(images, factors)[len(given):])
  known = ops.pyramid(known, factors)
  total, devices = len(images), jax.local_device_count()
  # As few batches as the bound allows, of one size, so that one program serves.
  batches = -(-total // (batch_size * devices))
  size = -(-total // (batches * devices))
  # One process draws by itself, while others of the run may be doing something else.
  complete_batch = make_completer(model, tuple(jax.local_devices()), len(given))
  drawn = []
  for start in range(0, total, size * devices):
    # The last batch is filled up with images that are drawn and dropped.
    indices = start + np.arange(size * devices)
    rows = np.minimum(indices, total - 1)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)

    def of_devices(x, rows=rows):
      return x[rows].reshape(devices, size, *x.shape[1:])

    with jax.disable_jit(False):  # step by step it would take hours
      batch = complete_batch(
          variables, keys.reshape(devices, size), tuple(map(of_devices, scales)),
          tuple(map(of_devices, known)), temperature)
    drawn.append([np.asarray(x).reshape(-1, *x.shape[2:]) for x in batch])
    if progress is not None:
      progress(min(size * devices, total - start))
  return tuple(np.concatenate(x)[:total] for x in zip(*drawn, strict=True))


def _given_scales(model: nn.Module, small) -> tuple[np.ndarray, ...]:
  """Small images and all scales below theirs, checked; see `sample`."""
  config = model.config
  smaller = config.scale_shapes()[:-1]
  if not smaller:
    raise InputError(
        "Small images were given to a model of a single scale. Use a model with"
        " model.multi_scale, such as multi_scale_mnist's."
    )
  small = np.asarray(arguments.image_values(config, small, "Small images"))
  if small.ndim != 4 or small.shape[1:] not in smaller or len(small) < 1:
    raise InputError(
        f"Small images of shape {small.shape}: this model takes [B, h, w, C] ="
        f" {' or '.join(str(['B', *shape]) for shape in smaller)}, with B at least 1."
        .replace("'", "")
    )
  scale = smaller.index(small.shape[1:])
  return ops.pyramid(small.astype(np.uint8), config.multi_scale[:scale])


def value_logits(
    model: nn.Module, variables, images: jax.Array
) -> jax.Array | tuple[jax.Array, ...]:
  """The logits of `model.apply(variables, images)`, computed value by value.

  What sampling sees when it draws these images; for tests, and a reference for
  coders.

  Args:
    images: integers [B, H, W, C].

  Returns:
    [B, H, W, C, levels]; of a multi-scale model a tuple, one entry a scale, the
    coarsest first.

  Raises:
    InputError: images or variables of another model, as in `log_probs`.
  """
  model = arguments.unbound(model)
  arguments.check_variables(model, variables)
  images = arguments.image_values(model.config, images)
  arguments.check_shape(images, model.config.image_shape)
  with jax.disable_jit(False):  # step by step it would take minutes
    return _value_logits(model, variables, images)


@functools.partial(jax.jit, static_argnums=0)
def _value_logits(model, variables, images):
  """`value_logits` of images that have been looked at."""
  scales = ops.pyramid(images, model.config.multi_scale)

  def look_up(scale, state, logits, row, column, channel):
    return state, scales[scale][:, row, column, channel], logits

  results, _ = by_value(model, variables, look_up, len(images))
  logits = tuple(
      jnp.moveaxis(jnp.stack(logits), (0, 3), (3, 0)) for _, logits in results)
  return logits if model.config.multi_scale else logits[0]


def by_value(
    model: nn.Module, variables, choose: Callable, batch: int,
    given: tuple[jax.Array, ...] = (), state=(),
) -> tuple:
  """`MultiScalePixelRNN.by_value`, also of a model of a single scale."""
  if model.config.multi_scale:
    return model.apply(variables, choose, batch, given, state, method="by_value")
  choose = functools.partial(choose, 0)
  *result, state = model.apply(
      variables, choose, batch, state=state, method="by_value")
  return (tuple(result),), state


def check_temperature(temperature: float) -> float:
  """The temperature; raises InputError unless it is positive and finite.

  Also below the least normal float32, which the division would take for 0.
  """
  least = np.finfo(np.float32).tiny
  return arguments.real(
      "temperature", temperature, float(least),
      f"must be positive and finite, a number of at least {least:.1e}. For the most"
      " probable values use 1e-3, say.")


def draw(logits: jax.Array, keys: jax.Array, index, temperature) -> jax.Array:
  """One value for each image: logits [B, levels], keys [B] to int32 [B]."""
  keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
  # The most probable value stays at 0 however small the temperature is.
  logits = logits - logits.max(axis=-1, keepdims=True)
  return jax.vmap(jax.random.categorical)(keys, logits / temperature)


def first_indices(shapes) -> list[int]:
  """The number of the first value of each scale, given the scales' shapes."""
  sizes = [math.prod(shape) for shape in shapes]
  return [sum(sizes[:scale]) for scale in range(len(sizes))]


@functools.lru_cache(maxsize=8)
def make_completer(
    model: nn.Module, devices: tuple[jax.Device, ...], given: int = 0
) -> Callable:
  """`complete` for a batch on each device, compiled once for a model.

  Args:
    model: from `build_model`.
    devices: D of them.
    given: how many of the coarsest scales are not drawn but taken as they are.

  Returns:
    A function of variables, keys [D, B], images [D, B, H, W, C] of each scale, the
    coarsest first, known [D, B, H, W] of each and temperature to the images of each.
  """
  shapes = model.config.scale_shapes()
  first = first_indices(shapes)

  def one_device(variables, keys, images, known, temperature):

    def choose(scale, state, logits, row, column, channel):
      _, width, channels = shapes[scale]
      index = first[scale] + (row * width + column) * channels + channel
      value = draw(logits, keys, index, temperature)
      kept = images[scale][:, row, column, channel]
      return state, jnp.where(known[scale][:, row, column], kept, value), None

    results, _ = by_value(model, variables, choose, len(keys), images[:given])
    return tuple(drawn for drawn, _ in results)

  return jax.pmap(one_device, in_axes=(None, 0, 0, 0, None), devices=devices)
