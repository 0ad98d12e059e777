"""Progress: a bar on a terminal or in a notebook, plain lines in a log."""

import io
import os
import pty
import re
import subprocess
import sys
import termios
import types

import pytest

from pixelrnn_jax import progress

PROGRAM = """
import time
from pixelrnn_jax import progress
progress.LINE_INTERVAL = 0.2
with progress.bar("training", 6, "steps", leave=True) as bar:
  progress.LINE_INTERVAL = 1000  # however slow the machine is, validation is short
  for step in range(6):
    time.sleep(0.1)
    bar.set_postfix_str("82.00 nats/image", refresh=False)
    bar.update()
    for _ in progress.bar("validating", 3, "batches", range(3)):
      time.sleep(0.05)
    progress.say(f"step {step}: validation")
progress.say("test: 82.000 nats/image")
"""


def test_a_log_has_plain_lines(tmp_path):
  with open(tmp_path / "log", "wb") as log:
    subprocess.run([sys.executable, "-c", PROGRAM], stdout=log, stderr=log, check=True)
  text = (tmp_path / "log").read_bytes().decode("ascii")
  assert not re.search(r"[\r\x1b\t]| $|  ", text, re.MULTILINE)
  lines = text.splitlines()
  bars = [line for line in lines if line.startswith("training")]
  assert all(re.fullmatch(
      r"training: \d/6 steps \(\d+%\), \d\d:\d\d elapsed, (\d\d:\d\d|\?) left"
      r"(, 82\.00 nats/image)?", line) for line in bars)
  assert len(bars) >= 2 and bars[-1].startswith("training: 6/6 steps (100%)")
  # Short tasks have no line of progress. No line is joined to another one.
  assert sorted(set(lines) - set(bars)) == sorted(
      [*(f"step {n}: validation" for n in range(6)), "test: 82.000 nats/image"])


@pytest.mark.parametrize("terminal, moves", [("xterm", True), ("dumb", False)])
def test_a_terminal_has_a_bar(terminal, moves):
  leader, follower = pty.openpty()
  termios.tcsetwinsize(follower, (24, 80))
  process = subprocess.Popen(
      [sys.executable, "-c", PROGRAM], stdout=follower, stderr=follower,
      env=os.environ | {"TERM": terminal})
  os.close(follower)
  text = b""
  try:
    while piece := os.read(leader, 4096):
      text += piece
  except OSError:  # Linux ends a terminal with this error
    pass
  assert process.wait() == 0
  # The terminal itself ends lines with "\r\n".
  assert (b"\r" in text.replace(b"\r\n", b"\n")) == moves
  assert b"6/6" in text and b"test: 82.000 nats/image\r\n" in text


class Place:
  """A stand-in for the handle that `IPython.display.display` returns."""

  def __init__(self, content):
    self.texts = [content["text/plain"]]

  def update(self, content, raw):
    assert raw
    self.texts.append(content["text/plain"])


@pytest.fixture
def notebook(monkeypatch):
  """Return the places of a notebook's bars in order, and the kernel."""
  places = []

  def display(content, raw, display_id):
    assert raw and display_id
    places.append(Place(content))
    return places[-1]

  kernel = types.SimpleNamespace(kernel=object(), execution_count=1)
  monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(
      display=types.SimpleNamespace(display=display), get_ipython=lambda: kernel))
  monkeypatch.setattr(progress, "BAR_INTERVAL", 0.0)
  return places, kernel


def run_cell():
  with progress.bar("training", 4, "steps", leave=True) as bar:
    for _ in range(4):
      bar.update()
      for _ in progress.bar("validating", 2, "batches", range(2)):
        pass


def test_a_notebook_has_a_bar_in_one_place(notebook, capsys):
  places, kernel = notebook
  run_cell()
  training, validating = places  # all validations share a place
  assert training.texts[-1].startswith("training: 100%") and "4/4" in training.texts[-1]
  assert validating.texts[-1] == ""  # no old text remains
  assert validating.texts.count("") == 4
  kernel.execution_count = 2  # another cell has other places
  run_cell()
  assert len(places) == 4
  assert capsys.readouterr() == ("", "")
  assert not any(set("\r\n\x1b") & set("".join(place.texts)) for place in places)


def test_several_bars_at_once_have_places_of_their_own(notebook):
  places, _ = notebook
  with progress.bar("a", 2, "x") as first, progress.bar("b", 2, "x") as second:
    first.update()
    second.update()
  assert [place.texts[0].split(":")[0] for place in places] == ["a", "b"]
  with progress.bar("c", 2, "x"), progress.bar("d", 2, "x"):
    pass
  assert len(places) == 2
  assert [place.texts[-1] for place in places] == ["", ""]


def test_without_stderr_there_is_no_bar(monkeypatch, capsys):
  monkeypatch.setattr(sys, "stderr", None)
  assert list(progress.bar("a", 3, "x", range(3))) == [0, 1, 2]


def test_text_for_a_narrow_encoding(monkeypatch):
  narrow = io.TextIOWrapper(io.BytesIO(), "ascii")
  monkeypatch.setattr(sys, "stderr", narrow)
  monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
  for _ in progress.bar("decoding", 3, "images", range(3)):
    pass
  narrow.flush()
  assert b"decoding: 3/3 images" in narrow.buffer.getvalue()
