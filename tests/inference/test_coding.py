"""The lossless coder: images come back unchanged, in files of the expected size.

The expected size is the negative log-likelihood of the images.
"""

import os
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pixelrnn_jax as prnn
from helpers.parameters import random_model
from helpers.programs import PATHS
from pixelrnn_jax import data as data_sets
from pixelrnn_jax.inference import coding, container

# kind, shape, levels, other fields of the model, number of images, batch_size
CASES = [
    ("pixel_cnn", (4, 2, 3), 256, dict(multi_scale=(2,)), 9, 3),
    ("pixel_cnn", (1, 5, 3), 7, dict(dtype="bfloat16", skip=True), 40, 16),
    ("row_lstm", (5, 3, 1), 3, {}, 7, 2),
    ("diagonal_bilstm", (2, 6, 3), 255, dict(residual=False, kernel_size=1), 6, 4),
    ("diagonal_bilstm", (1, 1, 1), 2, {}, 1000, 64),
]


def some_images(number, shape, levels, seed=0):
  """Return random images. Half are noise, the others have few different values."""
  rng = np.random.default_rng(seed)
  noise = rng.integers(0, levels, (number, *shape), np.uint8)
  noise[::2] = np.minimum(noise[::2], rng.integers(0, levels))
  return noise


def nll_bytes(model, variables, images):
  """Return the sum of -log2 p in bytes. A value costs at most 24 bits."""
  log_probs = jax.tree.leaves(prnn.log_probs(model, variables, images))
  p = np.concatenate([np.exp(np.float64(x)).reshape(-1) for x in log_probs])
  return -np.log2(np.minimum(p + 2**-24, 1)).sum() / 8


@pytest.fixture(scope="module")
def coded():
  """Return a model, its variables, images, and the images compressed in two streams."""
  model, variables = random_model("pixel_cnn", (3, 4, 1), 16)
  images = some_images(6, (3, 4, 1), 16)
  return model, variables, images, prnn.compress(model, variables, images, 3)


@pytest.mark.parametrize("kind, shape, levels, changes, number, batch_size", CASES)
def test_every_image_comes_back(kind, shape, levels, changes, number, batch_size):
  model, variables = random_model(kind, shape, levels, **changes)
  images = some_images(number, shape, levels)
  data = prnn.compress(model, variables, images, batch_size)
  decoded = prnn.decompress(model, variables, data, batch_size)
  assert decoded.dtype == np.uint8
  np.testing.assert_array_equal(decoded, images)
  # The size is that of the likelihood of all scales, plus the header and the streams.
  if changes.get("multi_scale"):
    bytes_, file = nll_bytes(model, variables, images), container.parse(data)
    assert bytes_ < len(data) < 1.001 * bytes_ + 45 + 13 * len(file.streams)


