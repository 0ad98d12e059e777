"""Noticing at once when another of several processes is gone.

JAX notices after its heartbeat's timeout of minutes, and then aborts. But the system
closes the connections of a process that is killed. So each process keeps a connection
with process 0, and waits for its end.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from pixelrnn_jax.errors import Interrupted

_GOODBYE = b"."
_SECONDS = 10.0  # for the connections to be made


@contextlib.contextmanager
def watch(host: str | None, lost: Callable[[int], None]) -> Iterator[None]:
  """Watch the other processes within this context.

  All processes must enter it together. A process that leaves it without an error, or
  because all are interrupted, tells the others, which then do not take it for lost. If
  no connection can be made, nothing is watched.

  Args:
    host: the address of process 0. None asks the system for its name.
    lost: called with the index of a process that is gone, in a thread of its own.
  """
  connections = _connect(host)
  for index, connection in connections.items():
    threading.Thread(
        target=_wait, args=(index, connection, lost), daemon=True).start()
  try:
    yield
  except Interrupted:
    _part(connections)
    raise
  _part(connections)


def _part(connections: dict[int, socket.socket]) -> None:
  """Tell the others that this process ends as it should."""
  for connection in connections.values():
    with contextlib.suppress(OSError):
      connection.sendall(_GOODBYE)


def _wait(index: int, connection: socket.socket, lost: Callable[[int], None]) -> None:
  """Wait for the end of a connection, and call `lost` if it came without a goodbye."""
  try:
    said = connection.recv(1)
  except OSError:
    said = b""
  if said != _GOODBYE:
    lost(index)


def _connect(host: str | None) -> dict[int, socket.socket]:
  """Return the connections of this process, by the index of the other process."""
  server, address = None, ("", 0)
  if jax.process_index() == 0:
    with contextlib.suppress(OSError):
      host = socket.gethostbyname(host or socket.gethostname())
      server = socket.create_server((host, 0), backlog=jax.process_count())
      server.settimeout(_SECONDS)
      address = server.getsockname()
  # Processes can exchange only numbers.
  packed = np.zeros(6, np.int32)
  if address[1]:
    packed[:] = [*socket.inet_aton(address[0]), *divmod(address[1], 256)]
  packed = multihost_utils.broadcast_one_to_all(packed)
  if not packed.any():
    return {}
  connections = {}
  with contextlib.suppress(OSError):
    if server:
      with server:
        for _ in range(jax.process_count() - 1):
          connection, _ = server.accept()
          connection.settimeout(_SECONDS)
          index = int.from_bytes(connection.recv(4), "big")
          connection.settimeout(None)
          connections[index] = connection
    else:
      address = socket.inet_ntoa(bytes(packed[:4].tolist()))
      port = int(packed[4]) * 256 + int(packed[5])
      connection = socket.create_connection((address, port), _SECONDS)
      connection.settimeout(None)
      connection.sendall(jax.process_index().to_bytes(4, "big"))
      connections[0] = connection
  return connections
