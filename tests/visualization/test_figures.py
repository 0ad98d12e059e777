"""Figures: they show the numbers that they are given."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle, StepPatch
from PIL import Image

from pixelrnn_jax.visualization import figures


@pytest.mark.parametrize("channels, names", [(1, [""]), (3, [" R", " G", " B"])])
@pytest.mark.parametrize("levels", [4, 256])
def test_conditionals(tmp_path, channels, names, levels):
  rng = np.random.default_rng(0)
  images = rng.integers(0, levels, (2, 5, 7, channels), np.uint8)
  pixels = [(0, 0), (4, 6), (2, 3)]
  probabilities = rng.dirichlet(np.ones(levels), (2, 3, channels))
  figure = figures.conditionals_figure(images, probabilities, pixels)

  assert len(figure.axes) == 2 * (1 + 3 * channels)
  for image, image_probabilities, axes in zip(
      images, probabilities, np.split(np.array(figure.axes), 2), strict=True):
    shown = np.asarray(axes[0].images[0].get_array()).reshape(image.shape)
    np.testing.assert_allclose(shown, image / (levels - 1))
    frames = [p for p in axes[0].patches if isinstance(p, Rectangle)]
    corners = {(p.get_y() + 0.5, p.get_x() + 0.5) for p in frames}
    assert corners == set(pixels)
    assert [text.get_text() for text in axes[0].texts] == ["1", "2", "3"]
    places = [(p, c) for p in range(3) for c in range(channels)]
    for (p, c), panel in zip(places, axes[1:], strict=True):
      steps, = (x for x in panel.patches if isinstance(x, StepPatch))
      np.testing.assert_array_equal(steps.get_data().values, image_probabilities[p, c])
      np.testing.assert_array_equal(
          steps.get_data().edges, np.arange(levels + 1) - 0.5)
      value = image[*pixels[p], c]
      line, = panel.lines
      assert set(line.get_xdata()) == {value}
      assert panel.get_title() == (
          f"{p + 1}{names[c]}: p({value}) = {image_probabilities[p, c, value]:.2g}")
      assert panel.get_ylim()[1] > image_probabilities[p, c].max()

  figures.save_figure(figure, str(tmp_path / "a.png"))
  assert Image.open(tmp_path / "a.png").width == round(2.3 * 4 * 110)
  assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number, channels, across", [
    (1, 1, 1), (2, 1, 2), (5, 1, 3), (2, 3, 1)])
def test_probabilities(number, channels, across):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 2, (number, 4, 3, channels), np.uint8)
  probabilities = rng.random(images.shape)
  figure = figures.probabilities_figure(images, probabilities)
  panels = [axes for axes in figure.axes if axes.images]
  assert len(panels) == number * (1 + channels) and len(figure.axes) > len(panels)
  for n in range(number):
    image, *maps = panels[n * (1 + channels):(n + 1) * (1 + channels)]
    shown = np.asarray(image.images[0].get_array())
    np.testing.assert_array_equal(shown.reshape(images[n].shape), images[n])
    for c, panel in enumerate(maps):
      drawn = panel.images[0]
      np.testing.assert_array_equal(drawn.get_array(), probabilities[n, ..., c])
      assert drawn.get_clim() == (0, 1)  # makes colours comparable
  titles = [axes.get_title() for axes in figure.axes]
  assert titles.count("image") == across


def test_times():
  floors = [{"products": 0.010, "bytes": 0.002, "tanh": 0.001},
            {"products": 0.004, "bytes": 0.0, "tanh": 0.0}]
  figure = figures.times_figure(
      ["scan", "step"], [0.02, 0.008], [(0.015, 0.03), (0.007, 0.009)], floors,
      "a title")
  axes, = figure.axes
  assert [t.get_text() for t in axes.get_yticklabels()] == ["scan", "step"]
  measured, *parts = (
      c for c in axes.containers if hasattr(c, "patches"))
  np.testing.assert_allclose([bar.get_width() for bar in measured], [20, 8])
  ends = np.zeros(2)
  for part, name in zip(parts, floors[0], strict=True):
    np.testing.assert_allclose([bar.get_x() for bar in part], ends)
    ends = ends + [1e3 * floor[name] for floor in floors]
  np.testing.assert_allclose([bar.get_x() + bar.get_width() for bar in parts[-1]], ends)


@pytest.mark.parametrize("number, channels, levels", [(5, 1, 2), (2, 3, 256)])
def test_nll(number, channels, levels):
  rng = np.random.default_rng(0)
  images = rng.integers(0, levels, (number, 4, 3, channels), np.uint8)
  bits = rng.exponential(2.0, images.shape)
  titles = [f"image {n}" for n in range(number)]
  figure = figures.nll_figure(images, bits, levels, titles, "some data")
  assert figure.get_suptitle() == "some data"
  panels = [axes for axes in figure.axes if axes.images]
  assert len(panels) == number * (1 + channels)
  for n in range(number):
    image, *maps = panels[n * (1 + channels):(n + 1) * (1 + channels)]
    assert image.get_title() == titles[n]
    shown = np.asarray(image.images[0].get_array()).reshape(images[n].shape)
    np.testing.assert_allclose(shown, images[n] / (levels - 1))
    for c, panel in enumerate(maps):
      np.testing.assert_array_equal(panel.images[0].get_array(), bits[n, ..., c])
      assert panel.images[0].get_clim() == (0, bits.max())


def test_receptive_field():
  # Row 2 and the pixel (1, 3) are in the future of (1, 2). If the model sees them, the
  # figure must show it.
  field = np.array([[0, 1e-6, 2, 0], [3, 0, 0, 0.5], [0, 0, 4, 0]])
  empty = np.zeros((3, 4))
  figure = figures.receptive_field_figure([field, empty], ["one", "none"], (1, 2))
  above, _, below, nothing = figure.axes[:4]
  classes = np.asarray(above.images[0].get_array())
  names = np.array(figures.FIELD_CLASSES)[classes]
  before, to_come, seen = "before, not seen", "to come", "seen"
  assert names.tolist() == [
      [before, seen, seen, before],
      [seen, before, to_come, seen],
      [to_come, to_come, seen, to_come]]
  shown = below.images[0].get_array()
  np.testing.assert_array_equal(shown.mask, field == 0)
  np.testing.assert_array_equal(shown.filled(0), field)
  assert nothing.images[0].get_array().mask.all()
  for axes in (above, below):
    frame, = axes.patches
    assert (frame.get_y() + 0.5, frame.get_x() + 0.5) == (1, 2)
  assert above.get_title() == "one"
  # The legend has the colours of the pixels.
  colours = {
      text.get_text(): patch.get_facecolor() for text, patch in zip(
          figure.legends[0].texts, figure.legends[0].get_patches(), strict=True)}
  drawn = above.images[0].to_rgba(classes)
  for name in figures.FIELD_CLASSES:
    np.testing.assert_allclose(drawn[names == name], [colours[name]] * (
        names == name).sum())


def test_curves():
  runs = [("a", [(1, 5.0), (2, 4.0)], [(2, 4.5)]), ("b", [], [(3, 1.0), (6, 0.5)])]
  figure = figures.curves_figure(runs, "nats", "of what")
  axes, = figure.axes
  drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
  assert drawn == {
      "a, train": [[1, 5], [2, 4]], "a, validation": [[2, 4.5]],
      "b, validation": [[3, 1], [6, 0.5]]}
  colours = [line.get_color() for line in axes.lines]
  assert colours[0] == colours[1] != colours[2]
  assert axes.get_ylabel() == "nats" and figure.get_suptitle() == "of what"


@pytest.mark.parametrize("length, scale", [(1_000, "linear"), (1_001, "log")])
def test_runs_of_very_different_lengths(length, scale):
  curves = [(name, [(1, 5.0), (end, 4.0)], []) for name, end in
            (("a", 100), ("b", length), ("c", 200), ("d", 300))]
  axes, = figures.curves_figure(curves, "nats", "title").axes
  assert axes.get_xscale() == scale
  # With many runs, the legend is beside the diagram.
  assert axes.get_legend().get_bbox_to_anchor().x0 >= axes.bbox.x1


@pytest.mark.parametrize("first, cut", [(500.0, True), (101.0, False)])
def test_the_start_of_a_curve_does_not_flatten_the_rest(first, cut):
  train = [(1, first), *((step, 101 - step / 100) for step in range(10, 101))]
  figure = figures.curves_figure([("a", train, [(100, 98.0)])], "nats", "title")
  low, high = figure.axes[0].get_ylim()
  assert low < 98 and 100.9 < high < 104
  assert (high < first) == cut
  drawn = figure.axes[0].lines[0].get_xydata()
  np.testing.assert_allclose(drawn, train)


@pytest.mark.parametrize("steps", [10, 100, 10_000])
@pytest.mark.parametrize("worse", [3.0, 250.0, 1e5])
def test_no_run_is_outside_the_axis(steps, worse):
  """The axis shows the late part of each line, whatever its length and level."""
  good = [(step, 100 + 400 / step) for step in range(1, 101)]
  other = [(step * steps // 10, worse + 50 / step) for step in range(1, 11)]
  figure = figures.curves_figure(
      [("good", good, good[-1:]), ("other", other, other[:1])], "nats", "title")
  low, high = figure.axes[0].get_ylim()
  for line in figure.axes[0].lines:
    late = [y for x, y in line.get_xydata() if x >= line.get_xdata().max() / 10]
    assert low < min(late) and max(late) < high, line.get_label()


def test_names_of_users_are_no_formulas(tmp_path):
  """Dollar signs in the names of users are not read as mathematics.

  Matplotlib reads `$x$` as mathematics, and fails if it is not valid.
  """
  curves = [("a$x^^$", [(1, 2.0), (2, 1.0)], [(2, 1.5)]), ("b$", [(1, 2.0)], [])]
  figure = figures.curves_figure(curves, "nats", r"folder /home/$x^^$y (3 images)")
  figures.save_figure(figure, str(tmp_path / "a.png"))
  assert figure.get_suptitle().replace("\\$", "$").startswith("folder /home/$x^^$y")
  errors = [0.1, np.nan]  # a single image has no standard error
  figure = figures.ablation_figure([1.0, 2.0], errors, [False, False], [None, None],
                                   curves, "nats", "$")
  figures.save_figure(figure, str(tmp_path / "b.png"))
