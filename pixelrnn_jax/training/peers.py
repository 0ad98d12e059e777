"""Notices at once when another of several processes is gone.

JAX does so after its heartbeat's timeout of minutes, and then aborts. A process that
is killed closes its connections: each process keeps one with process 0 and does
nothing but wait for its end.
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
  """A context in which the end of another process is noticed.

  All processes enter it together. One that leaves it without an error, or
  interrupted as all of them are, says so to the others, who then do not take it for
  lost. Where no connection can be made, nothing is watched.

  Args:
    host: the address of process 0; None asks the system for its name.
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
  """Tells the others that this process ends as it should."""
  for connection in connections.values():
    with contextlib.suppress(OSError):
      connection.sendall(_GOODBYE)


def _wait(index: int, connection: socket.socket, lost: Callable[[int], None]) -> None:
  """Waits for the end of a connection."""
  try:
    said = connection.recv(1)
  except OSError:
    said = b""
  if said != _GOODBYE:
    lost(index)


def _connect(host: str | None) -> dict[int, socket.socket]:
  """The connections of this process, by the index of the other one."""
  server, address = None, ("", 0)
  if jax.process_index() == 0:
    with contextlib.suppress(OSError):
      host = socket.gethostbyname(host or socket.gethostname())
      server = socket.create_server((host, 0), backlog=jax.process_count())
      server.settimeout(_SECONDS)
      address = server.getsockname()
  # As numbers, which is all that processes can exchange.
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
