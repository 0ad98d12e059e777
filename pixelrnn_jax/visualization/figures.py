"""Diagrams, drawn with Matplotlib.

They show conditional distributions, likelihoods, receptive fields, learning curves and
times of a benchmark.

Shapes: N images, H height, W width, C channels, P pixels.
"""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from pixelrnn_jax import files
from pixelrnn_jax.visualization.captions import Caption

CHANNELS = {1: ("",), 3: ("R", "G", "B")}
_COLOURS = {1: ("0.35",), 3: ("tab:red", "tab:green", "tab:blue")}
_DPI = 110
# Classes of pixels in the picture of a receptive field, by number.
FIELD_CLASSES = ("to come", "before, not seen", "seen")
_FIELD_COLOURS = ("0.78", "white", "#7fa8d9")


def conditionals_figure(
    images: np.ndarray,
    probabilities: np.ndarray,
    pixels: Sequence[tuple[int, int]],
) -> Figure:
  """Draw p(value | all values before it) at some pixels, as in the paper.

  Beside each image with its numbered pixels there is one diagram for each pixel and
  channel. A line in it marks the image's value.

  Args:
    images: integers [N, H, W, C], values 0 to levels - 1.
    probabilities: [N, P, C, levels].
    pixels: (row, column) of the P pixels, the same in every image.
  """
  number, count, channels, levels = probabilities.shape
  figure = Figure(
      (2.3 * (count + 1), number * max(2.3, 1.5 * channels)), dpi=_DPI,
      layout="constrained")
  figure.suptitle(
      "p(value | all values before it); dotted: the image's value", fontsize=9)
  rows = figure.subfigures(number, 1, squeeze=False)[:, 0]
  for image, distributions, row in zip(images, probabilities, rows, strict=True):
    grid = row.add_gridspec(channels, count + 1)
    _draw_image(row.add_subplot(grid[:, 0]), image, levels, pixels)
    for p, (r, c) in enumerate(pixels):
      for channel, colour in enumerate(_COLOURS[channels]):
        _draw_distribution(
            row.add_subplot(grid[channel, p + 1]), distributions[p, channel],
            int(image[r, c, channel]), colour,
            f"{p + 1} {CHANNELS[channels][channel]}".strip())
  return figure


def probabilities_figure(images: np.ndarray, probabilities: np.ndarray) -> Figure:
  """Draw binary images, each beside a map of p(x = 1 | all values before it).

  Args:
    images: integers [N, H, W, C], 0 or 1.
    probabilities: the probabilities of a 1, [N, H, W, C].
  """
  names = [f"p({c or 'x'} = 1 | before)" for c in CHANNELS[images.shape[-1]]]
  return _maps_figure(images, probabilities, names, 2, 1.0, ["image"])


def nll_figure(
    images: np.ndarray, bits: np.ndarray, levels: int, titles: Sequence[str],
    title: str,
) -> Figure:
  """Draw images, each beside a map of -log2 p(value | all values before it).

  Args:
    images: integers [N, H, W, C], values 0 to levels - 1.
    bits: [N, H, W, C]. All maps share one scale of colours.
    levels: number of values.
    titles: the title above each of the N images.
    title: the title above the picture.
  """
  names = [f"{c} bits".strip() for c in CHANNELS[images.shape[-1]]]
  figure = _maps_figure(images, bits, names, levels, bits.max(), titles)
  width = figure.get_figwidth()
  figure.suptitle(_plain(title, int(12 * width)), fontsize=9)
  return figure


