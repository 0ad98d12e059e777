"""Masks, compared entry by entry with their definition."""

import numpy as np
import pytest

from helpers.reference import group, sees
from pixelrnn_jax import ops


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("features", [3, 4, 7, 128, 512, 1024])
def test_groups_are_contiguous_and_differ_by_one(features, channels):
  groups = ops.channel_groups(features, channels)
  assert groups.tolist() == [group(i, features, channels) for i in range(features)]
  assert (np.diff(groups) >= 0).all()
  sizes = np.bincount(groups, minlength=channels)
  assert sizes.min() >= 1 and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 3), (7, 5)])
def test_every_entry(kind, channels, shape):
  features, outputs, blocks = 5, 4, 4
  mask = ops.conv_mask(kind, shape, features, outputs, channels, blocks)
  assert mask.shape == (*shape, features, blocks * outputs)
  for i, j, f, g in np.ndindex(mask.shape):
    expected = sees(
        kind, i - shape[0] // 2, j - shape[1] // 2,
        group(f, features, channels), group(g % outputs, outputs, channels))
    assert mask[i, j, f, g] == expected


@pytest.mark.parametrize("hidden", [16, 128, 385])
def test_the_gates_of_a_unit_see_the_same(hidden):
  mask = ops.conv_mask("B", (1, 1), 2 * hidden, hidden, 3, blocks=4)[0, 0]
  for gate in np.split(mask, 4, axis=-1)[1:]:
    np.testing.assert_array_equal(gate, mask[:, :hidden])


def test_masks_cannot_be_changed():
  with pytest.raises(ValueError):
    ops.conv_mask("A", (3, 3), 3, 3, 3)[0, 0, 0, 0] = False


@pytest.mark.parametrize("arguments, message", [
    (("C", (3, 3), 3, 3, 3), "'A' or 'B'"),
    (("A", (2, 3), 3, 3, 3), "must be odd"),
    (("B", (1, 1), 2, 3, 3), "at least as many features as channels"),
])
def test_bad_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    ops.conv_mask(*arguments)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("features", [3, 7, 1024])
def test_slices_are_the_groups(features, channels):
  groups = ops.channel_groups(features, channels)
  for channel, part in enumerate(ops.group_slices(features, channels)):
    assert np.flatnonzero(groups == channel).tolist() == list(
        range(part.start, part.stop))
