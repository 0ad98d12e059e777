"""Paths of users, files of any kind, and locks that do not touch others' files."""

import os
import pathlib

import pytest

from pixelrnn_jax import files
from pixelrnn_jax.errors import InputError


def test_home(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert files.expand("~") == str(tmp_path)
  assert files.expand("~/runs/x") == f"{tmp_path}/runs/x"
  assert files.expand(pathlib.Path("~/runs")) == f"{tmp_path}/runs"
  for path in ("runs/~x", "./~/x", "/a/~", "x~", "", "/"):
    assert files.expand(path) == path
  with pytest.raises(InputError, match="no such user.*./~nobody_of_that_name/x"):
    files.expand("~nobody_of_that_name/x")


def test_only_regular_files_are_opened(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  (tmp_path / "file").write_bytes(b"abc")
  (tmp_path / "link").symlink_to("file")
  (tmp_path / "to_pipe").symlink_to("pipe")
  for name in ("file", "link"):
    with files.open_file(str(tmp_path / name)) as file:
      assert file.read() == b"abc"
  for path in (tmp_path / "pipe", tmp_path / "to_pipe", tmp_path, "/dev/zero"):
    with pytest.raises(OSError):
      files.open_file(str(path))
    with pytest.raises(OSError):
      files.read_text(str(path))
  assert files.read_text(str(tmp_path / "nothing")) == ""


def test_a_file_is_not_written_through_a_link(tmp_path):
  """A file that replaces a link does not change the link's target.

  A work directory of somebody else may hold a link, also by the name of our temporary
  file.
  """
  (tmp_path / "thesis").write_text("precious")
  for name in ("evaluation.json.tmp", "evaluation.json"):
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("thesis")
    files.write_text(str(tmp_path / "evaluation.json"), "figures")
  assert (tmp_path / "thesis").read_text() == "precious"
  assert (tmp_path / "evaluation.json").read_text() == "figures"
  os.mkfifo(tmp_path / "evaluation.json.tmp")
  files.write_text(str(tmp_path / "evaluation.json"), "others")
  assert (tmp_path / "evaluation.json").read_text() == "others"


def test_names_of_the_most_bytes_are_written(tmp_path):
  """Names of 255 bytes, the most that a file may have, are written.

  Letters beyond ASCII take two to four bytes.
  """
  for name in ("x" * 255, "画" * 85, "é" * 127):
    files.write_bytes(str(tmp_path / name), b"content")
    assert (tmp_path / name).read_bytes() == b"content"
  assert len(list(tmp_path.iterdir())) == 3
  with pytest.raises(OSError):
    files.write_bytes(str(tmp_path / ("x" * 256)), b"content")
  assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("content", ["", "process 12 on host", "y\n", "a" * 5000])
def test_a_lock_leaves_what_is_not_its_own(tmp_path, content):
  path = tmp_path / "lock"
  path.write_text(content)
  theirs = not content or content.startswith("process")
  with files.hold_lock(str(path), wait=False):
    inside = path.read_text()
    with pytest.raises(files.LockHeld), files.hold_lock(str(path), wait=False):
      pass
  assert path.read_text() == ("" if theirs else content)
  assert inside.startswith("process") if theirs else inside == content


def test_a_lock_is_no_link_and_no_pipe(tmp_path):
  (tmp_path / "thesis").write_text("")
  (tmp_path / "lock").symlink_to("thesis")
  os.mkfifo(tmp_path / "pipe")
  for name in ("lock", "pipe"):
    with pytest.raises(OSError), files.hold_lock(str(tmp_path / name), wait=True):
      pass
