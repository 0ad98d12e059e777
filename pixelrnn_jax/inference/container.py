"""The format of the file of compressed images.

A header comes first, then the streams one after another. A number is in LEB128: 7 bits
a byte, the lowest first, and a top bit that says whether more bytes follow. Words are
little-endian.

| part            | content                                                        |
|-----------------|----------------------------------------------------------------|
| magic, version  | 4 bytes, 1 byte                                                |
| H, W, C, levels | a number each                                                  |
| N               | the number of images                                           |
| S               | the number of streams; each has ceil(N / S) images, and the    |
|                 | last one has the rest                                          |
| K               | the number of streams that a device decodes at a time          |
| model           | 8 bytes of the SHA-256 of its configuration and parameters     |
| numbers         | 4 bytes of the SHA-256 of all that the logits' last bits       |
|                 | depend on (JAX, device, processor, ...)                        |
| written with    | a number of bytes, then the most important of that, UTF-8      |
| names           | a number of bytes, then nothing, or deflated UTF-8: N names,   |
|                 | each ending in a byte 0                                        |
| S times         | the number of the stream's bytes, then its CRC-32, 4 bytes     |
| CRC-32          | 4 bytes, of all bytes before                                   |
| S streams       | see `rans.py`; after the last symbol, the CRC-32 of the images |
|                 | is left                                                        |

Nothing is believed before its checksum is right. No number of the header reserves
memory before it is checked against the bytes of the file.
"""

import dataclasses
import struct
import zlib

from pixelrnn_jax.errors import InputError

MAGIC, VERSION = b"PRNN", 1
_MODEL_BYTES, _NUMBERS_BYTES, _CRC_BYTES = 8, 4, 4
_LARGEST_NUMBER = 2**40
_LONGEST_NAMES = 2**26  # deflated zeros are a thousand times as long


