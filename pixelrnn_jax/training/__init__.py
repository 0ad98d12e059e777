"""Training: the step, devices, evaluation, the loop."""

from pixelrnn_jax.training.evaluation import Evaluation, evaluate_run
from pixelrnn_jax.training.loop import train

__all__ = ["Evaluation", "evaluate_run", "train"]
