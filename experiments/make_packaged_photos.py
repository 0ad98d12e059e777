"""Make `pixelrnn_jax/data/photos` from the nine original photographs.

    python experiments/make_packaged_photos.py --source=DIR --output=DIR

The source holds the JPEG files that `SHA256` names, from Debian's package
lomiri-wallpapers-16.04. Each is reduced by area: a pixel is the mean of k x k pixels,
rounded. k is the smallest whole number of at least 4 that leaves the longer side at
most 900 pixels, so that no block of the JPEG survives and no photograph outweighs the
others. The rows and columns that k leaves over, at the bottom and on the right, are
dropped. The result is stored as WebP without loss.

The pixels follow from the source. The bytes of a WebP file may differ with the version
of libwebp, so the sums that are printed are of the pixels.
"""

if __name__ == "__main__":
  import startup

  startup.begin()

import hashlib
import pathlib

from absl import flags
from PIL import Image, UnidentifiedImageError

import command_line
from pixelrnn_jax.data import packaged_photos
from pixelrnn_jax.errors import InputError

SOURCE = flags.DEFINE_string("source", None, "Directory with the nine JPEG files.")
OUTPUT = flags.DEFINE_string("output", None, "Directory for the WebP files.")

LEAST_FACTOR = 4
LONGEST_SIDE = 900

# SHA-256 of the original files, by name without `.jpg`.
SHA256 = {
    "Picture_0B_by_freespace":
        "c8c0ab18e48d9e0419fe42881112137f3afafc27dfddc29ec3a6d54c56d225ad",
    "Picture_1A_by_freespace":
        "89e86af38d04daaef975665dc2127e9fa76f0fd68f4eea105a2d0ae3390b010b",
    "Wine_by_Jakkub_Mede":
        "d2e96e6d4da40dd804b3d0ce295e94de04a2d7d9b6785d42cd9d92ba58bced74",
    "aitzgorri_by_Aitzol_Berasategi":
        "66268e7b48f8854d36a28765fac6e23ec1aee251daa6da1f64715f201020ad36",
    "friends_by_Aitzol_Berasategi":
        "cc40e313c74e421edffe3403def413c16878ce14661cce7ec5915baeab35538d",
    "life_by_Aitzol_Berasategi":
        "4c119350ead80201fe256850c3d316309ddfb4bdf10b235ce982dcde0c667c05",
    "picosdeeuropa_by_Aitzol_Berasategi":
        "414d0072b2f6f2c555deafeaef6e45c4fed6fa9ad26eba6560ca8803959cf97a",
    "seeding_by_Clements_Engelhardt":
        "a5634d1ab5e41a3568e92d4a894a500c92b891f9ff734e50bd224d6e185a605f",
    "sunset_by_Aitzol_Berasategi":
        "474dab6a4b9f94dc76c29dfe30e9f5db4af0fd2e33fe5d695f8152b371efca18",
}


def factor(width: int, height: int) -> int:
  """Return the whole number by which an image of that size is reduced."""
  return max(LEAST_FACTOR, -(-(max(width, height) + 1) // (LONGEST_SIDE + 1)))


def read(path: pathlib.Path, digest: str) -> Image.Image:
  """Return the checked photograph, RGB.

  Args:
    path: the path of the JPEG file.
    digest: its SHA-256.

  Raises:
    InputError: the file is missing or is another one.
  """
  try:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
      raise InputError(
          f"{path} is not the original photograph: its SHA-256 is {found} and should"
          f" be {digest}. Fetch it again."
      )
    with Image.open(path) as image:
      return image.convert("RGB")
  except (OSError, UnidentifiedImageError) as error:
    raise InputError(
        f"{path} cannot be read ({error}). --source must be a directory with the files"
        f" {', '.join(f'{name}.jpg' for name in SHA256)}."
    ) from error


def reduce(image: Image.Image) -> Image.Image:
  """Return the image reduced by area, by `factor`."""
  by = factor(*image.size)
  whole = (0, 0, image.width // by * by, image.height // by * by)
  return image.crop(whole).reduce(by)


def make(source: pathlib.Path, output: pathlib.Path) -> None:
  """Read the photographs of `source` and write them to `output`.

  Raises:
    InputError: see `read`; or `output` cannot be written.
  """
  images = {
      name: reduce(read(source / f"{name}.jpg", digest))
      for name, digest in SHA256.items()}
  try:
    output.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
      image.save(output / f"{name}.webp", lossless=True, quality=100, method=6)
  except OSError as error:
    raise InputError(
        f"--output={output} cannot be written: {error}. Give a directory in one that"
        " exists."
    ) from error


def main() -> None:
  source = pathlib.Path(command_line.required("source", SOURCE.value))
  output = pathlib.Path(command_line.required("output", OUTPUT.value))
  make(source, output)
  size = 0
  for name in SHA256:
    path = output / f"{name}.webp"
    size += path.stat().st_size
    pixels = packaged_photos.read(path)
    print(
        f"{path.name}: {pixels.shape[1]} x {pixels.shape[0]} pixels,"
        f" {path.stat().st_size:,} bytes, SHA-256 of the pixels"
        f" {packaged_photos.digest(pixels)}"
    )
  print(f"{size:,} bytes in all")


if __name__ == "__main__":
  command_line.run(main)
