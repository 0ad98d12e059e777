"""The optimisers, RMSProp and Muon, and the schedule of their learning rates.

The transformations are Optax's own. This file puts them together to an optimiser, and
tells Muon which axes of a kernel are the rows and the columns of a matrix.
"""

import jax
import optax
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers, muon

from pixelrnn_jax.configs.schema import TO_THE_END, Config, OptimizerConfig
from pixelrnn_jax.errors import InputError

# The share of an orthogonal matrix that Muon applies, so that an entry of its
# update is as large as one of Adam's (arXiv 2502.16982, section 2.2).
_RMS = 0.2


def check_schedule(config: Config) -> None:
  """Raise InputError if the learning rate would be 0 before the last step."""
  end, steps = config.optimizer.decay_steps, config.train.steps
  one_scale = config.train.scale >= 0
  if end == TO_THE_END and one_scale:
    raise InputError(
        "optimizer.decay_steps=-1 ends the decay with train.steps, which count the"
        " steps of all scales. With train.scale, set optimizer.decay_steps to the steps"
        " of this scale."
    )
  if 0 < end < steps and not one_scale:
    raise InputError(
        f"optimizer.decay_steps={end}: the learning rate would be 0 from there to"
        f" train.steps={steps}. Use optimizer.decay_steps=-1, which ends the decay with"
        " train.steps, or 0 for a constant rate."
    )


def decay_end(config: OptimizerConfig, steps: int) -> int:
  """Return the step at which the decay ends; 0 for a constant rate."""
  return steps if config.decay_steps == TO_THE_END else config.decay_steps


def make_schedule(
    config: OptimizerConfig, steps: int, learning_rate: float | None = None
) -> optax.Schedule:
  """Return the learning rate as a function of the steps taken so far.

      rate(t) = learning_rate * t / warmup_steps                   t < warmup_steps
      rate(t) = learning_rate                                      decay_steps = 0
      rate(t) = learning_rate * (1 + cos(pi u)) / 2                a cosine decay
      rate(t) = learning_rate * (1 - u)                            a linear one
      u = (t - warmup_steps) / (decay_steps - warmup_steps), at most 1

  Args:
    config: checked; see `OptimizerConfig`.
    steps: `train.steps`, at which the decay ends if `decay_steps` is -1.
    learning_rate: the highest rate. The default is `config.learning_rate`.

  Returns:
    A function of the number of steps taken so far, t = 0, 1, ...
  """
  rate = config.learning_rate if learning_rate is None else learning_rate
  warmup = config.warmup_steps
  end = decay_end(config, steps)
  length = max(end - warmup, 1)
  if not end:
    schedule = optax.constant_schedule(rate)
  elif config.decay_shape == "linear":
    schedule = optax.linear_schedule(rate, 0.0, length)
  else:
    schedule = optax.cosine_decay_schedule(rate, length)
  if warmup:
    rise = optax.linear_schedule(0.0, rate, warmup)
    schedule = optax.join_schedules([rise, schedule], [warmup])
  return schedule


def make_optimizer(
    config: OptimizerConfig, steps: int
) -> optax.GradientTransformation:
  """Return the optimiser that `config.name` names, after an optional clipping.

      g <- g min(1, clip_norm / |g|)            |g| the norm of all gradients

  Args:
    config: checked; see `OptimizerConfig`.
    steps: `train.steps`; see `make_schedule`.
  """
  make = {"rmsprop": _rmsprop, "muon": _muon}[config.name]
  optimizer = make(config, steps)
  if not config.clip_norm:
    return optimizer
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)


def _rmsprop(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
  """Return RMSProp, the paper's optimiser (section 5.2).

      v <- decay v + (1 - decay) g^2
      d = rate(t) g / (sqrt(v / (1 - decay^(t + 1))) + epsilon)
      m <- momentum m + d
      w <- w - m

  The paper says only that the rate is set by hand for each data set. The other defaults
  are ours. With a decay of 0.95, v follows the gradient over about 20 steps. Without
  the division by 1 - decay^(t + 1), the first step would be 1 / sqrt(1 - decay) times
  too long.
  """
  return optax.rmsprop(
      make_schedule(config, steps),
      decay=config.decay,
      eps=config.epsilon,
      eps_in_sqrt=False,
      momentum=config.momentum or None,
      bias_correction=True,
  )


def _muon(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
  """Return Muon for the kernels, and Adam for all other parameters.

  Muon (Jordan, 2024; arXiv 2502.16982) takes each kernel as a matrix with n rows
  (taps and input features) and k columns (output features):

      m <- beta m + (1 - beta) g
      n = beta m / (1 - beta^(t + 2)) + (1 - beta) g / (1 - beta^(t + 1))
      U S V^T = n                               its singular value decomposition
      w <- w - rate(t) (0.2 sqrt(max(n, k)) U V^T + weight_decay w)

  U V^T is approximated by five Newton-Schulz iterations. Every direction of the
  update has the same length, so rare directions learn as fast as common ones.

  Biases, initial states and the kernel of the logits go to Adam with Nesterov's
  momentum (`optax.adamw`), with `adam_learning_rate`, b1 = 0.9 and `adam_b2`.

  The orthogonal update of a masked kernel is not zero at the weights that the mask
  hides. They have no effect, because a mask is applied at each use of a kernel.
  """
  adam_rate = config.adam_learning_rate or config.learning_rate
  return muon(
      make_schedule(config, steps),
      beta=config.beta,
      weight_decay=config.weight_decay,
      adam_learning_rate=make_schedule(config, steps, adam_rate),
      adam_b2=config.adam_b2,
      muon_weight_dimension_numbers=kernel_axes,
      consistent_rms=_RMS,
  )


def kernel_axes(params: PyTree) -> PyTree:
  """Return which axes of each kernel are the rows and the columns of its matrix.

  A kernel has the axes [batch ..., taps ..., inputs, outputs]. The batch axes are the
  layers and, in the Diagonal BiLSTM's state-to-state kernel, the directions: each of
  their entries is a matrix of its own. Taps and inputs together are the rows.

  Args:
    params: the parameters of a network, or a tree of the same names and shapes.

  Returns:
    A tree of `MuonDimensionNumbers`, and None for a parameter that is not Muon's.
  """

  def axes(path, x):
    names = [key.key for key in path]
    if names[-1] != "kernel" or names[-2] == "head_2":
      return None
    batch = int("layers" in names)
    if names[-2] == "state_to_state":  # [layers, (directions,) taps, h, 4h]
      batch = x.ndim - 3
    return MuonDimensionNumbers(tuple(range(batch, x.ndim - 1)), (x.ndim - 1,))

  return jax.tree.map_with_path(axes, params)
