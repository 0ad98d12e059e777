"""From a source to batches: endless for training, once over for evaluation.

A global batch of B images is split over the processes in contiguous slices of
B / process_count images. Joined in the order of the processes, the slices are the batch
that a single process would read. So the run does not depend on the number of processes.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import cast

import grain
import numpy as np
from absl import flags

from pixelrnn_jax.configs.schema import Config
from pixelrnn_jax.data import augment, binarize
from pixelrnn_jax.data.sources import ImageSource
from pixelrnn_jax.errors import InputError


def train_iterator(
    config: Config, source: ImageSource, process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
  """Return shuffled training batches without end.

  They follow from `config.train.seed`. The images come in one endless order: all of
  them shuffled, all of them shuffled anew, and so on. Step k takes images k B to
  (k + 1) B of that order. So every image is used once an epoch, and a batch may reach
  from one epoch into the next. With `data.augmentation` an image is changed anew each
  time it is used.

  The state of the iterator is saved and restored with
  `grain.checkpoint.CheckpointSave(iterator)` and `CheckpointRestore`. It belongs to one
  seed, batch size, number of workers and number of processes. Grain does not notice
  another seed or batch size.

  Args:
    config: a checked configuration. `train.seed`, `train.batch_size`,
      `data.augmentation` and `data.workers` are used.
    source: the training images.
    process_index: this process's index.
    process_count: number of processes that train together.

  Returns:
    An iterator over uint8 [B / process_count, H, W, C]. With workers, `close()` it.

  Raises:
    InputError: `train.batch_size` cannot be split over the processes, or the
      source is empty.
  """
  batch_size = _local_batch_size(
      "train.batch_size", config.train.batch_size, process_index, process_count)
  if not len(source):
    raise InputError(f"{source.description}: there are no images to train on.")
  # The seed is hashed, because Grain seeds epoch e with seed + e. Otherwise seeds 0 and
  # 1 would share epochs.
  # The first of these numbers do not depend on how many are asked for: the order and
  # the bits of a run are the same with and without augmentation.
  shuffle_seed, draw_seed, augment_seed = (
      int(seed) for seed in np.random.SeedSequence(config.train.seed).generate_state(3)
  )
  images = source if source.intensities is None else source.intensities
  indexed = cast(grain.sources.RandomAccessDataSource, images)
  dataset = grain.MapDataset.source(indexed).shuffle(seed=shuffle_seed).repeat()
  if source.intensities is not None:
    dataset = dataset.random_map(binarize.dynamic, seed=draw_seed)
  if config.data.augmentation != "none":
    dataset = dataset.random_map(
        augment.RULES[config.data.augmentation], seed=augment_seed)
  # An endless data set has no remainder; Grain fails at batch size 1 without this.
  dataset = dataset.batch(batch_size, drop_remainder=True)
  dataset = dataset[process_index::process_count]
  threads = 0 if source.in_memory else 8
  dataset = dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
  if config.data.workers:
    if not flags.FLAGS.is_parsed():  # in a notebook; Grain's workers read its flags
      flags.FLAGS.mark_as_parsed()
    dataset = dataset.mp_prefetch(
        grain.MultiprocessingOptions(
            num_workers=config.data.workers, per_worker_buffer_size=4),
        worker_init_fn=_end_with_the_parent)
  iterator = iter(dataset)
  if config.data.workers:
    _start_workers(iterator)
  return iterator


def lost_worker(error: RuntimeError) -> bool:
  """Return whether the training iterator failed because a worker process was killed."""
  return "Worker process was terminated unexpectedly" in str(error)


def eval_batches(
    source: ImageSource, batch_size: int, process_index: int = 0,
    process_count: int = 1,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Return batches of every image once, in order.

  All processes take the same number of steps. The last batch is filled up with zeros,
  and the mask leaves them out. To evaluate, sum and count under the mask over batches
  and processes, then divide once.

  Args:
    source: the images.
    batch_size: B, over all processes. It is smaller if there are fewer images.
    process_index: this process's index.
    process_count: number of processes that evaluate together.

  Returns:
    An iterator over (images, mask), uint8 [B / process_count, H, W, C] and bool
    [B / process_count], True for real images.

  Raises:
    InputError: the batch size cannot be split over the processes.
  """
  # Few images are one batch.
  batch_size = min(batch_size, -(-max(1, len(source)) // process_count) * process_count)
  local = _local_batch_size("batch_size", batch_size, process_index, process_count)

  def batches():
    shape = source[0].shape if len(source) else ()
    for first in range(0, len(source), batch_size):
      start = first + process_index * local
      read = [source[i] for i in range(start, min(start + local, len(source)))]
      images = np.zeros((local, *shape), np.uint8)
      if read:
        images[:len(read)] = read
      yield images, np.arange(local) < len(read)

  return batches()


def _start_workers(iterator: grain.DatasetIterator) -> None:
  """Start the worker processes, out of reach of SIGINT and SIGTERM.

  Ctrl-C and batch systems send these signals to the whole group of processes, but the
  training process alone decides what follows. A process inherits its parent's blocked
  signals, so they are blocked while a worker is still importing. What a worker then
  does about SIGTERM is in `_end_with_the_parent`.
  """
  iterator.get_state()  # makes the iterators, and multiprocessing's own process
  blocked = signal.pthread_sigmask(
      signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
  try:
    iterator.start_prefetch()
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _end_with_the_parent(index: int, count: int) -> None:
  """End a worker process when the training process was killed, or ends it.

  It runs in the worker, whose SIGINT and SIGTERM are blocked (`_start_workers`). Only
  the training process's own SIGTERM may end the worker. Where the sender of a signal is
  not known, as on macOS, any SIGTERM ends it: a worker that ignored them all would keep
  the training process waiting at its exit.
  """
  del index, count
  parent = multiprocessing.parent_process()

  def watch() -> None:
    if parent is not None:
      parent.join()
    os._exit(1)

  def obey() -> None:
    """End it at the parent's own SIGTERM, which multiprocessing sends at its exit."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
      pass
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
  if hasattr(signal, "sigwaitinfo"):
    threading.Thread(target=obey, daemon=True).start()
  else:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _local_batch_size(
    name: str, batch_size: int, process_index: int, process_count: int
) -> int:
  """Return a process's share of a batch."""
  if not 0 <= process_index < process_count:
    raise InputError(
        f"process_index={process_index} with process_count={process_count}: must"
        " be from 0 to process_count - 1."
    )
  if batch_size < 1 or batch_size % process_count:
    raise InputError(
        f"{name}={batch_size} cannot be split evenly over {process_count}"
        f" processes: use a positive multiple of {process_count}."
    )
  return batch_size // process_count
