"""The time that calls take."""

import time
from collections.abc import Callable

import jax


def call_seconds(function: Callable[[], object], calls: int) -> list[float]:
  """Return the seconds of each of several calls, one after another.

  The result of a call is waited for before the next one starts. The first call may
  include compilation.

  Args:
    function: without arguments. It may return arrays that are still being computed.
    calls: number of calls.
  """
  seconds = []
  for _ in range(calls):
    start = time.perf_counter()
    jax.block_until_ready(function())
    seconds.append(time.perf_counter() - start)
  return seconds
