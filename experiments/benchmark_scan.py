r"""Measure the throughput of the scans, of whole steps and of the data pipeline.

    python experiments/benchmark_scan.py --config=diagonal_bilstm_mnist
    python experiments/benchmark_scan.py --config=row_lstm_cifar10 --repeats=3 \
        --config.train.batch_size=32 --config.model.dtype=bfloat16 \
        --json=scan.json --plot=scan.png

Any field of the config can be changed: image size, batch, h, layers, dtype, unroll. On
a CPU each core is a device. JAX_NUM_CPU_DEVICES=1 makes all cores one device. `of peak`
is the fraction of the largest matrix product's FLOP/s. `floor` is the time that the
necessary work would take at the machine's rates. Both are measured in the same run.
pixelrnn_jax/studies/training_speed.py says what is counted.
"""

if __name__ == "__main__":
  import allocator

  allocator.restart()  # before JAX is imported

import dataclasses
import datetime
import json
import os

import jax
from absl import flags

import command_line
from pixelrnn_jax import arguments, data, files
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.ops import IMPLEMENTATIONS
from pixelrnn_jax.studies import training_speed
from pixelrnn_jax.training import parallel

_REPEATS = flags.DEFINE_integer("repeats", 10, "Timed runs of each line.")
_PARTS = flags.DEFINE_multi_enum(
    "part", ["scan", "step", "data"], ["scan", "step", "data"], "What to measure.")
_IMPLEMENTATIONS = flags.DEFINE_multi_enum(
    "implementation", ["fused", "autodiff"], IMPLEMENTATIONS,
    "The scans' implementations; a step has --config.model.implementation.")
_JSON = flags.DEFINE_string("json", None, "Also write the figures to this file.")
_PLOT = flags.DEFINE_string(
    "plot", None, "Also draw the times beside their floors, a PNG file.")


def main(config: Config) -> None:
  arguments.whole("--repeats", _REPEATS.value)
  training_speed.check_one_scale(config.model)
  parallel.use_cores(config)
  model, batch, repeats = config.model, config.train.batch_size, _REPEATS.value
  rates = training_speed.measure_rates(model.dtype, repeats)
  machine = (
      f"{jax.device_count()} {jax.devices()[0].device_kind} device(s),"
      f" {os.cpu_count()} cores, JAX {jax.__version__}, {datetime.date.today()}")
  if tunables := os.environ.get("GLIBC_TUNABLES"):  # see docs/speed.md
    machine += f", GLIBC_TUNABLES={tunables}"
  what = (
      f"{config.name}: {model.kind}, image {tuple(model.image_shape)}, batch {batch},"
      f" h = {model.hidden}, {model.layers} layers, {model.dtype}")
  print(what, machine, sep="\n")
  print(f"largest matrix product {rates.operations / 1e9:.0f} GFLOP/s, copying"
        f" {rates.bytes / 1e9:.1f} GB/s, tanh {rates.tanh / 1e9:.2f} G/s\n")
  measured = []
  if "scan" in _PARTS.value:
    measured += training_speed.scan_measurements(
        model, batch, _IMPLEMENTATIONS.value, repeats)
  if "step" in _PARTS.value:
    measured += training_speed.step_measurements(config, repeats)
  print(f"{'':42}{'compile s':>10}{'ms':>10}{'min':>9}{'max':>9}"
        f"{'images/s':>10}{'GFLOP':>9}{'GFLOP/s':>9}{'of peak':>8}{'floor ms':>10}"
        f"{'MiB':>8}")
  for m in measured:
    rate = m.work.operations / m.seconds
    floor = sum(rates.floor(m.work).values())
    memory = "" if m.memory is None else f"{m.memory / 2**20:.0f}"
    print(f"{m.name:42}{m.compile_seconds:10.1f}{m.seconds * 1e3:10.1f}"
          f"{m.spread[0] * 1e3:9.1f}{m.spread[1] * 1e3:9.1f}"
          f"{m.images / m.seconds:10.1f}{m.work.operations / 1e9:9.2f}"
          f"{rate / 1e9:9.1f}{rate / rates.operations:8.2f}{floor * 1e3:10.1f}"
          f"{memory:>8}")
  pipeline = None
  if "data" in _PARTS.value:
    source = data.load_source(config, "train")
    iterator = data.train_iterator(config, source)
    pipeline = training_speed.pipeline_images_per_second(config, iterator)
    iterator.close()
    print(f"\ndata pipeline alone: {pipeline:,.0f} images/s ({source.description},"
          f" {config.data.workers} workers)")
    if "step" in _PARTS.value:
      ratio = pipeline * measured[-1].seconds / batch
      print(f"that is {ratio:,.1f} times what the training step takes")
  if _PLOT.value:
    from pixelrnn_jax.visualization import figures  # Matplotlib takes a second
    from pixelrnn_jax.visualization.captions import Caption
    figure = figures.times_figure(
        [m.name for m in measured], [m.seconds for m in measured],
        [m.spread for m in measured], [rates.floor(m.work) for m in measured],
        f"{what}\n{machine}")
    figures.save_figure(figure, files.expand(_PLOT.value), Caption(
        "times of the scans and steps", config.name, data=machine))
  if _JSON.value:
    record = {
        "config": config.name, "machine": machine,
        "rates": dataclasses.asdict(rates),
        "measurements": [m.record(rates) for m in measured],
        "pipeline_images_per_second": pipeline,
    }
    files.write_bytes(
        files.expand(_JSON.value), json.dumps(record, indent=2).encode())


if __name__ == "__main__":
  command_line.run(main, config=True)
