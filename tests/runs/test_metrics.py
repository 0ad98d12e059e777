import glob
import json
import os
import resource
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from pixelrnn_jax.runs.metrics import (
  MetricsWriter,
  read_metrics,
  thin,
  training_minutes,
)


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def read_events(folder):
  """Return the events of the one TensorBoard file in a folder.

  An event is stored as its length, a CRC, the event and another CRC.
  """
  path, = folder.glob("events.out.tfevents.*")
  content, events = path.read_bytes(), []
  while content:
    length, = struct.unpack("<Q", content[:8])
    events.append(Event.FromString(content[12:12 + length]))
    content = content[16 + length:]
  return events


def test_events_for_tensorboard(tmp_path):
  with MetricsWriter(str(tmp_path), 4) as metrics:
    metrics.write(5, {"a": 1.5, "b": 2.5}, "digits")
    found = [  # before the writer is closed
        (event.step, value.tag, value.simple_value)
        for event in read_events(tmp_path) for value in event.summary.value]
  assert found == [(5, "a", 1.5), (5, "b", 2.5)]
  version, start = read_events(tmp_path)[:2]
  assert version.file_version == "brain.Event:2"
  # A session that starts at step 5 discards what a killed run wrote from step 5 on.
  assert start.step == 5 and start.session_log.status == start.session_log.START


# Python tells that it could not write what was left, when it closes the file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_leaves_no_file_open(tmp_path):
  """A writer on a full disk leaves no file open.

  This also holds when somebody keeps the error, and with it the writer. Orbax does so.
  """

  def write(metrics):
    with metrics:
      metrics.write(1, {"a": 1.5}, "digits")

  metrics = MetricsWriter(str(tmp_path), 0)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    with pytest.raises(OSError, match="File too large") as kept:
      write(metrics)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  paths = [os.readlink(link) for link in glob.glob("/proc/self/fd/*")
           if os.path.exists(link)]
  assert [path for path in paths if path.startswith(str(tmp_path))] == []
  assert kept.value.__traceback__ is not None


def test_lines_carry_step_figures_and_data(tmp_path):
  with MetricsWriter(str(tmp_path), 0) as metrics:
    metrics.write(5, {"train/nats_per_image": 1.5}, "digits")
    metrics.write(5, {"validation/nats_per_image": 2.5}, "digits, validation")
  assert read(tmp_path / "metrics.jsonl") == [
      {"step": 5, "train/nats_per_image": 1.5, "data": "digits"},
      {"step": 5, "validation/nats_per_image": 2.5, "data": "digits, validation"},
  ]
  assert list(tmp_path.glob("events.out.tfevents.*"))


@pytest.mark.parametrize("damage", [
    lambda text: text.rstrip("\n"),  # as some editors do
    lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace("\n", "\n\n"),
    lambda text: text + '{"step": 1' + "0" * 400 + "}\n",
    lambda text: text + "[" * 100_000,
    lambda text: text + '{"step": NaN}',
    lambda text: text + '{"step": "1"}\n',
    lambda text: text + '{"step": true}\n',
    lambda text: text + '{"step": -Infinity}\n',
    lambda text: text + '{"step": 1, "train/nats_per_image": 1' + "0" * 400 + "}\n"])
def test_a_line_that_was_tampered_with_spoils_no_other(tmp_path, damage):
  path = tmp_path / "metrics.jsonl"
  with MetricsWriter(str(tmp_path), 0) as metrics:
    for step in (1, 2):
      metrics.write(step, {"a": step}, "\u2028 \x85")
  path.write_bytes(damage(path.read_text()).encode())
  assert [line["a"] for line in read_metrics(str(tmp_path))] == [1, 2]
  with MetricsWriter(str(tmp_path), 2) as metrics:
    metrics.write(3, {"a": 3}, "")
  assert [line["a"] for line in read(path)] == [1, 2, 3]
  assert [line["a"] for line in read_metrics(str(tmp_path))] == [1, 2, 3]


@pytest.mark.parametrize("between", [
    "", " ", '{"step": 2, "a": 1', '{"step": 1, "data": "', "\x00" * 5, "\ufffd"])
def test_lines_that_are_glued_together_are_read(tmp_path, between):
  """Lines that were joined together are read separately.

  An older version appended to a line that had no end.
  """
  path = tmp_path / "metrics.jsonl"
  text = '{"step\\": 9} {"step": 9}\n'  # JSON escapes it, so no line starts there
  with MetricsWriter(str(tmp_path), 0) as metrics:
    for step in (1, 2, 3):
      metrics.write(step, {"a": step}, text)
  first, second, third = path.read_text().splitlines()
  path.write_text(f"{first}{between}{second}{third}\n")
  assert [line["a"] for line in read_metrics(str(tmp_path))] == [1, 2, 3]
  with MetricsWriter(str(tmp_path), 2):
    pass
  assert read(path) == [{"step": n, "a": n, "data": text} for n in (1, 2)]


def test_resuming_drops_later_and_broken_lines(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with MetricsWriter(str(tmp_path), 0) as metrics:
    for step in (1, 2, 3, 4):
      metrics.write(step, {"a": step}, "")
  with open(path, "ab") as file:
    file.write(b'{}\n[]\nnull\n{"step": "x"}\n\xff\xfe\n{"step": 2, "a"')
  with MetricsWriter(str(tmp_path), 2) as metrics:
    metrics.write(3, {"a": 30.0}, "")
  assert [(line["step"], line["a"]) for line in read(path)] == [
      (1, 1), (2, 2), (3, 30)]


def test_minutes_follow_from_the_speeds():
  lines = [
      {"step": 10, "train/nats_per_image": 9.0},  # with compilation, so no speed
      {"step": 20, "train/images_per_second": 2.0},
      {"step": 20, "validation/nats_per_image": 8.0},
      {"step": 50, "train/images_per_second": 1.0}]
  # These are 20 steps of 6 images at 2 images/s, then 30 steps at 1 image/s.
  assert training_minutes(lines, 6) == [0, 1, 1, 4]


def test_a_thinned_curve_is_the_same_curve():
  lines = []
  for step in range(10, 1001, 10):
    lines.append({
        "step": step, "train/nats_per_image": 1000.0 - step,
        "train/images_per_second": 10.0 if step <= 500 else 40.0,
        "train/grad_norm": 1.0, "data": "digits"})
    if step % 250 == 0:
      lines.append({"step": step, "validation/nats_per_image": 5.0, "data": "others"})
  few = thin(lines, 4, points=10)
  validations = [line for line in few if "validation/nats_per_image" in line]
  assert validations == [line for line in lines if "validation/nats_per_image" in line]
  train = [line for line in few if line not in validations]
  assert [line["step"] for line in train] == [
      100, 200, 250, 350, 450, 500, 600, 700, 750, 850, 950, 1000]
  # The first value is the mean of 1000 - step over the steps 10, 20, ... 100. The third
  # one is the mean over 210, ... 250.
  assert [line["train/nats_per_image"] for line in train][:4] == [945, 845, 770, 695]
  ends = {line["step"]: now for line, now in zip(
      lines, training_minutes(lines, 4), strict=True)}
  assert training_minutes(few, 4) == pytest.approx([ends[line["step"]] for line in few])
