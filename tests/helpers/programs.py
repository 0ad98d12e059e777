"""The programs of experiments/, and what processes of their own import in tests."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
# For `sys.path`: `helpers` and `command_line`.
PATHS = [str(ROOT / "tests"), str(EXPERIMENTS)]
