import dataclasses
import multiprocessing
import pathlib
import signal

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pixelrnn_jax.configs.schema import Config, DataConfig, ModelConfig, TrainConfig
from pixelrnn_jax.data import (
  ImageSource,
  binarize,
  eval_batches,
  pipeline,
  train_iterator,
)
from pixelrnn_jax.errors import InputError


def make_config(batch_size, seed=0, workers=0):
  return Config(
      name="tiny",
      model=ModelConfig(kind="row_lstm", image_shape=(2, 2, 1), hidden=4),
      data=DataConfig(source="tfds:tiny", binarization="none", workers=workers),
      train=TrainConfig(batch_size=batch_size, seed=seed),
  )


def numbered(count):
  """Return a source in which all values of image i are i."""
  images = np.repeat(np.arange(count, dtype=np.uint8), 4).reshape(count, 2, 2, 1)
  return ImageSource(images, "numbers")


def grey(count, shape=(16, 16, 1)):
  """Return a source of grey images with dynamic binarisation."""
  images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
  bits = np.stack([binarize.static(image) for image in images])
  return ImageSource(bits, "grey", images)


class NotInMemory:
  """A stand-in for an array on disk, which is read image by image."""

  def __init__(self, array):
    self.array = array

  def __len__(self):
    return len(self.array)

  def __getitem__(self, index):
    return self.array[index]


def take(iterator, steps):
  return np.stack([next(iterator) for _ in range(steps)])


def numbers(batches):
  """Return the numbers of the images, in order.

  All values of an image must be equal.
  """
  images = batches.reshape(-1, 4)
  assert (images == images[:, :1]).all()
  return images[:, 0]


def test_batches():
  batch = next(train_iterator(make_config(3), numbered(10)))
  assert batch.shape == (3, 2, 2, 1) and batch.dtype == np.uint8


def test_every_image_once_an_epoch_in_a_new_order():
  # There are 10 images and batches of 4. The third batch ends in the second epoch.
  order = numbers(take(train_iterator(make_config(4), numbered(10)), 15))
  epochs = order.reshape(6, 10)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
  assert len(np.unique(epochs, axis=0)) == 6


def test_order_follows_from_the_seed():
  def order(seed):
    return numbers(take(train_iterator(make_config(50, seed), numbered(50)), 3))

  np.testing.assert_array_equal(order(1), order(1))
  epochs = np.concatenate([order(seed).reshape(3, 50) for seed in (0, 1, 2**40)])
  # Seed 1 repeats no order of seed 0.
  assert len(np.unique(epochs, axis=0)) == 9


def test_epochs_are_independent():
  """The orders of 15 epochs of 200 images are uncorrelated."""
  order = numbers(take(train_iterator(make_config(200), numbered(200)), 15))
  epochs = np.concatenate([order.reshape(15, 200), [np.arange(200)]])
  correlation = np.corrcoef(epochs) - np.eye(16)
  assert np.abs(correlation).max() < 5 / np.sqrt(200)


@pytest.mark.parametrize("source", [numbered(11), grey(11)], ids=["plain", "dynamic"])
@pytest.mark.parametrize("processes", [2, 3, 6])
def test_processes_share_the_batches_of_one(source, processes):
  config = make_config(6)
  whole = take(train_iterator(config, source), 8)
  parts = [
      take(train_iterator(config, source, index, processes), 8)
      for index in range(processes)
  ]
  assert parts[0].shape[1] == 6 // processes
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_fewer_images_than_a_batch():
  order = numbers(take(train_iterator(make_config(8), numbered(3)), 3))
  np.testing.assert_array_equal(np.bincount(order), [8, 8, 8])
  assert (numbers(take(train_iterator(make_config(4), numbered(1)), 2)) == 0).all()


def test_reading_from_disk_gives_the_same_batches():
  source = numbered(10)
  lazy = dataclasses.replace(source, images=NotInMemory(source.images))
  assert source.in_memory and not lazy.in_memory
  iterator = train_iterator(make_config(4), lazy)
  np.testing.assert_array_equal(
      take(iterator, 8), take(train_iterator(make_config(4), source), 8))
  iterator.close()


def test_errors():
  with pytest.raises(InputError, match="batch_size=6 .* 4 processes.*multiple of 4"):
    train_iterator(make_config(6), numbered(10), 0, 4)
  with pytest.raises(InputError, match="process_index=2"):
    train_iterator(make_config(6), numbered(10), 2, 2)
  with pytest.raises(InputError, match="no images to train on"):
    train_iterator(make_config(6), numbered(0))
  with pytest.raises(InputError, match="batch_size=5 .* 2 processes"):
    eval_batches(numbered(10), 5, 0, 2)
  with pytest.raises(InputError, match="process_index=-1"):
    eval_batches(numbered(10), 4, -1, 2)


