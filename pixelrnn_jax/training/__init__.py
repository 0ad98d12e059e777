"""Training: state, step, devices, checkpoints, metrics, the loop."""

from pixelrnn_jax.training.evaluation import Evaluation, evaluate_run
from pixelrnn_jax.training.loop import train
from pixelrnn_jax.training.restore import restore

__all__ = ["Evaluation", "evaluate_run", "restore", "train"]
