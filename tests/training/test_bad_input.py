"""A table of bad input, and what the user is told.

Each row changes a valid config, its data or its work directory, and trains. Training
must refuse it with the given message, in one line, and leave no files. There are more
rows in experiments/test_command_line.py (flags), data/test_image_files.py (files to
complete), configs/test_configs.py (sizes), data/test_tfds_images.py and
data/test_downsampled_imagenet.py.
"""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from helpers.folders import contents
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.training import train

SHAPE = (4, 6, 3)


def set_field(path, value):
  """Return a row that sets a field of the config."""

  def change(config, folder):
    del folder
    part, name = path.split(".")
    setattr(getattr(config, part), name, value)

  return change


def png(pixels, mode=None, **options):
  """Return the bytes of a PNG file, or of another image format."""
  content = io.BytesIO()
  image = Image.fromarray(pixels)
  options = {"format": "PNG", **options}
  (image.convert(mode) if mode else image).save(content, **options)
  return content.getvalue()


COLOUR = np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8)
GOOD = png(COLOUR)


def with_file(content, name="bad.png"):
  """Return a row with a folder of good images and one bad file."""

  def change(config, folder):
    own = folder / "own"
    own.mkdir()
    for i in range(12):
      (own / f"{i}.png").write_bytes(GOOD)
    (own / name).write_bytes(content() if callable(content) else content)
    config.data.source = f"folder:{own}"

  return change


def huge_png(width=2**15, height=2**15):
  """Return a PNG file of a few bytes that claims to be a gigapixel."""
  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return (
      b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
      + struct.pack(">I", zlib.crc32(b"IHDR" + header))
      + b"\0\0\0\0IEND\xaeB`\x82")


def sixteen_bits():
  return png(np.arange(24, dtype=np.uint16).reshape(4, 6) * 2000)


def see_through():
  alpha = np.full((9, 8), 255, np.uint8)
  alpha[0, 0] = 0
  return png(np.dstack([COLOUR, alpha]))


def see_through_palette():
  content = io.BytesIO()
  image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6), "P")
  image.putpalette(list(range(96)))
  image.save(content, "PNG", transparency=3)
  return content.getvalue()


def animated():
  other = Image.fromarray(COLOUR[::-1])
  return png(COLOUR, save_all=True, append_images=[other])


