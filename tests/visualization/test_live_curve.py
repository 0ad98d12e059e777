"""The learning curve that grows in a notebook during training."""

import pytest

import pixelrnn_jax as prnn
from pixelrnn_jax.training import train
from pixelrnn_jax.visualization import live_curve


@pytest.mark.parametrize("seconds, times", [(0, 6), (1e9, 3)])
def test_the_curve_grows(tmp_path, monkeypatch, seconds, times):
  """The curve is drawn at each line, or only at the first one and at validations."""
  config = prnn.load_config("quickstart:smoke")
  config.model.kind, config.model.hidden = "pixel_cnn", 2
  config.data.max_images, config.data.validation_images = 32, 2
  config.train.steps, config.train.log_every, config.train.eval_every = 4, 1, 2
  config.train.checkpoint_every, config.train.samples = 4, 0
  first, updates = [], []

  class Handle:

    def update(self, image):
      updates.append(image.data)

  def display(image, display_id):
    assert display_id is True and not first
    first.append(image.data)
    return Handle()

  monkeypatch.setattr(live_curve, "display", display)
  curve = live_curve.LiveCurve(str(tmp_path), seconds)
  assert not first
  train(config, str(tmp_path), on_metrics=curve)
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert len(lines) == 6  # 4 of training and 2 of validation
  assert len(first + updates) == times
  assert len({*first, *updates}) == len(first + updates)  # each shows more
  assert updates[-1] == (tmp_path / "samples" / "curves.png").read_bytes()


def test_lines_without_a_figure_of_the_whole_are_not_drawn(tmp_path):
  live_curve.LiveCurve(str(tmp_path))({"step": 1, "train/nats_per_image_7x7": 1.0})
  assert not list(tmp_path.iterdir())
