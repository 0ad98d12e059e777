"""The files of a checkpoint, checked before anything opens them.

A work directory may come from anybody. A checkpoint holds regular files and folders
only: a link could lead anywhere, and a pipe would wait for ever. The claims of its
records (the sizes in `sums.json`, the shapes in the arrays' metadata) are held against
the bytes on the disk before they are believed.
"""

import errno
import json
import math
import os
import pathlib
import stat
import zlib
from collections.abc import Iterable
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp

from pixelrnn_jax import files

SUMS = "sums.json"
# Bounds on how far arrays may be compressed. The zeros of a new optimiser's state
# compress well, parameters hardly.
_MOST_SHRUNK, _SMALL = 200, 2**26


def sizes(path: str) -> dict[str, int]:
  """Return the bytes of each file below a checkpoint, by its name relative to it.

  Raises:
    OSError: the checkpoint, or something below it, is neither a folder nor a regular
      file.
  """
  found = {}

  def look(folder: str, prefix: str) -> None:
    for entry in os.scandir(folder):
      name = f"{prefix}{entry.name}"
      mode = entry.stat(follow_symlinks=False).st_mode
      if stat.S_ISDIR(mode):
        look(entry.path, f"{name}/")
      elif stat.S_ISREG(mode):
        found[name] = entry.stat(follow_symlinks=False).st_size
      else:
        raise OSError(errno.EINVAL, "It is a link, a pipe or a device", name)

  if os.path.islink(path):
    raise OSError(errno.EINVAL, "It is a link", path)
  look(path, "")
  return found


def sums(path: str, names: Iterable[str]) -> dict[str, list[int]]:
  """Return [size, CRC-32] of each of the files."""
  found = {}
  for name in names:
    crc = size = 0
    with files.open_file(os.path.join(path, name)) as file:
      while block := file.read(1 << 20):
        crc = zlib.crc32(block, crc)
        size += len(block)
    found[name] = [size, crc]
  return found


def problem(path: str) -> str:
  """Return what is wrong with a checkpoint's files; "" if nothing is found.

  Only files below the checkpoint are opened, and only those of the size that
  `sums.json` says.
  """
  try:
    there = sizes(path)
    if SUMS not in there:
      # A version that added the file later was killed before. Orbax will check.
      return ""
    expected = _read_sums(os.path.join(path, SUMS))
    if expected is None:
      return f"{SUMS} is truncated or has changed"
    for name, (size, crc) in expected.items():
      if name not in there:
        return f"{name} is missing, or {SUMS} has changed"
      if there[name] != size:
        return f"{name} is truncated: {there[name]} bytes instead of {size}"
      if sums(path, [name])[name][1] != crc:
        return f"{name} has changed since it was written"
  except (OSError, RecursionError) as error:
    name = getattr(error, "filename", None) or os.path.basename(path)
    return f"{name}: {getattr(error, 'strerror', None) or error}"
  return ""


def false_claim(path: str, item: str, template: Any) -> str:
  """Return a claim of a checkpoint or config that the bytes contradict; "" if none.

  Args:
    path: the path of the checkpoint, which `problem` has found good.
    item: the name of Orbax's item.
    template: a tree of arrays or shapes that is to be read.
  """
  there = sum(sizes(path).values())
  wanted = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(template))
  most = max(_MOST_SHRUNK * there, _SMALL)
  if wanted > most:
    return (
        f"the config asks for {wanted:,} bytes of parameters and optimiser state, and"
        f" its files have {there:,}")
  claimed = sum(
      _claimed(x) for x in jax.tree.leaves(arrays(os.path.join(path, item))))
  if claimed > max(2 * wanted, _SMALL):
    return (
        f"its arrays claim {claimed:,} bytes, and the config asks for {wanted:,}")
  return ""


def arrays(path: str) -> Any:
  """Return the tree of an item's arrays: Orbax's metadata, with `shape` and `dtype`."""
  # Orbax's annotation is of a path of its own, which pathlib's is at run time.
  return ocp.StandardCheckpointHandler().metadata(cast(Any, pathlib.Path(path))).tree


def _claimed(array: Any) -> int:
  """Return the bytes that reading an array of this metadata takes."""
  shapes = [array.shape]
  if array.storage is not None and array.storage.chunk_shape is not None:
    shapes.append(array.storage.chunk_shape)
  return max(math.prod(s) for s in shapes) * np.dtype(array.dtype).itemsize


def _read_sums(path: str) -> dict[str, tuple[int, int]] | None:
  """Return (size, CRC-32) by name; None if the file has another form."""
  try:
    found = json.loads(files.read_text(path))
    pairs = {name: (size, crc) for name, (size, crc) in found.items()}
  except (ValueError, TypeError, AttributeError, RecursionError):
    return None
  good = all(type(x) is int for pair in pairs.values() for x in pair)
  return pairs if good else None