@pytest.mark.parametrize("seed", range(int(os.environ.get("CODING_SEEDS", 1))))
def test_random_configurations(seed):
  rng = np.random.default_rng([19, seed])
  factors = [(), (), (2,), (3,), (2, 2)][rng.integers(5)]
  whole = int(np.prod(factors, dtype=int))
  shape = (*(whole * rng.integers(1, 7 // whole + 2, 2)), rng.choice([1, 3]))
  shape = tuple(map(int, shape))
  model, variables = random_model(
      str(rng.choice(["pixel_cnn", "row_lstm", "diagonal_bilstm"])), shape,
      int(rng.integers(2, 257)), multi_scale=factors, skip=bool(rng.integers(2)),
      residual=bool(rng.integers(2)), kernel_size=int(rng.choice([1, 3, 5])),
      first_kernel_size=int(rng.choice([3, 5, 7])),
      dtype=str(rng.choice(["float32", "bfloat16"])))
  images = some_images(int(rng.integers(1, 40)), shape, model.config.levels, seed)
  data = prnn.compress(model, variables, images, int(rng.integers(1, 20)))
  decoded = prnn.decompress(model, variables, data, 20)
  np.testing.assert_array_equal(decoded, images, f"seed {seed}: {model.config}")


def test_any_number_of_images():
  """Any number of images is compressed, also one that is no multiple of a batch.

  Two devices share the images.
  """
  model, variables = random_model("row_lstm", (2, 1, 1), 4)
  images = some_images(41, (2, 1, 1), 4)
  for number in (1, 41):
    progress, back = [], []
    data = prnn.compress(model, variables, images[:number], 4, progress.append)
    decoded = prnn.decompress(model, variables, data, 4, back.append)
    np.testing.assert_array_equal(decoded, images[:number])
    # Each of the two devices takes at most four images at a time.
    assert sum(progress) == number and progress == back and max(progress) <= 8


def test_float64(x64):
  model, variables = random_model("diagonal_bilstm", (2, 3, 3), 5, dtype="float64")
  images = some_images(4, (2, 3, 3), 5)
  data = prnn.compress(model, variables, images)
  np.testing.assert_array_equal(prnn.decompress(model, variables, data), images)


@pytest.mark.parametrize("factor", [1e3, 0.0])
def test_parameters_that_are_extreme_or_none(coded, factor):
  model, variables, images, _ = coded
  variables = jax.tree.map(lambda x: factor * x, variables)
  data = prnn.compress(model, variables, images, 3)
  np.testing.assert_array_equal(prnn.decompress(model, variables, data), images)
  # A value costs at most 24 bits, however improbable it is.
  assert len(data) < 3 * images.size + 80


@pytest.mark.parametrize("shape, levels, number", [
    ((28, 28, 1), 2, 1000), ((12, 12, 3), 256, 100)])
def test_the_size_is_the_likelihood(shape, levels, number):
  """A compressed file is as large as the negative log-likelihood says.

  The images are 1,000 binary ones, which cost as little as digits, and 100 in colour.
  """
  model = prnn.build_model(prnn.ModelConfig(
      "pixel_cnn", shape, levels=levels, hidden=3, layers=1, head_features=3))
  images = np.zeros((1, *shape), np.uint8)
  params = jax.jit(model.init)(jax.random.key(0), images)["params"]
  rng = np.random.default_rng(0)
  if levels == 2:  # about 0.17 bits a value
    params["head_2"]["bias"] += -3.7
    images = (rng.random((number, *shape)) < 0.025).astype(np.uint8)
  else:
    images = some_images(number, shape, levels)
  variables = {"params": params}
  data = prnn.compress(model, variables, images)
  nll = nll_bytes(model, variables, images)
  assert 1 < len(data) / nll < 1.005
  # A stream costs about 11 bytes more, and there is a header.
  assert len(data) < 1.0003 * nll + 45 + 13 * len(container.parse(data).streams)
  np.testing.assert_array_equal(prnn.decompress(model, variables, data), images)


@pytest.mark.slow
def test_all_digits_of_the_packaged_model():
  config, model, variables = prnn.restore("mnist")
  source = data_sets.load_source(config, "test")
  images = np.stack([source[n] for n in range(len(source))])
  for number in (1000, 10_000):
    compressed = prnn.compress(model, variables, images[:number])
    nll = sum(nll_bytes(model, variables, images[n : n + 500])
              for n in range(0, number, 500))
    print(f"{number} digits: {len(compressed)} bytes, {len(compressed) / nll:.5f} NLL")
    assert 1 < len(compressed) / nll < 1.005
    np.testing.assert_array_equal(
        prnn.decompress(model, variables, compressed), images[:number])


def test_one_device_and_two_read_each_others_files(coded, monkeypatch):
  model, variables, images, data = coded
  assert len(jax.local_devices()) == 2 and len(container.parse(data).streams) == 2
  monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
  np.testing.assert_array_equal(prnn.decompress(model, variables, data, 3), images)
  again = prnn.compress(model, variables, images, 3)
  assert container.parse(again).written_with != container.parse(data).written_with
  assert container.parse(again).streams == container.parse(data).streams
  monkeypatch.undo()
  np.testing.assert_array_equal(prnn.decompress(model, variables, again, 3), images)


def test_another_process_decodes(coded, tmp_path):
  """Another process decompresses the file.

  It compiles the model anew, and reads the compressed images from a file.
  """
  model, variables, images, data = coded
  (tmp_path / "data").write_bytes(data)
  np.save(tmp_path / "images.npy", images)
  code = """
import sys
sys.path[:0] = {paths}
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
import pixelrnn_jax as prnn
from helpers.parameters import random_model
model, variables = random_model("pixel_cnn", (3, 4, 1), 16)
decoded = prnn.decompress(model, variables, open({folder} + "/data", "rb").read())
np.testing.assert_array_equal(decoded, np.load({folder} + "/images.npy"))
""".format(paths=PATHS, folder=repr(str(tmp_path)))
  environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
  done = subprocess.run(
      [sys.executable, "-c", code], env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_a_thousand_damaged_files(coded):
  """Decompressing a damaged file raises an error or returns the right images.

  The damage is: bits that are flipped, bytes that are missing, headers of other files,
  streams that were never written, and other models. About half of the files have right
  checksums, as if somebody had made them on purpose.
  """
  model, variables, images, data = coded
  file = container.parse(data)
  others = [prnn.compress(model, variables, images[:n], 3) for n in (2, 4, 5)]
  other_variables = jax.tree.map(lambda x: x + 1e-3, variables)
  rng = np.random.default_rng(0)
  right = 0
  for trial in range(1000):
    damaged, params = bytearray(data), variables
    position = rng.integers(len(damaged))
    match trial % 10:
      case 0 | 1:
        for at in rng.integers(0, len(damaged), rng.integers(1, 4)):
          damaged[at] ^= 1 << rng.integers(8)
      case 2:
        del damaged[position:]
      case 3:
        del damaged[position : position + rng.integers(1, 9)]
      case 4:
        other = others[rng.integers(3)]
        damaged[:position] = other[:position]
      case 5 | 6:  # streams that no encoder wrote
        streams = [bytearray(s) for s in file.streams]
        some = streams[rng.integers(2)]
        some[rng.integers(len(some))] ^= 1 << rng.integers(8)
        damaged = with_streams(file, streams)
      case 7:
        some = file.streams[0]
        some = some[: rng.integers(len(some))] + rng.bytes(rng.integers(1, 20))
        damaged = with_streams(file, [some, file.streams[1]])
      case 8:
        damaged = with_streams(file, [rng.bytes(rng.integers(90)) for _ in range(2)])
      case 9:  # another model, with the same fingerprint or not
        params = other_variables
        if trial % 20 == 9:
          damaged = with_streams(
              file, file.streams, model=coding._fingerprint(model.config, params))
    try:
      decoded = prnn.decompress(model, params, bytes(damaged), 3)
    except prnn.InputError:
      continue
    np.testing.assert_array_equal(decoded, images)
    right += 1
  # Some changes have no effect: a cut of nothing, or a bit that is flipped twice.
  assert right <= 20


def with_streams(file, streams, model=None):
  """Return the file with other streams, whose checksums are right."""
  return container.Container(
      file.image_shape, file.levels, file.number, file.at_a_time, model or file.model,
      file.numbers, file.written_with, (), tuple(map(bytes, streams))).to_bytes()


def test_other_numbers_are_found_out(coded, monkeypatch):
  """Decompression notices logits that differ in their last bits.

  Another machine may compute such logits.
  """
  model, variables, images, data = coded
  slightly = jax.tree.map(lambda x: x * np.float32(1 + 1e-5), variables)
  monkeypatch.setattr(coding, "_fingerprint", lambda *_: container.parse(data).model)
  with pytest.raises(prnn.InputError, match="run to run|damaged"):
    prnn.decompress(model, slightly, data)
  monkeypatch.setenv("XLA_FLAGS", "--something=else")
  with pytest.raises(prnn.InputError, match="XLA_FLAGS"):
    prnn.decompress(model, slightly, data)
  # The logits themselves are checked, not the name of the machine. Right ones are
  # accepted.
  np.testing.assert_array_equal(prnn.decompress(model, variables, data), images)


def test_the_checksum_of_the_images_is_looked_at(coded):
  """Valid streams of images with another checksum are refused."""
  model, variables, images, data = coded
  file = container.parse(data)
  tampered = []
  original = zlib.crc32
  try:
    coding.zlib.crc32 = lambda x, *y: original(x, *y) ^ 1
    tampered = container.parse(prnn.compress(model, variables, images, 3)).streams
  finally:
    coding.zlib.crc32 = original
  with pytest.raises(prnn.InputError, match="did not arrive"):
    prnn.decompress(model, variables, with_streams(file, tampered))


def test_another_model_is_named(coded):
  model, variables, images, data = coded
  other, other_variables = random_model("pixel_cnn", (3, 4, 1), 15)
  with pytest.raises(prnn.InputError, match="3x4x1 of 16 levels; .* of 15 levels"):
    prnn.decompress(other, other_variables, data)
  other, other_variables = random_model("row_lstm", (3, 4, 1), 16)
  with pytest.raises(prnn.InputError, match="another model"):
    prnn.decompress(other, other_variables, data)
  changed = jax.tree.map(np.array, variables)
  jax.tree.leaves(changed)[-1].flat[0] += 1e-7
  with pytest.raises(prnn.InputError, match="another model"):
    prnn.decompress(model, changed, data)


def test_logits_that_are_not_finite(coded):
  model, variables, images, _ = coded
  for value in (np.nan, np.inf):
    broken = jax.tree.map(lambda x, v=value: jnp.full_like(x, v), variables)
    with pytest.raises(prnn.InputError, match="not finite"):
      prnn.compress(model, broken, images)


def test_a_file_does_not_choose_the_memory(coded):
  model, variables, images, data = coded
  with pytest.raises(prnn.InputError, match="batch_size=3"):
    prnn.decompress(model, variables, data, batch_size=2)
  file = container.parse(data)
  many = container.Container(
      file.image_shape, 16, 2**39, 1, file.model, file.numbers, "", (), file.streams)
  with pytest.raises(prnn.InputError, match="the limit is 512"):
    prnn.decompress(model, variables, many.to_bytes())


@pytest.mark.parametrize("changes, message", [
    (dict(images=np.zeros((2, 4, 3, 1), np.uint8)), r"\[B, 3, 4, 1\]"),
    (dict(images=np.zeros((3, 4, 1), np.uint8)), r"\[B, 3, 4, 1\]"),
    (dict(images=np.zeros((0, 3, 4, 1), np.uint8)), "at least 1"),
    (dict(images=np.full((2, 3, 4, 1), 16, np.uint8)), "takes 0 to 15"),
    (dict(images=np.full((2, 3, 4, 1), -1)), "takes 0 to 15"),
    (dict(images=np.zeros((2, 3, 4, 1))), "raw integer values"),
    (dict(batch_size=0), "1 or more"), (dict(batch_size=2.5), "1 or more"),
    (dict(batch_size="3"), "1 or more"), (dict(batch_size=True), "1 or more"),
    (dict(names=["a"]), "1 different names for 2"),
    (dict(names=["a", "a"]), "1 different names for 2"),
    (dict(names=["a", "../b"]), "no name for an image"),
    (dict(names=["a", "\udcff"]), "no name for an image"),
    (dict(names=[1, 2]), "no name for an image"),
])
def test_bad_arguments(coded, changes, message):
  model, variables, images, _ = coded
  with pytest.raises(prnn.InputError, match=message):
    prnn.compress(model, variables, **(dict(images=images[:2]) | changes))


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.int64])
def test_integers_of_any_dtype(coded, dtype):
  model, variables, images, data = coded
  assert prnn.compress(model, variables, images.astype(dtype), 3) == data
  assert prnn.compress(model, variables, jnp.asarray(images, jnp.int32), 3) == data
  assert prnn.compress(model, variables, images[:, ::-1][:, ::-1], 3) == data


def test_names_come_back(coded):
  model, variables, images, data = coded
  names = tuple(f"a/{n}.png" for n in range(6))
  named = prnn.compress(model, variables, images, 3, names=names)
  assert coding.read_names(named) == names and coding.read_names(data) == ()
  assert coding.number_of_images(named) == coding.number_of_images(data) == 6
  np.testing.assert_array_equal(prnn.decompress(model, variables, named), images)


def test_under_transformations_and_without_compilation(coded):
  model, variables, images, data = coded
  with pytest.raises(prnn.InputError, match="runs on the host"):
    jax.jit(lambda v: prnn.compress(model, v, images))(variables)
  with pytest.raises(prnn.InputError, match="runs on the host"):
    jax.vmap(lambda x: prnn.compress(model, variables, x))(images[None])
  with pytest.raises(prnn.InputError, match="runs on the host"):
    jax.jit(lambda v: prnn.decompress(model, v, data))(variables)
  with jax.disable_jit():
    assert prnn.compress(model, variables, images, 3) == data
    np.testing.assert_array_equal(prnn.decompress(model, variables, data), images)


def test_a_bound_model(coded):
  model, variables, images, data = coded
  bound = model.bind(variables)
  assert prnn.compress(bound, variables, images, 3) == data
  np.testing.assert_array_equal(prnn.decompress(bound, variables, data), images)


def test_batches_are_as_even_as_they_can_be():
  digits = prnn.ModelConfig("pixel_cnn", (28, 28, 1), levels=2)
  colour = prnn.ModelConfig("pixel_cnn", (32, 32, 3))

  def plan(config, images, devices):
    limit = coding.default_batch_size(config)
    layout = coding._plan(config, images, limit, devices)
    assert layout.batch <= limit
    assert (layout.streams - 1) * layout.in_stream < images
    assert images <= layout.streams * layout.in_stream
    return layout.streams, layout.in_stream, layout.at_a_time

  assert plan(digits, 1000, 2) == (2, 500, 1)
  assert plan(digits, 1, 2) == (1, 1, 1)
  assert plan(digits, 10_000, 2) == (20, 500, 1)
  assert plan(colour, 100, 2) == (6, 17, 3)
  assert plan(colour, 100, 1) == (6, 17, 6)
  for images in (*range(1, 1200, 7), 5000):
    for devices in (1, 2, 3, 8):
      plan(digits, images, devices)
      plan(colour, images, devices)
