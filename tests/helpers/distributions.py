"""Images of a small space, and a test of how often each one is drawn."""

import itertools

import numpy as np


def every_image(shape, levels):
  """Return all images [N, H, W, C] of a shape [H, W, C], in a fixed order."""
  size = int(np.prod(shape))
  values = itertools.product(range(levels), repeat=size)
  return np.array(list(values), np.uint8).reshape(-1, *shape)


def chi_square(counts, probabilities):
  """Return how far Pearson's statistic is above its mean, in standard deviations."""
  expected = counts.sum() * probabilities
  # Rare outcomes are pooled, which makes the statistic nearly normal.
  common = expected >= 10
  pool = lambda x: np.append(x[common], x[~common].sum())  # noqa: E731
  counts, expected = pool(counts), pool(expected)
  keep = expected > 0
  counts, expected = counts[keep], expected[keep]
  degrees = len(counts) - 1
  statistic = ((counts - expected) ** 2 / expected).sum()
  return (statistic - degrees) / np.sqrt(2 * degrees)


def index_of(images, levels):
  """Return the position of each image in `every_image`."""
  flat = images.reshape(len(images), -1).astype(np.int64)
  return flat @ (levels ** np.arange(flat.shape[1])[::-1])
