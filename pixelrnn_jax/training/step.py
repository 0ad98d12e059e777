"""The step of one device: pure functions under the axis name `devices`.

`parallel.py` maps them over the devices. Shapes: B images of one device, D
devices, A parts of a device's share that are taken one after the other.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from pixelrnn_jax import likelihood
from pixelrnn_jax.training.state import TrainState

AXIS = "devices"


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    accumulate: int,
    state: TrainState,
    images: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step down the mean negative log-likelihood, in nats per dimension.

      loss = -1 / (D B H W C) sum_n log p(x_n)

  Per dimension, so that gradients have one scale whatever the image's size. The
  gradient of the sum over B images is that of A parts, added up: only the values
  of B / A images are in memory at a time.

  Args:
    model: from `build_model`.
    optimizer: from `make_optimizer`.
    accumulate: A, which divides B.
    state: the same on all devices.
    images: [B, H, W, C] uint8, this device's part of the batch.

  Returns:
    The next state, the same on all devices, and over all devices
      nats: sum of -log p(x), float32 scalar.
      images: how many images, int32 scalar.
      grad_norm: global norm of the gradient before clipping, float32 scalar.
  """
  count, dimensions = images.shape[0], math.prod(images.shape[1:])

  def loss_fn(params, images):
    nats = likelihood.total_nats(model, {"params": params}, images)
    return nats / (count * dimensions), nats

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
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
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
    nats [D B] float32, -log p(x) of each image, and mask [D B] bool.
  """
  nats = -likelihood.log_prob(model, {"params": params}, images)
  return lax.all_gather((nats, mask), AXIS, tiled=True)