def flipped():
  content = bytearray(GOOD)
  content[len(content) // 2] ^= 0xFF
  return bytes(content)


def folder_of(*names):
  """Return a row with a folder of files.

  The files are images if their names end in .png.
  """

  def change(config, folder):
    own = folder / "own"
    own.mkdir()
    for name in names:
      path = own / name
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(GOOD if name.endswith(".png") else b"text")
    config.data.source = f"folder:{own}"

  return change


IMAGES = np.random.default_rng(1).integers(0, 256, (12, *SHAPE), np.uint8)


def with_npz(**arrays):
  """Return a row with an `.npz` of these arrays."""

  def change(config, folder):
    np.savez(folder / "own.npz", **arrays)
    config.data.source = f"folder:{folder}/own.npz"

  return change


def raw_npz(content, compression=zipfile.ZIP_STORED, name="images.npy"):
  """Return a row with an `.npz` whose only member has this content."""

  def change(config, folder):
    with zipfile.ZipFile(folder / "own.npz", "w", compression) as archive:
      archive.writestr(name, content)
    config.data.source = f"folder:{folder}/own.npz"

  return change


def npy(header, values=b""):
  """Return an .npy file of version 1.0 with any header."""
  text = header.encode().ljust(117) + b"\n"
  return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values


def claims(shape, descr="'|u1'"):
  return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


def with_content(content):
  def change(config, folder):
    (folder / "own.npz").write_bytes(content)
    config.data.source = f"folder:{folder}/own.npz"

  return change


def cut_npz(config, folder):
  with_npz(images=IMAGES)(config, folder)
  path = folder / "own.npz"
  path.write_bytes(path.read_bytes()[:-40])


def changed_npz(config, folder):
  with_npz(images=IMAGES)(config, folder)
  path = folder / "own.npz"
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(bytes(content))


def levels_of_npz(config, folder):
  with_npz(images=IMAGES)(config, folder)
  config.model.levels = 16


def workdir_is_a_file(config, folder):
  (folder / "run").write_text("")


def workdir_of_nobody(config, folder):
  (folder / "run" / "checkpoints").mkdir(parents=True)


def workdir_with_a_broken_config(config, folder):
  (folder / "run").mkdir()
  (folder / "run" / "config.json").write_text('{"name": "x", ')


def workdir_of_code(config, folder):
  (folder / "run").mkdir()
  (folder / "run" / "config.json").write_text('{"__reduce__": ["os.system", "id"]}')


def cache_is_a_file(config, folder):
  folder_of("0.png", "1.png", "2.png", "3.png")(config, folder)
  (folder / "cache").write_text("")
  config.data.data_dir = str(folder / "cache")


ROWS = {
    # Images in a folder.
    "empty file": (with_file(b""), r"bad.png' is empty"),
    "no image": (with_file(b"hello"), r"bad.png' is not a PNG or JPEG file"),
    "half an image": (with_file(GOOD[:-60]), r"bad.png' is damaged"),
    "half a header": (with_file(GOOD[:20]), r"bad.png' is damaged.*no PNG header"),
    "a flipped byte": (with_file(flipped), r"bad.png' is damaged"),
    "a gigapixel": (
        with_file(huge_png), r"bad.png' has more than the 67,108,864 pixels"),
    "a hundred megapixels": (
        with_file(huge_png(10**4, 10**4)), r"has more than the 67,108,864 pixels"),
    "16 bits": (with_file(sixteen_bits), r"bad.png' has 16 bits a channel"),
    "alpha": (with_file(see_through), r"bad.png' is transparent in places"),
    "a palette with alpha": (
        with_file(see_through_palette), r"bad.png' is transparent in places"),
    "animation": (with_file(animated), r"bad.png' is animated: 2 frames"),
    "CMYK": (
        with_file(lambda: png(COLOUR, "CMYK", format="JPEG"), "bad.jpg"),
        r"bad.jpg' has the colours of CMYK"),
    "another format by another name": (
        with_file(lambda: png(COLOUR, format="GIF")), r"is not a PNG or JPEG file"),
    "half a JPEG": (
        with_file(lambda: png(COLOUR, format="JPEG")[:300], "bad.jpg"),
        r"bad.jpg' is damaged"),
    "many bad files": (
        folder_of(*(f"{i}.jpg" for i in range(9))),
        r"9 of 9 images cannot be used.*And 6 more.*take them out of the folder"),
    # Folders.
    "no folder": (set_field("data.source", "folder:/no/where"), r"does not exist"),
    "no name": (set_field("data.source", "folder:"), r"or 'folder:PATH'"),
    "empty folder": (folder_of(), r"holds no images: no file .*\.png, \.jpg, \.jpeg"),
    "no images": (folder_of("a.txt", "b.gif"), r"holds no images"),
    "two images": (folder_of("a.png", "b.png"), r"holds 2 image\(s\): at least 3"),
    "no test": (folder_of("train/a.png"), r"sub-folder 'train' but no 'test'"),
    "empty test": (
        folder_of("train/a.png", "test/a.txt"), r"sub-folder 'test' holds no files"),
    "nothing to train on": (
        folder_of(*(f"{i}.png" for i in range(4))),
        r"validation_images=10.*only 3 images: nothing would be left"),
    "cache is a file": (cache_is_a_file, r"cannot be kept in .*--config.data.data_dir"),
    # .npz files.
    "no npz": (set_field("data.source", "folder:/no/where.npz"), r"does not exist"),
    "text as npz": (with_content(b"hello"), r"damaged or no .npz"),
    "empty npz": (with_content(b""), r"damaged or no .npz"),
    "half an npz": (cut_npz, r"damaged or no .npz"),
    "a changed npz": (changed_npz, r"damaged or no .npz: Bad CRC-32"),
    "other arrays": (with_npz(x=IMAGES), r"holds 'x'; it must hold 'images'"),
    "no array": (with_npz(), r"holds no arrays"),
    "float images": (with_npz(images=IMAGES / 255), r"is of float64; it must be uint8"),
    "signed images": (
        with_npz(images=IMAGES.astype(np.int64)), r"is of int64; it must be uint8"),
    "pickled images": (
        with_npz(images=np.array([{}, []], object)), r"Python objects, which are not"),
    "images of another size": (
        with_npz(images=IMAGES[:, :3]), r"shape \(12, 3, 6, 3\), but model"),
    "grey for RGB": (
        with_npz(images=IMAGES[..., 0]), r"shape \(12, 4, 6\).*must be \(N, 4, 6, 3\)"),
    "no images in an npz": (with_npz(images=IMAGES[:0]), r"'images' has no images"),
    "Fortran order": (
        with_npz(images=np.asfortranarray(IMAGES)), r"is in Fortran order"),
    "values above levels - 1": (
        levels_of_npz, r"values up to 255, but model.levels=16"),
    "a header of terabytes": (
        raw_npz(claims((10**11, *SHAPE))), r"claims 100000000000 images but has 128"),
    "a header of code": (
        raw_npz(npy("__import__('os').system('touch run')")), r"damaged or no .npz"),
    "a bomb": (
        raw_npz(claims((2**20, *SHAPE)) + bytes(2**20 * 72), zipfile.ZIP_DEFLATED),
        r"no images shrink by more than 200 times"),
    "an odd compression": (
        raw_npz(claims((1, *SHAPE)) + bytes(72), zipfile.ZIP_LZMA),
        r"neither stored nor deflated"),
    # The work directory.
    "workdir is a file": (workdir_is_a_file, r"not a directory that can be written"),
    "someone else's workdir": (workdir_of_nobody, r"holds checkpoints but no config"),
    "a broken config": (workdir_with_a_broken_config, r"damaged: .*not valid JSON"),
    "a config of code": (workdir_of_code, r"config has no field '__reduce__'"),
    # Sizes.
    "batch for two devices": (
        set_field("train.batch_size", 5), r"batch_size=5 .* 2 devices.*4 or 6"),
    "no batch": (set_field("train.batch_size", 0), r"batch_size=0: must be at least 1"),
    "parts of a batch": (
        set_field("train.accumulate", 3), r"accumulate=3 does not divide .* 8 of 16"),
    "no parts": (set_field("train.accumulate", 0), r"accumulate=0: must be at least 1"),
    "no height": (
        set_field("model.image_shape", (0, 8, 3)), r"height and width must be"),
    "two channels": (
        set_field("model.image_shape", (8, 8, 2)), r"must be 1 \(grey\) or 3 \(RGB\)"),
    "half a pixel": (set_field("model.image_shape", (8.5, 8, 3)), r"wrong type"),
    "one level": (set_field("model.levels", 1), r"levels=1: must be from 2"),
    "16-bit levels": (set_field("model.levels", 65536), r"to 256 \(8 bit\)"),
    "no layers": (set_field("model.layers", 0), r"layers=0: must be at least 1"),
    "workers below none": (set_field("data.workers", -1), r"workers=-1: must be 0"),
    "no validation": (set_field("data.validation_images", 0), r"must be at least 1"),
    "another source": (set_field("data.source", "cifar10"), r"'tfds:NAME', for"),
    "unknown data set": (
        set_field("data.source", "tfds:no_such_images"), r"knows no such data set"),
}


def test_there_are_enough():
  assert len(ROWS) >= 40


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", ROWS)
def test_bad_input(name, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
  config = load_config("pixel_cnn_cifar10:smoke")
  config.model.image_shape = SHAPE
  config.data.validation_images, config.data.max_images = 10, 0
  change, message = ROWS[name]
  change(config, tmp_path)
  before = contents(tmp_path, without="user_cache")
  with pytest.raises(InputError, match=message) as error:
    train(config, str(tmp_path / "run"))
  assert "\n" not in str(error.value)
  assert contents(tmp_path, without="user_cache") == before
