"""The parts of a user's own images: train, validation and test.

A user divides the images by names of folders or arrays. Other images are divided by the
digests of their names, so that the parts do not depend on the machine, and a new file
moves few others. A name that nearly is that of a part is found here and refused by the
readers, as leaving its images out in silence would make another data set.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pixelrnn_jax.data.image_files import SUFFIXES
from pixelrnn_jax.errors import InputError

# Names that people give to the parts, and words that they add: `val2017`, `TrainSet`,
# `x_test`.
_NEAR_NAMES = {
    "train": "train trains training trn trainval trian tarin traning trainning",
    "validation": "val vals valid validate validating validations vali dev devel"
                  " development eval evaluate evaluation holdout validset",
    "test": "test tests testing tst tset tets heldout",
}
_TWO_WORDS = ("heldout", "holdout")
# Names that mean a part only beside each other: `imagesTr` and `imagesTs`.
_SHORT_NAMES = {"tr": "train", "te": "test", "ts": "test"}
_FILLERS = {
    "arr", "array", "data", "dataset", "image", "images", "img", "imgs", "my", "part",
    "photo", "photos", "pic", "pics", "pictures", "sample", "samples", "set", "split",
    "subset", "x"}


def divide(names: Sequence, path: str) -> dict[str, Any]:
  """Return the parts of images that nobody has divided.

  The images are put in the order of the SHA-256 of their names. The last tenth, rounded
  down but at least one, is the test part.

  Args:
    names: file names, or the indices of an array.
    path: the path of the images, for messages.

  Returns:
    The names of the images of each part, 'train' and 'test', as lists, or indices as
    arrays [N].

  Raises:
    InputError: there are fewer than 3 images.
  """
  if not len(names):
    raise InputError(
        f"{source_name(path)} holds no images: no file in it or below it ends"
        f" in {', '.join(SUFFIXES)}."
    )
  if len(names) < 3:
    raise InputError(
        f"{source_name(path)} holds {len(names)} image(s): at least 3 are"
        " needed, to train, validate and test."
    )
  digests = bytearray()
  for name in names:
    digests += hashlib.sha256(os.fsencode(str(name))).digest()
  words = np.frombuffer(digests, ">u8").reshape(-1, 4)
  order = np.lexsort(words.T[::-1])  # the first word counts most
  test = max(1, len(names) // 10)
  train, test = order[:-test], order[-test:]
  if isinstance(names, range):
    return {"train": train, "test": test}
  return {"train": [names[i] for i in train], "test": [names[i] for i in test]}


def near_part(name: str) -> str:
  """Return the part that the last component of a name seems to mean; "" if none.

  Case, digits, signs and words such as `images` or `set` are ignored.
  """
  last = name.rsplit("/", 1)[-1]
  words = re.findall(r"[a-z]+", _spaced(last).casefold())
  words = [w for w in words if w not in _FILLERS]
  word = "".join(words)
  if len(words) != 1 and word not in _TWO_WORDS:
    return ""
  for filler in ("set", "data", "images", "split"):
    word = word.removesuffix(filler)
  word = word.removeprefix("x")
  for part, near in _NEAR_NAMES.items():
    if word in near.split():
      return part
  close = difflib.SequenceMatcher(None, word, "validation").ratio() > 0.85
  return "validation" if close else ""


def near_parts(folders: Sequence[str]) -> dict[str, str]:
  """Return the part that each folder's name seems to mean; "" if none.

  Some names mean a part only beside others: `cats_train` does beside `cats_test`, and
  `trainA` beside `testA`.
  """
  found, groups = {name: near_part(name) for name in folders}, {}
  for name in folders:
    words = re.findall(r"[^\W_]+", _spaced(name))
    for i, word in enumerate(words):
      if part := near_part(word) or _SHORT_NAMES.get(word.casefold(), ""):
        others = (name.count("/"), *words[:i], *words[i + 1:])
        groups.setdefault(others, {})[name] = part
  for group in groups.values():
    if len(set(group.values())) > 1:
      found |= group
  return found


def parts_in_names(names: Sequence[str]) -> list[str]:
  """Return the parts that file names hold, as `train_1.png` and `1_test.png` do.

  Returns:
    Two parts or more, one of them 'train'; or none, if some names hold no part.
  """
  found = set()
  for name in names:
    words = re.findall(r"[^\W\d_]+", _spaced(name.rsplit("/", 1)[-1]))
    found.add(next(filter(None, map(near_part, words)), ""))
    if "" in found:
      return []
  return sorted(found) if "train" in found and len(found) > 1 else []


def _spaced(name: str) -> str:
  """Return a name with a space before each capital that follows a small letter."""
  return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def source_name(path: str) -> str:
  """Return the source's name, with which messages begin."""
  return f"'folder:{path}'"


def some(names: Sequence[str]) -> str:
  """Return up to eight names and the number of the others, for a message."""
  more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
  return ", ".join(map(repr, names[:8])) + more
