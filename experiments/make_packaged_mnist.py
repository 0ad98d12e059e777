"""Make `pixelrnn_jax/data/packaged_mnist.npz` from the original MNIST files.

    python experiments/make_packaged_mnist.py --source=DIR --output=FILE

DIR holds the four files `train-images-idx3-ubyte.gz`, `train-labels-...`,
`t10k-images-...` and `t10k-labels-...`. Every image is binarised once
(`pixelrnn_jax.data.binarize.static`) and the bits are packed, eight to a byte,
in the order of the files. The same input gives the same bytes.
"""

if __name__ == "__main__":
  import startup

  startup.begin()

import gzip
import hashlib
import pathlib
import zipfile
import zlib

import numpy as np
from absl import flags

import command_line
from pixelrnn_jax import files
from pixelrnn_jax.data import binarize
from pixelrnn_jax.errors import InputError

SOURCE = flags.DEFINE_string(
    "source", None, "Directory with the four original .gz files.")
OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.")

# MD5 of the files' contents, uncompressed, because a file that was compressed again is
# still the right one.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

ABOUT = (
    "The MNIST database of handwritten digits, Yann LeCun, Corinna Cortes and"
    " Christopher J.C. Burges, http://yann.lecun.com/exdb/mnist/. Licence:"
    " Creative Commons Attribution-ShareAlike 3.0"
    " (https://creativecommons.org/licenses/by-sa/3.0/). Changed by pixelrnn_jax:"
    " every 28x28 image was binarised once, p(bit = 1) = grey value / 255, and"
    " packed with numpy.packbits into 98 bytes; the order is the original one."
    " This file is under the same licence."
)


def read_idx(directory: pathlib.Path, name: str) -> np.ndarray:
  """Return the checked content of `directory/name.gz`.

  Args:
    directory: the directory of the file.
    name: a key of `MD5`.

  Returns:
    uint8, [N, 28, 28] for images or [N] for labels.

  Raises:
    InputError: the file is missing, is not gzip, or is another file.
  """
  path = directory / f"{name}.gz"
  try:
    content = gzip.decompress(path.read_bytes())
  except (OSError, EOFError, zlib.error) as error:
    raise InputError(
        f"{path} cannot be read ({error}). --source must be a directory with the"
        f" files {', '.join(f'{known}.gz' for known in MD5)}."
    ) from error
  found = hashlib.md5(content).hexdigest()
  if found != MD5[name]:
    raise InputError(
        f"{path} is not the original MNIST file: the MD5 sum of its uncompressed"
        f" content is {found} and should be {MD5[name]}. Fetch it again."
    )
  # IDX: two zero bytes, the type (8: uint8), the rank, the big-endian sizes.
  rank = content[3]
  shape = np.frombuffer(content, ">u4", count=rank, offset=4)
  return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def pack(images: np.ndarray) -> np.ndarray:
  """Pack grey values, uint8 [N, H, W], to bits, uint8 [N, ceil(H W / 8)]."""
  bits = np.stack([binarize.static(image).reshape(-1) for image in images])
  return np.packbits(bits, axis=1)


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Write an .npz whose bytes depend on the arrays alone.

  `numpy.savez` stamps the time of day into the archive. bzip2 packs these bits
  a quarter smaller than deflate, and `numpy.load` reads it as well.
  """
  with zipfile.ZipFile(path, "w") as archive:
    for name, array in arrays.items():
      entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
      entry.compress_type = zipfile.ZIP_BZIP2
      entry.create_system = 3  # Unix, on every system
      with archive.open(entry, "w") as file:
        np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)


def make(source: pathlib.Path, output: pathlib.Path) -> None:
  """Read the four files in `source` and write `output`.

  Raises:
    InputError: see `read_idx`; or `output` cannot be written.
  """
  arrays = {
      "train_images": pack(read_idx(source, "train-images-idx3-ubyte")),
      "train_labels": read_idx(source, "train-labels-idx1-ubyte"),
      "test_images": pack(read_idx(source, "t10k-images-idx3-ubyte")),
      "test_labels": read_idx(source, "t10k-labels-idx1-ubyte"),
      "about": np.array(ABOUT),
  }
  try:
    write_npz(output, arrays)
  except OSError as error:
    raise InputError(
        f"--output={output} cannot be written: {error}. Give a file in a"
        " directory that exists."
    ) from error


def main() -> None:
  source, output = (
      pathlib.Path(files.expand(command_line.required(name, flag.value)))
      for name, flag in (("source", SOURCE), ("output", OUTPUT)))
  make(source, output)
  digest = hashlib.sha256(output.read_bytes()).hexdigest()
  print(f"{output}: {output.stat().st_size} bytes, SHA-256 {digest}")


if __name__ == "__main__":
  command_line.run(main)
