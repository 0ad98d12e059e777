import json

from pixelrnn_jax.training.metrics import MetricsWriter


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_carry_step_figures_and_data(tmp_path):
  with MetricsWriter(str(tmp_path), 0) as metrics:
    metrics.write(5, {"train/nats_per_image": 1.5}, "digits")
    metrics.write(5, {"validation/nats_per_image": 2.5}, "digits, validation")
  assert read(tmp_path / "metrics.jsonl") == [
      {"step": 5, "train/nats_per_image": 1.5, "data": "digits"},
      {"step": 5, "validation/nats_per_image": 2.5, "data": "digits, validation"},
  ]
  assert list(tmp_path.glob("events.out.tfevents.*"))


def test_resuming_drops_later_and_broken_lines(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with MetricsWriter(str(tmp_path), 0) as metrics:
    for step in (1, 2, 3, 4):
      metrics.write(step, {"a": step}, "")
  with open(path, "a") as file:
    file.write('{"step": 2, "a"')
  with MetricsWriter(str(tmp_path), 2) as metrics:
    metrics.write(3, {"a": 30.0}, "")
  assert [(line["step"], line["a"]) for line in read(path)] == [
      (1, 1), (2, 2), (3, 30)]
