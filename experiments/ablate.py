r"""Train several configs, one after another, and compare them.

    python experiments/ablate.py --table=depth
    python experiments/ablate.py --table=connections --set=train.steps=50000
    python experiments/ablate.py --configs=row_lstm_mnist --vary=model.layers=1,2,3 \
        --set=train.steps=2000 --workdir=runs/depth_of_mnist

`depth` and `connections` are the paper's tables (Row LSTM, CIFAR-10). Each config is
trained with each combination of the values that --vary names. --smoke shrinks a table's
configs, to check that they run. A command that was stopped continues when it is started
again. Writes results.md, results.json and results.png.
"""

if __name__ == "__main__":
  import allocator

  allocator.restart()  # before JAX is imported

from absl import flags

import command_line
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.studies import ablation
from pixelrnn_jax.training import parallel

_TABLE = flags.DEFINE_enum(
    "table", None, list(ablation.TABLES),
    "One of the paper's tables, instead of --configs.")
_SMOKE = flags.DEFINE_boolean(
    "smoke", False, "The table's configs as NAME:smoke, a minute each.")
_CONFIGS = flags.DEFINE_list("configs", None, "Names of configs, also NAME:smoke.")
_VARY = flags.DEFINE_multi_string(
    "vary", [], "part.field=VALUE,VALUE,...: a run for each value; may be repeated.")
_SET = flags.DEFINE_multi_string(
    "set", [], "part.field=VALUE for all runs; may be repeated.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The common work directory. For a table it is runs/ablation_TABLE"
    " by default or, with --smoke, runs/ablation_TABLE_smoke.")


def main() -> None:
  if (_TABLE.value is None) == (_CONFIGS.value is None):
    raise InputError("Give one of --table and --configs.")
  if _CONFIGS.value is not None:
    if _SMOKE.value:
      raise InputError("--smoke is for --table: name the configs as NAME:smoke.")
    configs, workdir = _CONFIGS.value, command_line.required("workdir", _WORKDIR.value)
  else:
    form, table = ":smoke" if _SMOKE.value else "", str(_TABLE.value)
    configs = [f"{name}{form}" for name in ablation.TABLES[table]]
    workdir = _WORKDIR.value or f"runs/ablation_{table}{form}".replace(":", "_")
  variants = ablation.make_variants(configs, _VARY.value, _SET.value)
  parallel.use_cores(*(variant.config for variant in variants))
  ablation.ablate(variants, workdir)


if __name__ == "__main__":
  command_line.run(main, distributed=True)
