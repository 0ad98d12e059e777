"""Measure the cached sampler against the plain one.

    python experiments/benchmark_sampling.py
    python experiments/benchmark_sampling.py --sizes=mnist --kinds=row_lstm --batch=64

The models are those of the configs KIND_SIZE, with untrained parameters. The plain
sampler runs the whole network once for each of the H W C values. Its time is
extrapolated from the median of a few passes. Compilation is not in the ratio.
"""

if __name__ == "__main__":
  import allocator

  allocator.restart()  # before JAX is imported

from absl import flags

import command_line
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.schema import KINDS
from pixelrnn_jax.studies import sampling_speed, tables

_SIZES = flags.DEFINE_list(
    "sizes", ["mnist", "cifar10"], "Sizes: mnist, cifar10, imagenet32, imagenet64.")
_KINDS = flags.DEFINE_list("kinds", list(KINDS), "Kinds of model.")
_BATCH = flags.DEFINE_integer("batch", 16, "Images drawn together.")
_CALLS = flags.DEFINE_integer(
    "calls", 5, "Batches of the cached sampler, and passes of the plain one.")

HEADER = [
    "model", "cached, s", "compile, s", "plain pass, s", "compile, s", "passes",
    "plain, s (extrapolated)", "ratio", "compressing, s", "decompressing, s",
]


def main() -> None:
  configs = {
      name: load_config(name).model
      for name in (f"{kind}_{size}" for size in _SIZES.value for kind in _KINDS.value)
  }
  print(f"{tables.describe_machine()}; batch {_BATCH.value}")
  rows = []
  for name, config in configs.items():
    result = sampling_speed.compare_samplers(config, _BATCH.value, _CALLS.value)
    rows.append([
        name, f"{result.cached.seconds:.3f}", f"{result.cached.compile_seconds:.1f}",
        f"{result.plain_pass.seconds:.4f}",
        f"{result.plain_pass.compile_seconds:.1f}", str(result.values),
        f"{result.plain_seconds:.1f}", f"{result.ratio:.0f}",
        f"{result.compress.seconds:.3f}", f"{result.decompress.seconds:.3f}",
    ])
    print(f"{name}: {result.ratio:.0f} times faster", flush=True)
  print(tables.format_table(HEADER, rows))
  print(
      f"Medians of {_CALLS.value}. The plain sampler's time is extrapolated: one"
      " pass times the number of passes, H W C. Compile times are not in the ratio.")


if __name__ == "__main__":
  command_line.run(main)
