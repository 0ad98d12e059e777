"""Runs: a run's state, and what its work directory holds."""
