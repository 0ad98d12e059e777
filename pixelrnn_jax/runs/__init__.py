"""Runs: a run's state, and the files of its work directory."""
