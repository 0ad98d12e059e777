"""The step of one device: pure functions under the axis name `devices`.

`parallel.py` maps them over the devices. Shapes: B images of one device, D
devices, A parts of a device's share that are taken one after the other, S scales (1
for most models).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.runs.state import TrainState, trained_scales

AXIS = "devices"


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    accumulate: int,
    scale: int,
    state: TrainState,
    images: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step down the mean negative log-likelihood, in nats per dimension.

      loss = -1 / (D B H W C) sum_n log p(x_n)

  Per dimension, so that gradients have one scale whatever the image's size. Of a
  multi-scale model it is the sum of the scales' losses, each over its own
  dimensions. As the scales share no parameter and each has its own optimiser, to
  train them together or one by one on the same batches is the same.

  The gradient of the sum over B images is that of A parts, added up: only the
  values of B / A images are in memory at a time.

  Args:
    model: from `build_model`.
    optimizer: from `make_optimizer`.
    accumulate: A, which divides B.
    scale: the one that is trained, -1 for all; the others stay as they are.
    state: the same on all devices.
    images: [B, H, W, C] uint8, this device's part of the batch.

  Returns:
    The next state, the same on all devices, and over all devices
      nats: sum of -log p(x) of each scale that is trained, float32 [S].
      images: how many images, int32 scalar.
      grad_norm: global norm of the gradient before clipping, float32 scalar.
  """
  trained = trained_scales(model.config, scale)
  shapes = model.config.scale_shapes()
  count = images.shape[0]

  def loss_fn(params, images):
    nats = jax.tree.leaves(
        likelihood.total_nats(model, {"params": params}, images))
    loss = sum(nats[s] / (count * math.prod(shapes[s])) for s in trained)
    return loss, jnp.stack([nats[s] for s in trained])

  gradient = jax.grad(loss_fn, has_aux=True)
  if accumulate == 1:
    grads, nats = gradient(state.params, images)
  else:
    parts = images.reshape(accumulate, -1, *images.shape[1:])
    zeros = jax.tree.map(
        jnp.zeros_like, jax.eval_shape(gradient, state.params, parts[0]))
    grads, nats = lax.fori_loop(
        0, accumulate,
        lambda i, sums: jax.tree.map(
            jnp.add, sums, gradient(state.params, parts[i])),
        zeros)
  # The mean is taken of the gradients: inside loss_fn it would be transposed
  # into another sum over the devices.
  grads = lax.pmean(grads, AXIS)
  metrics = {
      "nats": lax.psum(nats, AXIS),
      "images": lax.psum(images.shape[0], AXIS),
      "grad_norm": optax.tree.norm(grads),
  }

  def update(params, grads, opt_state):
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  if model.config.multi_scale:
    params, opt_state = dict(state.params), dict(state.opt_state)
    for name in (model.parameter_names[s] for s in trained):
      params[name], opt_state[name] = update(
          params[name], grads[name], opt_state[name])
  else:
    params, opt_state = update(state.params, grads, state.opt_state)
  return TrainState(params, opt_state, state.step + 1), metrics


def eval_step(
    model: nn.Module, params, images: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Negative log-likelihoods of a batch, gathered from all devices.

  Every image's figure goes to the host, where sums are in float64: a variance
  from float32 sums of squares would lose its digits.

  Args:
    model: from `build_model`.
    params: the same on all devices.
    images: [B, H, W, C] uint8, this device's part of the batch.
    mask: [B] bool, False for padding.

  Returns:
    nats [D B, S] float32, -log p(x) of each image and scale, and mask [D B] bool.
  """
  nats = -likelihood.log_prob_by_scale(model, {"params": params}, images)
  return lax.all_gather((nats, mask), AXIS, tiled=True)
