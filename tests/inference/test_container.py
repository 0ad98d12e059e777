"""The file format of compressed images: damaged files and forged ones."""

import dataclasses
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from pixelrnn_jax.errors import InputError
from pixelrnn_jax.inference.container import Container, check_name, parse

FILE = Container(
    (4, 300, 3), 256, 5, 2, b"modelmod", b"nums", "0.10.2 cpu 2",
    ("a.png", "b/c.png", "b/d.png", "ä é.png", "e"), (b"stream 1", b"", 200 * b"3"))


def header_of(numbers, names=b"", streams=(b"12345678",), text=b"jax"):
  """Return a file with right checksums and arbitrary content."""

  def number(value):
    groups = []
    while value >= 0x80:
      groups.append(value & 0x7F | 0x80)
      value >>= 7
    return bytes([*groups, value])

  header = b"PRNN\1" + b"".join(map(number, numbers)) + b"modelmod" + b"nums"
  header += number(len(text)) + text + number(len(names)) + names
  for stream in streams:
    header += number(len(stream)) + struct.pack("<I", zlib.crc32(stream))
  return header + struct.pack("<I", zlib.crc32(header)) + b"".join(streams)


def test_what_is_written_is_read():
  data = FILE.to_bytes()
  assert parse(data) == FILE and parse(bytearray(data)) == FILE
  assert header_of((4, 3, 1, 2, 1, 1, 1)) == Container(
      (4, 3, 1), 2, 1, 1, b"modelmod", b"nums", "jax", (), (b"12345678",)).to_bytes()


def test_a_file_costs_few_bytes():
  file = dataclasses.replace(
      FILE, image_shape=(28, 28, 1), levels=2, number=1000, names=(), at_a_time=1,
      streams=(7000 * b"x", 7000 * b"y"))
  assert len(file.to_bytes()) - 14000 < 60


def test_every_flipped_bit_and_every_cut_is_found():
  data = FILE.to_bytes()
  for position in range(len(data)):
    with pytest.raises(InputError):
      parse(data[:position])
    for bit in range(8):
      damaged = bytearray(data)
      damaged[position] ^= 1 << bit
      with pytest.raises(InputError):
        parse(bytes(damaged))


@pytest.mark.parametrize("change", [
    lambda data: data + b"\0",
    lambda data: data[:-1] + b"\0",
    lambda data: b"\n" + data,
    lambda data: data.replace(b"stream 1", b"stream 2"),
    lambda data: data[:60] + data[61:],
    lambda data: b"PRNN",
    lambda data: b"",
    lambda data: b"\x89PNG\r\n\x1a\n" + data,
    lambda data: np.random.default_rng(0).bytes(1000),
    lambda data: b"PRNN\1" + np.random.default_rng(1).bytes(1000),
    lambda data: b"PRNN\1" + b"\xff" * 1000,
    lambda data: data.replace(b"\n", b"\r\n") + b"\r\n",
])
def test_other_damage_is_found(change):
  with pytest.raises(InputError):
    parse(change(FILE.to_bytes()))


def test_messages_say_what_is_wrong():
  data = FILE.to_bytes()
  for content, message in [
      (b"GIF89a", "no file of compressed images"),
      (b"PRNN\2" + data[5:], "version 2"),
      (data[:-1], "not as long"), (data[:20], "ends before"),
      (data[:-1] + b"x", "stream 3 of 3"), (data[:8] + b"x" + data[9:], "header"),
      ("text", "are bytes")]:
    with pytest.raises(InputError, match=message):
      parse(content)


@pytest.mark.parametrize("numbers, streams", [
    ((4, 3, 1, 2, 0, 1, 1), 1),  # no images
    ((4, 3, 1, 2, 1, 2, 1), 2),  # a stream that holds no image
    ((4, 3, 1, 2, 5, 4, 1), 4),  # streams of two, two, one and no images
    ((4, 3, 1, 2, 1, 0, 1), 0),
    ((4, 3, 1, 2, 1, 1, 0), 1), ((4, 3, 1, 2, 1, 1, 2), 1),
    ((0, 3, 1, 2, 1, 1, 1), 1),
    ((4, 3, 1, 2, 1, 2**39, 1), 1), ((4, 3, 1, 2, 1, 2**41, 1), 1),
])
def test_claims_that_no_file_bears_out(numbers, streams):
  data = header_of(numbers, streams=streams * (b"12345678",))
  tracemalloc.start()
  with pytest.raises(InputError):
    parse(data)
  assert tracemalloc.get_traced_memory()[1] < 2**20
  tracemalloc.stop()


def test_an_enormous_number_of_images_reserves_nothing():
  tracemalloc.start()
  assert parse(header_of((4, 3, 1, 2, 2**40, 1, 1))).images_in_stream == 2**40
  assert tracemalloc.get_traced_memory()[1] < 2**20
  tracemalloc.stop()


@pytest.mark.parametrize("names", [
    b"a\0", b"a\0a\0", b"a\0b", b"a\0b\0c\0", b"../a\0b\0", b"/etc/passwd\0b\0",
    b"a/../../b\0c\0", b"a\0\xff\0", b"C:\\x\0b\0", b"a\nb\0c\0", b"a\0\0", b"./a\0b\0",
    b"a//b\0c\0", 300 * b"x" + b"\0b\0", b"a/\0b\0", b"CON:\0b\0"])
def test_names_that_are_refused(names):
  with pytest.raises(InputError):
    parse(header_of((4, 3, 1, 2, 2, 1, 1), zlib.compress(names)))


def test_names_that_inflate_without_end():
  bomb = zlib.compress(bytes(2**28), 9)
  tracemalloc.start()
  with pytest.raises(InputError, match="64 MiB"):
    parse(header_of((4, 3, 1, 2, 2, 1, 1), bomb))
  assert tracemalloc.get_traced_memory()[1] < 2**28
  tracemalloc.stop()


@pytest.mark.parametrize("names", [b"junk", zlib.compress(b"a\0b\0")[:-1],
                                   zlib.compress(b"a\0b\0") + b"x"])
def test_names_that_cannot_be_read(names):
  with pytest.raises(InputError, match="names"):
    parse(header_of((4, 3, 1, 2, 2, 1, 1), names))


def test_good_names():
  for name in ("a", "a.png", "photos/2026/vögel 1.png", "-", "..a", "a..", "名前.png"):
    check_name(name)
