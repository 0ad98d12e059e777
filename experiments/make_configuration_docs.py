"""Write docs/configuration.md: every configuration, and every field with its default.

Run it when a docstring or a field in `pixelrnn_jax/configs/` has changed:

    python experiments/make_configuration_docs.py
"""

if __name__ == "__main__":
  import startup

  startup.begin()

import os

from absl import flags

import command_line
import help_text
from pixelrnn_jax import files

_OUTPUT = flags.DEFINE_string(
    "output", os.path.join(
        os.path.dirname(__file__), "..", "docs", "configuration.md"),
    "The file to write.")


def main() -> None:
  path = os.path.normpath(files.expand(_OUTPUT.value))
  with open(path, "w", encoding="utf-8") as file:
    file.write(help_text.configuration_page())
  print(path)


if __name__ == "__main__":
  command_line.run(main)
