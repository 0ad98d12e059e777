"""The archives that data sets are made of: found or downloaded, and checked.

TFDS records the address, the size and the SHA-256 of each archive. An archive has one
place, TFDS's directory for files that users get by hand. A user puts it there, or it is
downloaded to there. A download has the name `NAME.part` until its content is checked,
so a file under the archive's name is whole. An interrupted download is continued.
"""

import dataclasses
import hashlib
import http.client
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from tqdm import tqdm

from pixelrnn_jax import progress
from pixelrnn_jax.errors import InputError

_PROBE_SECONDS = 5.0
_READ_SECONDS = 30.0  # seconds without a byte before the connection is given up
_PAUSE_SECONDS = 1.0  # seconds before the next attempt
_ATTEMPTS = 5  # attempts in a row without a new byte before the download is given up
_PIECE = 2**20  # bytes read at a time
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP's codes of 'try again'


@dataclasses.dataclass(frozen=True)
class Archive:
  """An archive in TFDS's record: file name, address, bytes, SHA-256."""

  name: str
  url: str
  size: int
  sha256: str

  def __str__(self) -> str:
    """Return name, size and SHA-256, for messages."""
    return f"{self.name} ({self.size:,} bytes, SHA-256 {self.sha256})"


def recorded(builder: Any, names: list[str]) -> list[Archive]:
  """Return TFDS's record of the archives of these names.

  Args:
    builder: a data set's builder that comes with TFDS.
    names: file names.
  """
  record = {info.filename: (url, info) for url, info in builder.url_infos.items()}
  return [
      Archive(name, url, int(info.size), info.checksum)
      for name in names for url, info in [record[name]]]


@dataclasses.dataclass(frozen=True)
class Needed:
  """The archives that a data set is prepared from.

  Attributes:
    title: the title of the data set, for messages.
    archives: all of them.
    folder: the directory for them.
    advice: a sentence for a user who cannot get them.
    gone: whether their server is known to be gone, so that only users can bring them.
  """

  title: str
  archives: list[Archive]
  folder: str
  advice: str = ""
  gone: bool = False

  def check_reachable(self) -> None:
    """Raise InputError if an archive is missing and its server does not answer."""
    missing = self._missing()
    names = " and ".join(archive.name for archive in missing)
    if missing and self.gone:
      raise InputError(
          f"{self.title} is not prepared, and {names} not in {self.folder}. The server"
          f" of these images is gone: {self._by_hand()}"
      )
    if missing and not any_answers([archive.url for archive in missing]):
      raise InputError(
          f"{self.title} is not prepared, {names} not in {self.folder}, and"
          f" {urllib.parse.urlsplit(missing[0].url).hostname} does not answer. With a"
          " network the same command downloads what it needs. Without one,"
          f" {self._by_hand()}"
      )

  def provide(self) -> None:
    """Check the archives in the folder, and download the others.

    Raises:
      InputError: one cannot be downloaded, or is another file. A download that was
        broken off stays, and the next call continues it.
    """
    missing = self._missing()
    for archive in self.archives:
      if archive not in missing:
        _check(os.path.join(self.folder, archive.name), archive)
    for archive in missing:
      try:
        _download(archive, os.path.join(self.folder, archive.name))
      except InputError as error:
        raise InputError(
            f"{self.title} is not prepared: {error} Or {self._by_hand()}") from error

  def _missing(self) -> list[Archive]:
    """Return the archives that are not in the folder."""
    return [
        archive for archive in self.archives
        if not os.path.isfile(os.path.join(self.folder, archive.name))]

  def _by_hand(self) -> str:
    """Return a sentence on how a user gets the missing archives."""
    missing = self._missing()
    addresses = "" if self.gone else f" from {' and '.join(a.url for a in missing)}"
    return " ".join([
        f"get {' and '.join(map(str, missing))}{addresses}, put"
        f" {'it' if len(missing) == 1 else 'them'} into {self.folder} and start again:"
        " no TensorFlow is needed. If the prepared files are in another directory, pass"
        " --config.data.data_dir=DIR.",
        *([self.advice] if self.advice else [])])


def any_answers(urls: list[str]) -> bool:
  """Return whether a server (or proxy) of `urls` takes a connection within seconds."""
  proxies = urllib.request.getproxies()
  servers = set()
  for url in urls:
    scheme = urllib.parse.urlsplit(url).scheme
    parts = urllib.parse.urlsplit(proxies.get(scheme, url))
    port = parts.port or {"http": 80, "ftp": 21}.get(parts.scheme, 443)
    servers.add((parts.hostname, port))
  answered = threading.Event()

  def connect(server: tuple[str, int]) -> None:
    try:
      socket.create_connection(server, timeout=_PROBE_SECONDS).close()
      answered.set()
    except OSError:
      pass

  # In threads, because looking a name up has no time limit of its own.
  threads = [
      threading.Thread(target=connect, args=(server,), daemon=True)
      for server in servers
  ]
  for thread in threads:
    thread.start()
  deadline = time.monotonic() + _PROBE_SECONDS
  while (
      not answered.is_set() and time.monotonic() < deadline
      and any(thread.is_alive() for thread in threads)
  ):
    time.sleep(0.02)
  return answered.is_set()