def receptive_field_figure(
    fields: Sequence[np.ndarray], names: Sequence[str], pixel: tuple[int, int]
) -> Figure:
  """Draw which pixels the logits of a pixel see, as the paper's Figure 4.

  Each field has a column. Above are the pixels that are seen (blue), those before the
  pixel that are not seen (white), those to come in raster order (grey), and the pixel
  itself (red). Below are the gradients, on a logarithmic scale of their own.

  Args:
    fields: [H, W] of each model, from `receptive_field`. A pixel of 0 is not seen.
    names: the title above each column.
    pixel: (row, column).
  """
  figure = Figure((3.4 * len(fields), 6.6), dpi=_DPI, layout="constrained")
  panels = figure.subplots(2, len(fields), squeeze=False)
  for field, name, (above, below) in zip(fields, names, panels.T, strict=True):
    above.imshow(
        field_classes(field, pixel), cmap=ListedColormap(_FIELD_COLOURS), vmin=0,
        vmax=len(FIELD_CLASSES) - 1, interpolation="nearest")
    above.set_title(_plain(name), fontsize=9)
    seen = field[field > 0]
    low, high = (seen.min(), seen.max()) if seen.size else (0.1, 1.0)
    below.set_facecolor("0.85")
    shown = below.imshow(
        np.ma.masked_equal(field, 0), norm=LogNorm(low, max(high, 1.001 * low)),
        cmap="magma", interpolation="nearest")
    below.set_title("mean |gradient|; grey: exactly 0", fontsize=9)
    figure.colorbar(shown, ax=below, shrink=0.8)
    row, column = pixel
    for panel in (above, below):
      height, width = field.shape
      panel.set_xticks(np.arange(width + 1) - 0.5, minor=True)
      panel.set_yticks(np.arange(height + 1) - 0.5, minor=True)
      panel.grid(which="minor", color="0.6", linewidth=0.3)
      panel.tick_params(which="both", length=0, labelsize=7)
      panel.add_patch(Rectangle(
          (column - 0.5, row - 0.5), 1, 1, fill=panel is above, facecolor="tab:red",
          edgecolor="tab:red", linewidth=1.5))
  handles = [
      Patch(facecolor=colour, edgecolor="0.6", label=name)
      for colour, name in zip(_FIELD_COLOURS, FIELD_CLASSES, strict=True)]
  handles.append(Patch(color="tab:red", label=f"pixel {row},{column}"))
  figure.legend(
      handles=handles[::-1], loc="outside lower center", fontsize=8,
      ncols=2 if len(fields) == 1 else 4)
  return figure


def field_classes(field: np.ndarray, pixel: tuple[int, int]) -> np.ndarray:
  """Return the number of each pixel's class in `FIELD_CLASSES`, [H, W].

  A pixel that is seen is `seen` wherever it lies, because a picture must not hide a
  leak.

  Args:
    field: [H, W].
    pixel: (row, column).
  """
  rows, columns = np.indices(field.shape)
  before = (rows < pixel[0]) | ((rows == pixel[0]) & (columns < pixel[1]))
  return np.where(field > 0, 2, before.astype(int))


def curves_figure(
    curves: Sequence[tuple[str, Sequence, Sequence]], unit: str, title: str,
    label: str = "steps",
) -> Figure:
  """Draw learning curves: thin lines for training, dots for validation.

  Args:
    curves: the name of each run, and its (place, figure) pairs of training and of
      validation. Either may be empty. A place is a number of steps, or what `label`
      says.
    unit: the unit of the figures.
    title: the title above the diagram.
    label: the label below the horizontal axis.
  """
  figure = Figure((8, 5), dpi=_DPI, layout="constrained")
  figure.suptitle(_plain(title, 96), fontsize=9)
  _draw_curves(figure.add_subplot(), curves, unit, label)
  return figure


def ablation_figure(
    figures: Sequence[float], errors: Sequence[float], bounds: Sequence[bool],
    papers: Sequence[float | None], curves: Sequence[tuple[str, Sequence, Sequence]],
    unit: str, title: str,
) -> Figure:
  """Draw the test figure of each run, and the learning curves beside them.

  Args:
    figures: the figures of the runs.
    errors: their standard errors.
    bounds: whether each of them is an upper bound.
    papers: the paper's figure for each run, or None.
    curves: the curves of the runs, see `curves_figure`, in the same order and colours.
    unit: the unit of all figures.
    title: the title above the diagram.
  """
  figure = Figure((12, 3.5 + 0.25 * len(figures)), dpi=_DPI, layout="constrained")
  figure.suptitle(_plain(title, 150), fontsize=9)
  axes, beside = figure.subplots(1, 2)
  places = np.arange(len(figures))
  for place, value, error, bound in zip(
      places, figures, errors, bounds, strict=True):
    axes.errorbar(value, place, xerr=error, fmt="<" if bound else "o", capsize=4,
                  color=f"C{place}")
    axes.annotate(
        f"{'<= ' if bound else ''}{value:.4g}", (value, place), xytext=(0, 7),
        fontsize=8, textcoords="offset points", ha="center")
  known = [(paper, place) for paper, place in zip(papers, places, strict=True)
           if paper is not None]
  if known:
    axes.plot(*zip(*known, strict=True), "kx", label="paper")
    axes.legend(fontsize=8)
  axes.set_yticks(places, [_plain(name) for name, _, _ in curves])
  axes.set_ylim(len(figures) - 0.5, -0.5)
  axes.margins(x=0.15)
  axes.set_xlabel(f"{unit}, test")
  axes.grid(color="0.9")
  axes.spines[["top", "right"]].set_visible(False)
  _draw_curves(beside, curves, unit)
  return figure


