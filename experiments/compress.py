r"""Compress images without loss with a trained model, and decompress them.

    python experiments/compress.py --images='digits/*.png' --output=digits.prnn
    python experiments/compress.py --decompress=digits.prnn --output=digits_again
    python experiments/compress.py --workdir=runs/photos --images=photos \
        --output=photos.prnn
    python experiments/compress.py --split=test

The same model compresses and decompresses. Without --workdir it is the one that comes
with the package. Prints bytes and bits for each value beside the likelihood and other
codecs (JPEG XL after `pip install '.[codecs]'`, JBIG2 if the program jbig2 of jbig2enc
is installed). With --split the images of the run's own data are compressed. Without
--output they are only measured.

Files come back as PNG files with their old names. A file whose pixels the model cannot
represent (another size, colours, levels) is refused, unless --convert takes it as the
model sees it. Another version of JAX, another processor or another number of cores may
fail to decompress a file. It gives the right images, or an error.
"""

if __name__ == "__main__":
  import allocator

  allocator.restart()  # before JAX is imported

from typing import Any

from absl import flags

import command_line
from pixelrnn_jax.configs.schema import SPLITS
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.runs.restore import find_config
from pixelrnn_jax.studies import compression
from pixelrnn_jax.training import parallel

_WORKDIR = flags.DEFINE_string(
    "workdir", "mnist", "The work directory of the run, or the name of a model in the"
    " package.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "last", ["last", "best"],
    "The last checkpoint, or the one with the best validation figure.")
_IMAGES = flags.DEFINE_list(
    "images", None, "Your own images: PNG and JPEG files by name or pattern, folders,"
    " .npz files.")
_SPLIT = flags.DEFINE_enum(
    "split", None, SPLITS[::-1],
    "A split of the run's data instead.")
_NUM = flags.DEFINE_integer("num", None, "Only the first so many images.")
_DECOMPRESS = flags.DEFINE_string(
    "decompress", None, "The file to decompress, into the folder --output.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "The file to write; with --decompress, the folder.")
_CONVERT = flags.DEFINE_bool(
    "convert", False, "Also take files that would not come back as they are.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace existing files.")
_COMPARE = flags.DEFINE_bool("compare", True, "Measure other codecs, too.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images that a device takes at a time, at most.")

# The flags that decompressing does not take.
_COMPRESSING_FLAGS = ("images", "split", "num", "convert", "compare")


def main() -> None:
  what = [name for name in ("images", "split", "decompress")
          if flags.FLAGS[name].value is not None]
  if len(what) != 1:
    raise InputError(
        "Give one of --images and --split, to compress, or --decompress=FILE; not"
        f" {' and '.join(f'--{name}' for name in what) or 'none of them'}.")
  if _OUTPUT.value is None and what != ["split"]:
    raise InputError("--output is required: a file, with --decompress a folder.")
  common: dict[str, Any] = dict(
      which=_CHECKPOINT.value, batch_size=_BATCH_SIZE.value,
      overwrite=_OVERWRITE.value)
  if _DECOMPRESS.value is not None:
    for name in _COMPRESSING_FLAGS:
      if flags.FLAGS[name].present:
        raise InputError(f"--{name} does not go with --decompress.")
    parallel.use_cores(find_config(_WORKDIR.value))
    paths = compression.decompress_images(
        _WORKDIR.value, _DECOMPRESS.value, str(_OUTPUT.value), **common)
    print(f"{len(paths):,} images in {_OUTPUT.value}, from {paths[0]} on")
    return
  parallel.use_cores(find_config(_WORKDIR.value))
  print(compression.compress_images(
      _WORKDIR.value, _IMAGES.value, _SPLIT.value or "test", _NUM.value, _OUTPUT.value,
      convert=_CONVERT.value, compare=_COMPARE.value,
      moved=command_line.moved_data(), **common))


if __name__ == "__main__":
  command_line.define_data_flags()
  command_line.run(main)