def _check(path: str, archive: Archive) -> None:
  """Raise InputError unless the file is the recorded one."""
  found = os.path.getsize(path)
  if found != archive.size:
    raise InputError(
        f"{path} has {found:,} bytes, and TFDS's record says {archive.size:,}: it is"
        " cut short or another file. Get it again."
    )
  if _sha256(path, archive) != archive.sha256:
    raise InputError(
        f"{path} is not the file of TFDS's record: its SHA-256 is not"
        f" {archive.sha256}. Get it again."
    )


def _sha256(path: str, archive: Archive) -> str:
  """Return the SHA-256 of a file, under a progress bar."""
  digest = hashlib.sha256()
  with open(path, "rb") as file, _progress("checking", archive) as bar:
    while piece := file.read(_PIECE):
      digest.update(piece)
      bar.update(len(piece))
  return digest.hexdigest()


def _progress(doing: str, archive: Archive, done: int = 0) -> tqdm:
  """Return a progress bar over an archive's bytes."""
  return progress.bar(
      f"{doing} {archive.name}", archive.size, "B", initial=done, unit_scale=True)


def _download(archive: Archive, path: str) -> None:
  """Download an archive to `path`, or continue with `path.part`.

  Raises:
    InputError: the server has no such file, or another one; the download broke off
      again and again; or the file cannot be written.
  """
  part = f"{path}.part"
  failures, anew = 0, False
  try:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    while True:
      have = os.path.getsize(part) if os.path.exists(part) else 0
      if have > archive.size:
        os.remove(part)
        continue
      if have == archive.size:
        if _sha256(part, archive) == archive.sha256:
          os.replace(part, path)
          return
        os.remove(part)
        if anew:
          raise InputError(
              f"{archive.url} is not the file of TFDS's record: its SHA-256 is not"
              f" {archive.sha256}.")
        anew = True  # an earlier call may have left a part of another file
        continue
      problem = _receive(archive, part, have)
      have_now = os.path.getsize(part) if os.path.exists(part) else 0
      if have_now == archive.size:
        continue
      failures = 0 if have_now > have else failures + 1
      if failures == _ATTEMPTS:
        raise InputError(
            f"the download of {archive.name} broke off after {have_now:,} of"
            f" {archive.size:,} bytes ({problem}). The same command goes on from"
            " there.")
      time.sleep(_PAUSE_SECONDS)
  except OSError as error:
    raise InputError(
        f"{part} cannot be written ({error}). Make room for {archive.size:,} bytes, or"
        " mend what it says.") from error


def _receive(archive: Archive, part: str, have: int) -> str:
  """Append the server's bytes from `have` on to `part`, or begin it anew.

  Returns:
    The reason of an early end, in words. The size of the file tells whether there was
    one.

  Raises:
    InputError: the server has no such file, or another one.
    OSError: `part` cannot be written.
  """
  request = urllib.request.Request(
      archive.url, headers={"Range": f"bytes={have}-"} if have else {})
  try:
    response = urllib.request.urlopen(request, timeout=_READ_SECONDS)
  except urllib.error.HTTPError as error:
    if error.code == 416 and have:  # no such range: `part` is of another file
      os.remove(part)
    elif error.code not in _PASSING:
      raise InputError(
          f"{archive.url} cannot be downloaded: {error.code} {error.reason}."
      ) from error
    return f"{error.code} {error.reason}"
  except (OSError, http.client.HTTPException) as error:
    return str(error)
  with response:
    start = have if response.status == 206 else 0
    if start and not _goes_on(response, archive, have):
      os.remove(part)
      return "the server did not go on where it was asked to"
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and start + int(length) != archive.size:
      raise InputError(
          f"{archive.url} has {start + int(length):,} bytes, and TFDS's record says"
          f" {archive.size:,}: it is another file.")
    with open(part, "ab" if start else "wb") as file, _progress(
        "downloading", archive, start) as bar:
      while start <= archive.size:
        try:
          piece = response.read(min(_PIECE, archive.size + 1 - start))
        except (OSError, http.client.HTTPException) as error:
          return str(error)
        if not piece:
          return "the server closed the connection"
        file.write(piece)
        bar.update(len(piece))
        start += len(piece)
  os.remove(part)
  raise InputError(
      f"{archive.url} has more than the {archive.size:,} bytes of TFDS's record: it is"
      " another file.")


def _goes_on(
    response: http.client.HTTPResponse, archive: Archive, have: int
) -> bool:
  """Return whether a response is the archive from byte `have` on."""
  last = archive.size - 1
  pattern = rf"bytes {have}-{last}/(?:{archive.size}|\*)"
  return bool(re.fullmatch(pattern, response.headers.get("Content-Range", "")))