@dataclasses.dataclass(frozen=True)
class Container:
  """The content of a file.

  Attributes:
    image_shape: (H, W, C).
    levels: the number of levels of the values.
    number: the number of images.
    at_a_time: number of streams that a device decodes together.
    model: fingerprint of the model, 8 bytes.
    numbers: fingerprint of all that the logits' last bits depend on, 4 bytes.
    written_with: the most important of that, in words.
    names: the names of the images, or () for none.
    streams: the compressed images.
  """

  image_shape: tuple[int, int, int]
  levels: int
  number: int
  at_a_time: int
  model: bytes
  numbers: bytes
  written_with: str
  names: tuple[str, ...]
  streams: tuple[bytes, ...]

  @property
  def images_in_stream(self) -> int:
    """The number of images of a stream. The last stream may have fewer."""
    return -(-self.number // len(self.streams))

  def to_bytes(self) -> bytes:
    """Return the file; `parse` is the inverse."""
    numbers = (*self.image_shape, self.levels, self.number, len(self.streams),
               self.at_a_time)
    text = self.written_with.encode()
    names = "".join(f"{name}\0" for name in self.names).encode("utf-8", "strict")
    names = zlib.compress(names, 9) if names else b""
    header = b"".join((
        MAGIC, bytes([VERSION]), *map(_number, numbers), self.model, self.numbers,
        _number(len(text)), text, _number(len(names)), names,
        *(_number(len(s)) + _crc(s) for s in self.streams)))
    return b"".join((header, _crc(header), *self.streams))


def parse(data: bytes) -> Container:
  """Return the content of a file.

  Raises:
    InputError: the bytes are no such file, or one that is of another version, cut
      short, too long or damaged.
  """
  if not isinstance(data, (bytes, bytearray, memoryview)):
    raise InputError(
        f"Compressed images are bytes, as from compress, not {type(data).__name__}.")
  data = bytes(data)
  if data[:len(MAGIC)] != MAGIC[:len(data)] or not data:
    raise InputError(
        "This is no file of compressed images: it does not begin as those of compress"
        " do. Give one of them."
    )
  reader = _Reader(data)
  reader.take(len(MAGIC))
  version = reader.take(1)[0]
  if version != VERSION:
    raise InputError(
        f"The compressed images are of version {version} of the format, or damaged;"
        f" this program reads version {VERSION}. Decompress them with the program that"
        " wrote them."
    )
  numbers = [reader.number() for _ in range(7)]
  model, fingerprint = reader.take(_MODEL_BYTES), reader.take(_NUMBERS_BYTES)
  text, names = (reader.take(reader.number()) for _ in range(2))
  count, left = numbers[5], len(data) - reader.position
  if count * (1 + _CRC_BYTES) > left:  # before a list of them is made
    _damaged("it ends before it should")
  table = [(reader.number(), reader.take(_CRC_BYTES)) for _ in range(count)]
  header = data[: reader.position]
  if reader.take(_CRC_BYTES) != _crc(header):
    _damaged("the checksum of its header is wrong")
  if reader.position + sum(size for size, _ in table) != len(data):
    _damaged("it is not as long as it should be")
  streams = []
  for index, (size, crc) in enumerate(table):
    streams.append(reader.take(size))
    if crc != _crc(streams[-1]):
      _damaged(f"the checksum of stream {index + 1} of {count} is wrong")
  # From here on the file is what somebody wrote, who may mean harm.
  *image_shape, levels, number, count, at_a_time = numbers
  in_stream = -(-number // count) if count else 0
  if not (
      1 <= count <= number and -(-number // in_stream) == count
      and 1 <= at_a_time <= count and min(image_shape) >= 1):
    _damaged(
        f"{number} images of shape {tuple(image_shape)} in {count} streams, {at_a_time}"
        " at a time, are no layout of compress")
  height, width, channels = image_shape
  return Container(
      (height, width, channels), levels, number, at_a_time, model, fingerprint,
      _text(text), _names(names, number), tuple(streams))


def check_name(name: str) -> None:
  """Raise InputError for a name that is no path to a file below a folder.

  Names come with files from strangers. No name may lead out of the folder that images
  are written to, on any system.
  """
  parts = name.split("/") if isinstance(name, str) else [""]
  if (
      any(part in ("", ".", "..") for part in parts)
      or any(ord(c) < 32 or c in '\\:*?"<>|\x7f' for c in name)
      or any("\ud800" <= c <= "\udfff" for c in name)  # bytes that are not UTF-8
      or any(len(part.encode()) > 255 for part in parts)
      or len(parts) > 32):
    raise InputError(
        f"{str(name)[:200]!r} is no name for an image: names are text, paths below a"
        " folder with / between their parts, none of them empty, '.' or '..', without"
        " control characters and \\ : * ? \" < > |. Rename the file."
    )


class _Reader:
  """Reads bytes from first to last; an early end is an InputError."""

  def __init__(self, data: bytes):
    self.data, self.position = data, 0

  def take(self, size: int) -> bytes:
    end = self.position + size
    if end > len(self.data):
      _damaged("it ends before it should")
    taken, self.position = self.data[self.position : end], end
    return taken

  def number(self) -> int:
    value = shift = 0
    while True:
      byte = self.take(1)[0]
      value |= (byte & 0x7F) << shift
      shift += 7
      if value > _LARGEST_NUMBER or shift > 42:
        _damaged("a number in its header is too large")
      if byte < 0x80:
        return value


def _number(value: int) -> bytes:
  """Return a number of 0 or more in LEB128."""
  groups = []
  while value >= 0x80:
    groups.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*groups, value])


def _crc(content: bytes) -> bytes:
  return struct.pack("<I", zlib.crc32(content))


def _text(content: bytes) -> str:
  """Return text for messages, with bytes that are no UTF-8 escaped."""
  return content.decode("utf-8", "backslashreplace")[:200]


def _names(content: bytes, number: int) -> tuple[str, ...]:
  """Return the names; raise InputError unless there are none or one an image."""
  if not content:
    return ()
  inflater = zlib.decompressobj()
  try:
    text = inflater.decompress(content, _LONGEST_NAMES)
    if not inflater.eof or inflater.unused_data:
      raise ValueError("they are cut short, or longer than 64 MiB")
    names = text.decode("utf-8").split("\0")
  except (zlib.error, ValueError) as error:
    raise InputError(f"The names in the compressed file cannot be read: {error}."
    ) from error
  if names.pop() or len(names) != number or len(set(names)) != number:
    _damaged(f"it has {len(names)} names, not another one for each of {number} images")
  for name in names:
    check_name(name)
  return tuple(names)


def _damaged(what: str):
  raise InputError(
      f"The file of compressed images is damaged: {what}. Take another copy of it.")
