"""Times of the cached sampler, the plain one and the lossless coder, by machine."""

import dataclasses
import datetime
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from pixelrnn_jax.configs.schema import ModelConfig
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference import naive_sampler
from pixelrnn_jax.inference.coding import compress, decompress
from pixelrnn_jax.inference.sampling import sample
from pixelrnn_jax.models import Model, build_model


@dataclasses.dataclass
class Timing:
  """How long a function takes.

  Attributes:
    seconds: the median of the calls after the first; 0 without any.
    compile_seconds: the first call, less that.
  """

  seconds: float
  compile_seconds: float


def time_calls(function: Callable[[], object], calls: int) -> Timing:
  """Call a function once to compile it and then `calls` times, each waited for."""
  seconds = []
  for _ in range(calls + 1):
    start = time.perf_counter()
    jax.block_until_ready(function())
    seconds.append(time.perf_counter() - start)
  median = statistics.median(seconds[1:] or [0.0])
  return Timing(median, max(0.0, seconds[0] - median))


def time_sampler(model: Model, variables: PyTree, batch: int, calls: int) -> Timing:
  """Time drawing a batch at once, `calls` times after the first.

  The compiled program is kept, so that a second call starts it at once.
  """
  key = jax.random.key(0)
  return time_calls(
      lambda: sample(model, variables, key, batch, batch_size=batch), calls)


def describe_machine() -> str:
  """Return what a time is of: date, device, cores and JAX version."""
  return (
      f"{datetime.date.today()}, {jax.device_count()} x"
      f" {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
      f" ({platform.machine()}), JAX {jax.__version__}"
  )


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Return a Markdown table with aligned columns."""
  widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
  rule = ["-" * width for width in widths]
  return "\n".join(
      "| " + " | ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) + " |"
      for row in [header, rule, *rows])


@dataclasses.dataclass
class Comparison:
  """The cached sampler beside the plain one, both of one batch.

  Attributes:
    cached: drawing the batch.
    plain_pass: one pass of the plain sampler, which draws one value an image.
    values: passes that the plain sampler needs, H W C.
    compress: the batch that was drawn to bytes.
    decompress: and back.
  """

  cached: Timing
  plain_pass: Timing
  values: int
  compress: Timing
  decompress: Timing

  @property
  def plain_seconds(self) -> float:
    """Drawing the batch with the plain sampler, extrapolated from its passes."""
    return self.values * self.plain_pass.seconds

  @property
  def ratio(self) -> float:
    """How many times faster the cached sampler is."""
    return self.plain_seconds / self.cached.seconds


def compare_samplers(config: ModelConfig, batch: int, calls: int) -> Comparison:
  """Time both samplers and the coder on one device, with untrained parameters.

  Args:
    config: the configuration of the model.
    batch: images drawn together.
    calls: batches of the cached sampler and passes of the plain one whose median
      counts.

  Raises:
    InputError: a number below 1, a model of several scales, or several devices,
      which only the cached sampler would use.
  """
  for name, value in (("batch", batch), ("calls", calls)):
    if value < 1:
      raise InputError(f"{name}={value}: must be at least 1.")
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