def _draw_curves(
    axes: Axes, curves: Sequence[tuple[str, Sequence, Sequence]], unit: str,
    label: str = "steps",
) -> None:
  """Draw learning curves; see `curves_figure`.

  The horizontal axis is logarithmic if a run is more than ten times as long as another.
  """
  styles: dict[str, dict[str, Any]] = {
      "train": dict(linewidth=0.9, alpha=0.7),
      "validation": dict(linewidth=1.8, marker="o", markersize=4)}
  for number, (name, *parts) in enumerate(curves):
    for points, (kind, style) in zip(parts, styles.items(), strict=True):
      if points:
        axes.plot(*np.transpose(points), color=f"C{number}",
                  label=_plain(f"{name}, {kind}"), **style)
  _leave_the_start_out(axes, [
      points for _, *parts in curves for points in parts if points])
  ends = [max(place for points in parts for place, _ in points)
          for _, *parts in curves if any(parts)]
  if max(ends) > 10 * min(ends) > 0:
    axes.set_xscale("log")
  else:
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)
  axes.set_xlabel(label)
  axes.set_ylabel(unit)
  axes.grid(color="0.9")
  axes.spines[["top", "right"]].set_visible(False)
  if len(curves) > 3:  # they would be behind it
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
  else:
    axes.legend(fontsize=8)


def _leave_the_start_out(
    axes: Axes, lines: Sequence[Sequence[tuple[int, float]]]
) -> None:
  """End the vertical axis below the first figures, if they would flatten the rest.

  The first figures are those of the first tenth of each line's own steps. They are left
  out if they are more than twice as high as the range of the rest. The rest of every
  line is inside the diagram, however long and high the other lines are.
  """
  late = []
  for line in lines:
    last = max(step for step, _ in line)
    late += [figure for step, figure in line if step >= last / 10]
  figures = [figure for line in lines for _, figure in line]
  low = min(figures)
  span = max(late) - low
  if span and max(figures) > max(late) + span:
    axes.set_ylim(low - 0.05 * span, max(late) + 0.05 * span)


def times_figure(
    names: Sequence[str],
    seconds: Sequence[float],
    spreads: Sequence[tuple[float, float]],
    floors: Sequence[dict[str, float]],
    title: str,
) -> Figure:
  """Draw times as bars with their spread, each above its floor, part by part.

  Args:
    names: the names of the times.
    seconds: medians.
    spreads: (least, largest) of each.
    floors: seconds of each part of the necessary work, by name, for each time.
    title: the title above the diagram.
  """
  figure = Figure((9, 1.6 + 0.55 * len(names)), dpi=_DPI, layout="constrained")
  axes = figure.add_subplot()
  figure.suptitle(title, fontsize=9)
  places = np.arange(len(names))
  medians = np.asarray(seconds)
  low, high = np.transpose(spreads)
  bars = axes.barh(
      places - 0.2, 1e3 * medians, 0.36, color="0.6", label="measured",
      xerr=1e3 * np.stack([medians - low, high - medians]), capsize=3)
  axes.bar_label(bars, [f"{1e3 * s:.3g} ms" for s in medians], padding=6, fontsize=8)
  left = np.zeros(len(names))
  for part, colour in zip(floors[0], ("tab:blue", "tab:orange", "tab:green"),
                          strict=True):
    width = 1e3 * np.array([floor[part] for floor in floors])
    axes.barh(places + 0.2, width, 0.36, left=left, color=colour,
              label=f"floor: {part}")
    left = left + width
  axes.set_yticks(places, names)
  axes.invert_yaxis()
  axes.margins(x=0.15)
  axes.set_xlabel("ms")
  axes.legend(fontsize=8)
  return figure


def _plain(text: str, width: int | None = None) -> str:
  """Return a user's text, wrapped, with `$` escaped so that it begins no formula."""
  lines = textwrap.wrap(text, width) if width else [text]
  return "\n".join(lines).replace("$", r"\$")


