"""Names of the files in a work directory."""

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
EVALUATION = "evaluation.json"
SAMPLES = "samples"
LOCK = "lock"
