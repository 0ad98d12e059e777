"""Fail unless the installed versions are those of a file of constraints.

The file is the argument:

    python .ci/check_versions.py .ci/colab_tpu.txt
"""

import importlib.metadata
import pathlib
import sys

lines = pathlib.Path(sys.argv[1]).read_text().splitlines()
wanted = dict(line.split("==") for line in lines if line and line[0] != "#")
replaced = [
    f"{name} {version} became {found}" for name, version in wanted.items()
    if (found := importlib.metadata.version(name)) != version]
if replaced or not wanted:
  sys.exit(f"error: {sys.argv[1]}: {'; '.join(replaced) or 'names nothing'}")