def test_dynamic_draws_anew_at_each_use():
  source = grey(1, (64, 64, 1))
  draws = take(train_iterator(make_config(1), source), 200)[:, 0]
  assert set(np.unique(draws)) == {0, 1}
  p = source.intensities[0] / 255.0
  # The mean is over 200 draws, and in each draw over all pixels of one range of p.
  for low in np.arange(0, 1, 0.1):
    chosen = (p >= low) & (p < low + 0.1)
    count = 200 * chosen.sum()
    assert abs(draws[:, chosen].mean() - p[chosen].mean()) < 2.5 / np.sqrt(count)
  # The probability that two bits of the same p differ.
  expected = 2 * (p * (1 - p)).mean()
  assert abs((draws[0] != draws[1]).mean() - expected) < 0.05
  again = take(train_iterator(make_config(1), source), 200)[:, 0]
  np.testing.assert_array_equal(draws, again)
  other_seed = next(train_iterator(make_config(1, seed=1), source))[0]
  assert abs((draws[0] != other_seed).mean() - expected) < 0.05


def test_dynamic_is_fixed_in_evaluation():
  source = grey(5)
  first, second = (
      np.concatenate([images[mask] for images, mask in eval_batches(source, 2)])
      for _ in range(2))
  np.testing.assert_array_equal(first, second)
  np.testing.assert_array_equal(
      first, [binarize.static(image) for image in source.intensities])


def save_and_restore(directory: pathlib.Path, make_iterator):
  """Save an iterator after 5 steps and restore it.

  Returns the 7 batches that follow the save, and the 7 that follow the restore.
  """
  with ocp.CheckpointManager(directory) as manager:
    iterator = make_iterator()
    take(iterator, 5)
    manager.save(5, args=ocp.args.Composite(
        data=grain.checkpoint.CheckpointSave(iterator)))
    manager.wait_until_finished()
    expected = take(iterator, 7)
    iterator.close()
    restored = make_iterator()
    # The position before the restore does not matter.
    take(restored, 2)
    manager.restore(5, args=ocp.args.Composite(
        data=grain.checkpoint.CheckpointRestore(restored)))
    found = take(restored, 7)
    restored.close()
  return expected, found


@pytest.mark.parametrize("source", [numbered(10), grey(10)], ids=["plain", "dynamic"])
def test_checkpoint_resumes_with_the_same_batches(tmp_path, source):
  config = make_config(4)
  expected, found = save_and_restore(
      tmp_path, lambda: train_iterator(config, source, 1, 2))
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(
      expected, take(train_iterator(config, source, 1, 2), 12)[5:])


def test_workers_give_the_same_batches_and_resume(tmp_path):
  source = grey(10)
  expected, found = save_and_restore(
      tmp_path, lambda: train_iterator(make_config(4, workers=2), source))
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(
      expected, take(train_iterator(make_config(4), source), 12)[5:])


def start_as_on_macos(index, count):
  """Start a worker as on macOS, where a signal's sender is not known."""
  if hasattr(signal, "sigwaitinfo"):
    del signal.sigwaitinfo
  end_with_the_parent(index, count)


end_with_the_parent = pipeline._end_with_the_parent


def test_a_worker_ends_at_sigterm_where_its_sender_is_not_known(monkeypatch):
  """A worker that cannot tell who sent SIGTERM ends.

  When the training ends, multiprocessing sends SIGTERM and waits for the worker.
  """
  monkeypatch.setattr(pipeline, "_end_with_the_parent", start_as_on_macos)
  before = set(multiprocessing.active_children())
  iterator = train_iterator(make_config(4, workers=1), numbered(10))
  next(iterator)  # wait until the worker has started
  worker, = set(multiprocessing.active_children()) - before
  worker.terminate()
  worker.join(20)
  ended = worker.exitcode
  worker.kill()  # no effect on a worker that has ended
  iterator.close()
  assert ended == -signal.SIGTERM


@pytest.mark.parametrize("count", [1, 4, 7, 8, 9])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_eval_batches_count_everything_once(count, processes):
  source = numbered(count)
  streams = [
      list(eval_batches(source, 4, index, processes)) for index in range(processes)
  ]
  assert {len(stream) for stream in streams} == {-(-count // 4)}
  seen, local = [], -(-min(4, count) // processes)
  for step in zip(*streams, strict=True):
    for images, mask in step:
      assert images.shape == (local, 2, 2, 1) and images.dtype == np.uint8
      assert mask.shape == (local,) and mask.dtype == bool
      assert not images[~mask].any()
      seen.extend(numbers(images[mask]))
  np.testing.assert_array_equal(seen, np.arange(count))


def test_a_batch_larger_than_memory():
  """A batch is not larger than the source, whatever `train.eval_batch_size` is."""
  (images, mask), = eval_batches(numbered(3), 2**31)
  assert len(images) == 3 and mask.all()


def test_eval_batches_of_nothing():
  assert list(eval_batches(numbered(0), 4)) == []
