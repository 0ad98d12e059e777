"""Names of the files in a work directory, and the folder for pictures of no run."""

import os

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
EVALUATION = "evaluation.json"
SAMPLES = "samples"
LOCK = "lock"

PICTURES = os.path.join("runs", "pictures")
