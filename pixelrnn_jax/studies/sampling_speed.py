"""Times of the cached sampler, the plain one and the lossless coder."""

import dataclasses
import math
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from pixelrnn_jax import arguments
from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference import naive_sampler
from pixelrnn_jax.inference.coding import compress, decompress
from pixelrnn_jax.inference.sampling import sample
from pixelrnn_jax.models import Model, build_model
from pixelrnn_jax.studies.timing import call_seconds


@dataclasses.dataclass
class Timing:
  """The time that a function takes.

  Attributes:
    seconds: the median of the calls after the first; 0 if there is only one call.
    compile_seconds: the time of the first call less that median.
  """

  seconds: float
  compile_seconds: float


def time_calls(function: Callable[[], object], calls: int) -> Timing:
  """Call a function once to compile it, and then `calls` times."""
  seconds = call_seconds(function, calls + 1)
  median = statistics.median(seconds[1:] or [0.0])
  return Timing(median, max(0.0, seconds[0] - median))


def time_sampler(model: Model, variables: PyTree, batch: int, calls: int) -> Timing:
  """Time drawing a batch at once, `calls` times after the first.

  The compiled program is kept, so that a second call starts it at once.
  """
  key = jax.random.key(0)
  return time_calls(
      lambda: sample(model, variables, key, batch, batch_size=batch), calls)


@dataclasses.dataclass
class Comparison:
  """The cached sampler beside the plain one, both of one batch.

  Attributes:
    cached: the time of drawing the batch.
    plain_pass: the time of one pass of the plain sampler, which draws one value of each
      image.
    values: number of passes that the plain sampler needs, H W C.
    compress: the time of compressing the batch that was drawn.
    decompress: the time of decompressing it.
  """

  cached: Timing
  plain_pass: Timing
  values: int
  compress: Timing
  decompress: Timing

  @property
  def plain_seconds(self) -> float:
    """The plain sampler's time for the batch, extrapolated from its passes."""
    return self.values * self.plain_pass.seconds

  @property
  def ratio(self) -> float:
    """The plain sampler's time over that of the cached one."""
    return self.plain_seconds / self.cached.seconds


def compare_samplers(config: ModelConfig, batch: int, calls: int) -> Comparison:
  """Time both samplers and the coder on one device, with untrained parameters.

  Args:
    config: the configuration of the model.
    batch: images drawn together.
    calls: number of batches of the cached sampler and of passes of the plain one. The
      medians count.

  Raises:
    InputError: a number below 1, a model of several scales, or several devices,
      which only the cached sampler would use.
  """
  for name, value in (("batch", batch), ("calls", calls)):
    arguments.whole(name, value)
  if jax.local_device_count() > 1:
    raise InputError(
        f"There are {jax.local_device_count()} devices, and the comparison is of"
        " one. Hide the others, with CUDA_VISIBLE_DEVICES=0 for example."
    )
  if config.multi_scale:
    raise InputError(
        f"model.multi_scale={config.multi_scale}: the plain sampler's time is"
        " extrapolated from passes of one network. Compare models of a single scale."
    )
  model = build_model(config)
  values = math.prod(config.image_shape)
  images = jnp.zeros((batch, *config.image_shape), jnp.uint8)
  known = jnp.zeros(images.shape[:3], bool)
  key = jax.random.key(0)
  keys = jax.random.split(key, batch)
  variables = jax.jit(model.init)(key, images)
  cached = time_sampler(model, variables, batch, calls)
  plain_pass = time_calls(
      lambda: naive_sampler.draw_value(
          model, variables, keys, (images,), (known,), 1.0, values // 2),
      calls)
  drawn = sample(model, variables, key, batch, batch_size=batch)
  compressing = time_calls(lambda: compress(model, variables, drawn, batch), calls)
  content = compress(model, variables, drawn, batch)
  decompressing = time_calls(
      lambda: decompress(model, variables, content, batch), calls)
  return Comparison(cached, plain_pass, values, compressing, decompressing)