def save_figure(
    figure: Figure, path: str, caption: Caption | None = None, below: bool = False
) -> None:
  """Write a figure as a PNG, as a whole or not at all.

  Args:
    figure: the figure.
    path: the path of the PNG.
    caption: the caption in the PNG's metadata.
    below: whether the caption is also drawn below the figure.
  """
  if caption is not None and below:
    width = int(16 * figure.get_figwidth())
    figure.supxlabel(_plain(str(caption), width), fontsize=7)
  content = io.BytesIO()
  FigureCanvasAgg(figure).print_png(
      content, metadata=None if caption is None else caption.metadata())
  files.write_bytes(path, content.getvalue())


def _maps_figure(
    images: np.ndarray, maps: np.ndarray, names: Sequence[str], levels: int,
    most: float, titles: Sequence[str],
) -> Figure:
  """Draw images, each beside a map of each channel with colours from 0 to `most`.

  Args:
    images: integers [N, H, W, C].
    maps: [N, H, W, C].
    names: the titles above the maps of the C channels.
    levels: the number of levels of the images.
    most: the end of the scale of colours.
    titles: above each image, or one title above each column of images.
  """
  number, _, _, channels = images.shape
  # Up to three images are side by side, so that many images do not make a ribbon.
  across = min(3, number) if channels == 1 else 1
  down = -(-number // across)
  widths = [*[1.0] * (channels + 1), 0.12]  # the last one is a gap
  figure = Figure(
      (2.1 * sum(widths) * across + 0.8, 2.1 * down + 0.3), dpi=_DPI,
      layout="constrained")
  axes = figure.subplots(
      down, across * len(widths), squeeze=False, width_ratios=widths * across)
  for panel in axes.flat:
    panel.set_axis_off()
  panels = axes.reshape(down * across, len(widths))
  if len(titles) == 1:
    titles = [*list(titles) * across, *[""] * (number - across)]
  for n, (row, image, channel_maps) in enumerate(
      zip(panels, images, maps, strict=False)):
    row[0].set_title(titles[n], fontsize=9)
    _draw_image(row[0], image, levels)
    for channel in range(channels):
      shown = row[channel + 1].imshow(
          channel_maps[..., channel], cmap="magma", vmin=0, vmax=most,
          interpolation="nearest")
      if n < across:
        row[channel + 1].set_title(names[channel], fontsize=9)
  figure.colorbar(shown, ax=axes, shrink=min(1, 1.5 / down), pad=0.01)
  return figure


def _draw_image(
    axes: Axes, image: np.ndarray, levels: int, pixels: Sequence[tuple[int, int]] = ()
) -> None:
  """Draw an image [H, W, C], with frames around the numbered pixels."""
  image = image / (levels - 1)
  axes.imshow(
      image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0,
      vmax=1, interpolation="nearest")
  axes.set_axis_off()
  for p, (row, column) in enumerate(pixels):
    for colour, width in (("black", 3.0), ("gold", 1.5)):
      axes.add_patch(Rectangle(
          (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=colour,
          linewidth=width, clip_on=False))
    right = column < image.shape[1] / 2
    axes.annotate(
        str(p + 1), (column + (0.6 if right else -0.6), row), color="gold",
        fontsize=9, fontweight="bold", va="center", ha="left" if right else "right",
        bbox=dict(facecolor="black", alpha=0.6, pad=1, linewidth=0))


def _draw_distribution(
    axes: Axes, probabilities: np.ndarray, value: int, colour: str, name: str
) -> None:
  """Draw probabilities [levels] as steps, with a line at `value`."""
  levels = len(probabilities)
  edges = np.arange(levels + 1) - 0.5
  axes.stairs(probabilities, edges, fill=True, color=colour)
  axes.axvline(value, color="black", linewidth=1, linestyle=":")
  axes.set_xlim(-0.5 - levels / 64, levels - 0.5 + levels / 64)
  axes.set_ylim(0, 1.05 * probabilities.max())
  axes.set_xticks([0, levels // 2, levels - 1])
  axes.locator_params(axis="y", nbins=3)
  axes.set_title(f"{name}: p({value}) = {probabilities[value]:.2g}", fontsize=8)
  axes.tick_params(labelsize=7)
  axes.spines[["top", "right"]].set_visible(False)
