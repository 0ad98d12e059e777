"""Downloads from a local server that sometimes fails."""

import contextlib
import hashlib
import http.server
import os
import re
import threading

import numpy as np
import pytest

from helpers.archives import cifar_files, record, write_tar_gz
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.data import archives, load_source
from pixelrnn_jax.errors import InputError

NAME = "file.bin"
CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(http.server.ThreadingHTTPServer):
  """A server that sends `content` at every path, and fails as told.

  `plan` lists how to answer the next requests. `cut N` sends N bytes and closes the
  connection. `ignore` ignores the range that was asked for. `wrong` sends a range that
  starts at another byte. A number is sent as an HTTP status. `ranges` records the first
  byte of each range that was asked for, or None for a request without a range.
  """

  def __init__(self, content):
    super().__init__(("127.0.0.1", 0), Handler)
    self.content, self.plan, self.ranges = content, [], []
    self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):

  def do_GET(self):
    content = self.server.content
    plan = self.server.plan.pop(0) if self.server.plan else ""
    match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
    start = int(match[1]) if match else None
    self.server.ranges.append(start)
    if plan.isdigit():
      self.send_error(int(plan))
      return
    if start is not None and start >= len(content):
      self.send_error(416)
      return
    if plan == "wrong":
      start -= 10
    if plan == "ignore" or start is None:
      start = 0
      self.send_response(200)
    else:
      self.send_response(206)
      last = len(content) - 1
      self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
    if plan != "no length":
      self.send_header("Content-Length", str(len(content) - start))
    self.end_headers()
    body = content[start:]
    if plan.startswith("cut"):
      body = body[:int(plan.split()[1])]
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
      self.wfile.write(body)

  def log_message(self, *args):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setattr(archives.urllib.request, "getproxies", dict)
  monkeypatch.setattr(archives, "_PAUSE_SECONDS", 0.01)
  with Server(CONTENT) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def needed(server, folder, content=CONTENT, gone=False):
  digest = hashlib.sha256(content).hexdigest()
  archive = archives.Archive(
      NAME, f"{server.address}/{NAME}", len(content), digest)
  return archives.Needed("tfds:x", [archive], str(folder), gone=gone)


@pytest.mark.parametrize("plan, ranges", [
    ([], [None]),
    (["cut 1000", "cut 50000"], [None, 1000, 51000]),
    (["cut 1000", "ignore"], [None, 1000]),
    (["cut 1000", "wrong"], [None, 1000, None]),
    (["503", "cut 7"], [None, None, 7]),
    (["no length"], [None]),
    (["cut 0"] * 4, [None] * 5),
])
def test_a_download_goes_on(server, tmp_path, plan, ranges):
  server.plan = list(plan)
  data = needed(server, tmp_path / "new" / "folder")
  data.check_reachable()
  data.provide()
  assert (tmp_path / "new" / "folder" / NAME).read_bytes() == CONTENT
  assert server.ranges == ranges
  assert os.listdir(tmp_path / "new" / "folder") == [NAME]
  data.provide()  # the file is there and right
  assert server.ranges == ranges


def test_another_process_goes_on(server, tmp_path):
  server.plan = ["cut 120000"] + ["cut 0"] * 5
  with pytest.raises(InputError) as error:
    needed(server, tmp_path).provide()
  assert re.search(
      r"tfds:x is not prepared: the download of file.bin broke off after 120,000 of"
      r" 300,000 bytes \(.*\). The same command goes on from there. Or get file.bin"
      r" \(300,000 bytes, SHA-256 [0-9a-f]{64}\) from http.*, put it into",
      str(error.value))
  assert os.listdir(tmp_path) == [f"{NAME}.part"]
  server.ranges.clear()
  needed(server, tmp_path).provide()
  assert server.ranges == [120_000]
  assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [
    bytes(1000), bytes(300_000), bytes(300_001), b""], ids=len)
def test_what_is_left_of_another_file_is_begun_anew(server, tmp_path, left):
  (tmp_path / f"{NAME}.part").write_bytes(left)
  needed(server, tmp_path).provide()
  assert (tmp_path / NAME).read_bytes() == CONTENT
  assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize("content, plan, message", [
    (CONTENT, ["404"], f"http.*/{NAME} cannot be downloaded: 404 Not Found"),
    (CONTENT[:-1], [], f"{NAME} has 299,999 bytes, and TFDS's record says 300,000"),
    (CONTENT + b"x", ["no length"], "has more than the 300,000 bytes of TFDS's record"),
    (CONTENT[:-1] + b"x", [], "is not the file of TFDS's record: its SHA-256"),
])
def test_another_file_is_refused(server, tmp_path, content, plan, message):
  server.content, server.plan = content, plan
  with pytest.raises(InputError, match=f"{message}.*Or get file.bin"):
    needed(server, tmp_path).provide()
  assert not os.listdir(tmp_path)
  assert len(server.ranges) <= 2


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
  monkeypatch.setattr(archives, "_READ_SECONDS", 0.05)
  monkeypatch.setattr(Handler, "do_GET", lambda self: threading.Event().wait(0.5))
  with pytest.raises(InputError, match="broke off after 0 of 300,000.*timed out"):
    needed(server, tmp_path).provide()


def test_a_full_disk(server, tmp_path):
  os.symlink("/dev/full", tmp_path / f"{NAME}.part")
  with pytest.raises(InputError, match="No space left.*Make room for 300,000 bytes"):
    needed(server, tmp_path).provide()


def test_no_network(server, tmp_path):
  server.shutdown()
  server.server_close()
  data = needed(server, tmp_path)
  with pytest.raises(InputError) as error:
    data.check_reachable()
  message = str(error.value)
  for words in (
      "tfds:x is not prepared, file.bin not in", "127.0.0.1 does not answer",
      f"put it into {tmp_path}", "300,000 bytes, SHA-256", f"{server.address}/{NAME}"):
    assert words in message
  with pytest.raises(InputError, match="server of these images is gone"):
    needed(server, tmp_path, gone=True).check_reachable()
  (tmp_path / NAME).write_bytes(CONTENT)
  data.check_reachable()
  data.provide()


def test_cifar10_from_its_server(server, tmp_path, monkeypatch):
  """The first start downloads and prepares CIFAR-10; later ones only read it."""
  folder = tmp_path / "theirs"
  folder.mkdir()
  path = folder / "cifar-10-binary.tar.gz"
  write_tar_gz(path, cifar_files("cifar10", 12))
  server.content = path.read_bytes()
  server.plan = ["cut 5000"]
  record(monkeypatch, "cifar10", folder, server.address)
  config = load_config("row_lstm_cifar10")
  config.data.data_dir = str(tmp_path / "data")
  config.data.validation_images = 5
  assert len(load_source(config, "train")) == 55
  assert server.ranges == [None, 5000]
  assert len(load_source(config, "test")) == 12
  assert len(server.ranges) == 2
