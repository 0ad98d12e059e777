"""Samples and completions, value by value in raster order (paper, section 2.1).

One pass over the image draws all values. Every layer computes only what is new at a
value (`PixelRNN.by_value`), for a whole batch at once, spread over this process's
devices. For a multi-scale model the smallest scale is drawn first, then each larger
scale given the one before.

Value i = (r W + c) C + channel of image n is drawn with the key
fold_in(fold_in(key, n), i). So a sample depends on the key and its own index alone, not
on how many are drawn together or on how many devices. The values of several scales are
numbered one scale after another, the coarsest first.

Shapes: B batch, H height, W width, C channels.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key, PRNGKeyArray, PyTree, UInt8

from pixelrnn_jax import arguments, ops
from pixelrnn_jax.errors import InputError, out_of_memory
from pixelrnn_jax.inference.scales import ImagesLike, one_or_all
from pixelrnn_jax.models import Model


@out_of_memory("Draw fewer images at a time, with a smaller batch_size.")
def sample(
    model: Model,
    variables: PyTree,
    key: PRNGKeyArray,
    num: int | None = None,
    temperature: float = 1.0,
    batch_size: int = 256,
    progress: Callable[[int], object] | None = None,
    small: ImagesLike | None = None,
    return_scales: bool = False,
) -> UInt8[np.ndarray, "num H W C"] | tuple[UInt8[np.ndarray, "num _ _ C"], ...]:
  """Draw images from the model by ancestral sampling.

      x_i ~ softmax(logits(x_<i) / temperature)

  It runs on the host, with its own programs. They are compiled under
  `jax.disable_jit` too.

  With `small`, a multi-scale model draws a large image for each small one
  (super-resolution). Repeat a small image to draw several large ones from it.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    key: a `jax.random` key.
    num: number of images, at least 1. The default is 16, or the number of small images.
    temperature: positive. 1 is the model's distribution. A lower one favours probable
      values.
    batch_size: images that a device draws at a time. It bounds the memory.
    progress: called after each batch with how many images it drew.
    small: the images of one of the smaller scales of a multi-scale model, integers
      [num, h, w, C], raw values 0 to levels - 1.
    return_scales: return the smaller scales too.

  Returns:
    uint8 [num, H, W, C], raw values 0 to levels - 1. With `return_scales` it is a
    tuple of the images of all scales, the coarsest first. A large image need not agree
    with its small one: the model is free to differ.

  Raises:
    InputError: `num` or `batch_size` is no whole number or below 1; the temperature is
      not positive; the key is no key of `jax.random`; the variables are another
      model's; the small images are of no scale of the model, or of another number,
      dtype or range; or the call is inside `jax.jit`, `jax.vmap` or `jax.grad`.
  """
  arguments.check_on_host(
      "sample", variables, key, num, temperature, small)
  model = arguments.unbound(model)
  given = () if small is None else _given_scales(model, small)
  num_small = len(given[0]) if given else 16
  num = num_small if num is None else arguments.whole(
      "num", num, most=arguments.MOST_IMAGES)
  if given and num != num_small:
    raise InputError(
        f"num={num} with {num_small} small images: each gives one large image."
        " Leave num out, and repeat the small ones for several of each."
    )
  images = np.zeros((num, *model.config.image_shape), np.uint8)
  scales = _draw(
      model, variables, key, images, np.zeros(images.shape[:3], bool), temperature,
      batch_size, progress, given)
  return scales if return_scales else scales[-1]


@out_of_memory("Complete fewer images at a time, with a smaller batch_size.")
def complete(
    model: Model,
    variables: PyTree,
    key: PRNGKeyArray,
    images: ImagesLike,
    known: ImagesLike,
    temperature: float = 1.0,
    batch_size: int = 256,
    progress: Callable[[int], object] | None = None,
) -> UInt8[np.ndarray, "B H W C"]:
  """Draw the unknown pixels, each value given all values before it.

  Known values are kept exactly. An unknown value is drawn given only the values before
  it, so it cannot depend on known values that come later. Like `sample`, it runs on the
  host.

  For a multi-scale model, a known pixel that a smaller scale shares is kept there too.
  The other pixels of that scale are drawn first, and do not depend on known pixels that
  it does not share.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    key: a `jax.random` key.
    images: integers [B, H, W, C], raw values 0 to levels - 1.
    known: bool [H, W] or [B, H, W], true where a pixel's values are kept.
    temperature: positive. 1 is the model's distribution. A lower one favours probable
      values.
    batch_size: images that a device completes at a time. It bounds the memory.
    progress: called after each batch with how many images it completed.

  Returns:
    uint8 [B, H, W, C].

  Raises:
    InputError: the images or the mask have another shape, dtype or range; otherwise
      see `sample`.
  """
  arguments.check_on_host(
      "complete", variables, key, images, known, temperature)
  model = arguments.unbound(model)
  shape = model.config.image_shape
  images = np.asarray(arguments.image_values(model.config, images))
  arguments.check_shape(images, shape)
  known = arguments.array(known, "The mask's rows")
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
    model: Model,
    variables: PyTree,
    key: PRNGKeyArray,
    images: UInt8[np.ndarray, "B H W C"],
    known: Bool[np.ndarray, "B H W"],
    temperature: float,
    batch_size: int,
    progress: Callable[[int], object] | None,
    given: tuple[UInt8[np.ndarray, "B _ _ C"], ...] = (),
) -> tuple[UInt8[np.ndarray, "B _ _ C"], ...]:
  """Draw the images of all scales, the coarsest first.

  Args:
    model: see `complete`.
    variables: see `complete`.
    key: see `complete`.
    images: see `complete`.
    known: see `complete`.
    temperature: see `complete`.
    batch_size: see `complete`.
    progress: see `complete`.
    given: the images of the coarsest scales, which are not drawn.
  """
  arguments.check_variables(model, variables)
  temperature = check_temperature(temperature)
  batch_size = arguments.whole("batch_size", batch_size)
  key = arguments.random_key(key)
  factors = model.config.multi_scale
  scales = (*given, *ops.pyramid(images, factors)[len(given):])
  all_known = ops.pyramid(known, factors)
  total, devices = len(images), jax.local_device_count()
  # As few batches as the bound allows, of one size, so that one program serves.
  batches = -(-total // (batch_size * devices))
  size = -(-total // (batches * devices))
  # Each process draws by itself, as others of the run may be doing something else.
  complete_batch = make_completer(
      cast(Any, model), tuple(jax.local_devices()), len(given))
  drawn = []
  for start in range(0, total, size * devices):
    # The last batch is filled up with images that are drawn and dropped.
    indices = start + np.arange(size * devices)
    rows = np.minimum(indices, total - 1)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)

    def split(x, rows=rows):
      return x[rows].reshape(devices, size, *x.shape[1:])

    with jax.disable_jit(False):  # step by step it would take hours
      batch = complete_batch(
          variables, keys.reshape(devices, size), tuple(map(split, scales)),
          tuple(map(split, all_known)), temperature)
    drawn.append([np.asarray(x).reshape(-1, *x.shape[2:]) for x in batch])
    if progress is not None:
      progress(min(size * devices, total - start))
  return tuple(np.concatenate(x)[:total] for x in zip(*drawn, strict=True))


def _given_scales(
    model: Model, small: ImagesLike
) -> tuple[UInt8[np.ndarray, "num _ _ C"], ...]:
  """Return checked small images after the images of all scales below theirs."""
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
    model: Model, variables: PyTree, images: ImagesLike
) -> Float[Array, "B H W C levels"] | tuple[Float[Array, "B _ _ C levels"], ...]:
  """Compute the logits of `model.apply(variables, images)` value by value.

  They are the logits from which sampling would draw these images. This function is for
  tests, and a reference for coders.

  Args:
    model: from `build_model`.
    variables: from `model.init` or `restore`.
    images: integers [B, H, W, C].

  Returns:
    [B, H, W, C, levels]. For a multi-scale model it is a tuple, one entry for each
    scale, the coarsest first.

  Raises:
    InputError: see `log_probs`.
  """
  model = arguments.unbound(model)
  arguments.check_variables(model, variables)
  checked = arguments.image_values(model.config, images)
  arguments.check_shape(checked, model.config.image_shape)
  with jax.disable_jit(False):  # step by step it would take minutes
    return one_or_all(_value_logits(model, variables, checked))


@functools.partial(jax.jit, static_argnums=0)
def _value_logits(
    model: Model, variables: PyTree, images: Integer[Array, "B H W C"]
) -> tuple[Float[Array, "B _ _ C levels"], ...]:
  """Return `value_logits` of checked images, for all scales."""
  scales = ops.pyramid(images, model.config.multi_scale)

  def look_up(scale, state, logits, row, column, channel):
    return state, scales[scale][:, row, column, channel], logits

  results, _ = by_value(model, variables, look_up, images.shape[0])
  return tuple(
      jnp.moveaxis(jnp.stack(logits), (0, 3), (3, 0)) for _, logits in results)


def by_value(
    model: Model,
    variables: PyTree,
    choose: Callable[..., tuple],
    batch: int,
    given: Sequence[Integer[Array, "B _ _ C"]] = (),
    state: PyTree = (),
) -> tuple[tuple[tuple[Integer[Array, "B _ _ C"], PyTree], ...], PyTree]:
  """Run the model value by value; see `MultiScalePixelRNN.decode_scales`.

  Args:
    model: from `build_model`, of one or more scales.
    variables: from `model.init` or `restore`.
    choose: a function of (scale, state, logits, row, column, channel).
    batch: B.
    given: the images of the coarsest scales, which are taken as they are.
    state: the state that `choose` receives at the first value.

  Returns:
    (images, collected) of each scale, and the state after the last value.
  """
  results: Any = model.apply(
      variables, choose, batch, given, state, method="decode_scales")
  return results


def check_temperature(temperature: float) -> float:
  """Return the temperature; raise InputError unless it is positive and finite.

  Numbers below the least normal float32 are refused too: the division would take them
  for 0.

  Args:
    temperature: as a user gave it.
  """
  least = np.finfo(np.float32).tiny
  return arguments.real(
      "temperature", temperature, float(least),
      f"must be positive and finite, a number of at least {least:.1e}. For the most"
      " probable values use 1e-3, say.")


def draw(
    logits: Float[Array, "B levels"],
    keys: Key[Array, " B"],
    index: int | Int[Array, ""],
    temperature: float | Float[Array, ""],
) -> Int[Array, " B"]:
  """Draw one value for each image.

  Args:
    logits: [B, levels].
    keys: the keys of the images, [B].
    index: the value's number, which is folded into the keys.
    temperature: positive.

  Returns:
    int32 [B].
  """
  keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
  # The most probable value stays at 0 however small the temperature is.
  logits = logits - logits.max(axis=-1, keepdims=True)
  return jax.vmap(jax.random.categorical)(keys, logits / temperature)


def first_indices(shapes: Sequence[tuple[int, int, int]]) -> list[int]:
  """Return the number of the first value of each scale.

  Args:
    shapes: (H, W, C) of each scale, the coarsest first.
  """
  sizes = [math.prod(shape) for shape in shapes]
  return [sum(sizes[:scale]) for scale in range(len(sizes))]


@functools.lru_cache(maxsize=8)
def make_completer(
    model: Model, devices: tuple[jax.Device, ...], given: int = 0
) -> Callable[..., tuple[Array, ...]]:
  """Compile `complete` for a batch on each device, once for a model.

  Args:
    model: from `build_model`.
    devices: D of them.
    given: how many of the coarsest scales are not drawn but taken as they are.

  Returns:
    A function of the variables, keys [D, B], the images [D, B, H, W, C] of each scale,
    known [D, B, H, W] of each scale, and the temperature. It returns the images of
    each scale. Scales are in order, the coarsest first.
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
