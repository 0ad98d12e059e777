"""Tables of results in Markdown, and the machine on which they were measured."""

import datetime
import os
import platform
from collections.abc import Sequence

import jax


def describe_machine() -> str:
  """Return the date, devices, cores and JAX version, which belong to any time."""
  return (
      f"{datetime.date.today()}, {jax.device_count()} x"
      f" {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
      f" ({platform.machine()}), JAX {jax.__version__}"
  )


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Return a Markdown table with aligned columns."""
  widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
  rule = ["-" * width for width in widths]
  return "\n".join(
      "| " + " | ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) + " |"
      for row in [header, rule, *rows])
