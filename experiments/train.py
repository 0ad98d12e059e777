r"""Train and evaluate a model, from the newest checkpoint of the work directory on.

    python experiments/train.py --config=quickstart
    python experiments/train.py --config=row_lstm_cifar10 \
        --config.train.steps=1000 --workdir=runs/short

`--config=NAME:smoke` is the same pipeline, shrunk to a minute on two cores.

Several processes share the file system of the work directory. Each is started with the
same command, with `--distributed` on a TPU pod or under Slurm, and elsewhere with
`--coordinator=HOST:PORT --process_count=N --process_id=I`.
"""

if __name__ == "__main__":
  import allocator

  allocator.restart()  # before JAX is imported

from absl import flags

import command_line
from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.training import parallel, train

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The work directory; runs/NAME by default.")


def main(config: Config) -> None:
  parallel.use_cores(config)
  train(config, _WORKDIR.value or f"runs/{config.name.replace(':', '_')}")


if __name__ == "__main__":
  command_line.run(main, config=True, distributed=True)
