"""The lower bounds of setup.cfg. `.ci/versions` runs the tests on them."""

import configparser
import re

from packaging.version import Version

from helpers.programs import ROOT


def bounds_of(text):
  """Return versions by name, from lines such as `jax>=0.7.2` or `jax==0.7.2`."""
  return {
      name.lower().replace("_", "-"): Version(version)
      for name, version in re.findall(r"^([\w.-]+)[>=]=([\w.]+)$", text, re.MULTILINE)}


def test_the_package_replaces_nothing_of_colabs_tpu_runtime():
  """Installing the package in Colab's TPU runtime replaces no package of it.

  Replacing packages under a running kernel would need a restart.
  """
  setup = configparser.RawConfigParser()
  setup.read(ROOT / "setup.cfg")
  needed = bounds_of(setup["options"]["install_requires"])
  there = bounds_of((ROOT / ".ci" / "colab_tpu.txt").read_text())
  assert {"jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy"} <= set(there)
  assert set(there) - set(needed) == {"jaxlib"}  # JAX brings jaxlib
  newer = {
      name: (needed[name], version) for name, version in there.items()
      if name in needed and needed[name] > version}
  assert not newer
  # The extras that name JAX have the same lower bound.
  for extra in ("tpu", "gpu"):
    bound, = re.findall(r">=(\S+)", setup["options.extras_require"][extra])
    assert Version(bound) == needed["jax"]
