"""The step of one device: pure functions under the axis name `devices`.

`parallel.py` maps them over the devices.

Shapes: B images of one device, D devices, A parts of a device's share of the batch that
are taken one after the other, S scales (1 for most models).
"""

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import PyTree

from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.models import Model
from pixelrnn_jax.runs.state import TrainState, by_scale, join_scales, trained_scales

AXIS = "devices"


def train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    accumulate: int,
    scale: int,
    state: TrainState,
    images: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Take one step down the mean negative log-likelihood, in nats per dimension.

      loss = -1 / (D B H W C) sum_n log p(x_n)

  The loss is per dimension, so that gradients have one scale whatever the image's size.
  The loss of a multi-scale model is the sum of the scales' losses, each over its own
  dimensions. The scales share no parameter, and each has its own optimiser. So training
  them together or one by one on the same batches is the same.

  The gradients of A parts are added up, so that the values of only B / A images are in
  memory at a time.

  Args:
    model: from `build_model`.
    optimizer: from `make_optimizer`.
    accumulate: A, which divides B.
    scale: the scale that is trained; -1 trains all. The others stay as they are.
    state: the same on all devices.
    images: uint8 [B, H, W, C], this device's part of the batch.

  Returns:
    The next state, the same on all devices, and metrics over all devices:
      nats: sum of -log p(x) of each scale that is trained, float32 [S].
      images: number of images, int32 scalar.
      grad_norm: global norm of the gradient before clipping, float32 scalar.
  """
  trained = trained_scales(model.config, scale)
  shapes = model.config.scale_shapes()
  count = images.shape[0]

  def loss_fn(params, images):
    nats = jax.tree.leaves(
        likelihood.total_nats(model, {"params": params}, images))
    losses = [nats[s] / (count * math.prod(shapes[s])) for s in trained]
    return sum(losses), jnp.stack([nats[s] for s in trained])

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
  # The mean is taken of the gradients. Inside loss_fn it would be transposed into
  # another sum over the devices.
  grads = lax.pmean(grads, AXIS)
  metrics = {
      "nats": lax.psum(nats, AXIS),
      "images": lax.psum(images.shape[0], AXIS),
      "grad_norm": optax.tree.norm(grads),
  }

  params, opt_states, gradients = (
      by_scale(model, tree) for tree in (state.params, state.opt_state, grads))
  with jax.named_scope("optimizer"):
    for s in trained:
      updates, opt_states[s] = optimizer.update(gradients[s], opt_states[s], params[s])
      params[s] = optax.apply_updates(params[s], updates)
  return TrainState(
      join_scales(model, params), join_scales(model, opt_states), state.step + 1
  ), metrics


def eval_step(
    model: Model, params: PyTree, images: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Return the negative log-likelihoods of a batch, gathered from all devices.

  Every image's figure goes to the host, where sums are in float64. A variance from
  float32 sums of squares would lose its digits.

  Args:
    model: from `build_model`.
    params: the same on all devices.
    images: uint8 [B, H, W, C], this device's part of the batch.
    mask: bool [B], False for padding.

  Returns:
    -log p(x) of each image and scale, float32 [D B, S], and the mask, bool [D B].
  """
  nats = -likelihood.log_prob_by_scale(model, {"params": params}, images)
  return lax.all_gather((nats, mask), AXIS, tiled=True)
