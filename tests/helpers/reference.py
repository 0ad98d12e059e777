"""The paper's equations as plain NumPy loops over single images.

They are written from the paper and use nothing of the package, so that tests can
compare the package with them. Maps are [H, W, F], in float64.
"""

import numpy as np


def group(i, features, channels):
  """Return the channel of feature i out of F features, floor(i C / F)."""
  return (i * channels) // features


def sees(kind, dr, dc, source, target):
  """Return whether a mask keeps the weight at an offset between two groups."""
  if dr < 0 or (dr == 0 and dc < 0):
    return True
  if dr > 0 or dc > 0:
    return False
  return source < target if kind == "A" else source <= target


def masked_conv(x, kernel, bias, kind, channels, blocks=1):
  """Return a masked convolution with a kernel [KH, KW, F, blocks * G]."""
  features = x.shape[-1]
  rows, columns, _, outputs = kernel.shape
  size = outputs // blocks
  weights = np.zeros_like(kernel)
  for i in range(rows):
    for j in range(columns):
      for f in range(features):
        for g in range(outputs):
          source = group(f, features, channels)
          target = group(g % size, size, channels)
          if sees(kind, i - rows // 2, j - columns // 2, source, target):
            weights[i, j, f, g] = kernel[i, j, f, g]
  return conv(x, weights, bias)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def cell(gates, memory):
  """Return h and c' of an LSTM cell.

  [o, f, i, g] = act(gates); c' = f c + i g; h = o tanh(c').
  """
  o, f, i, g = np.split(gates, 4)
  memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
  return sigmoid(o) * np.tanh(memory), memory


def row_lstm(inputs, kernel, hidden0, cell0):
  """Run the Row LSTM on input-to-state maps [H, W, 4h] with a kernel [K, h, 4h]."""
  height, width, _ = inputs.shape
  taps, units, _ = kernel.shape
  hidden = np.zeros((height, width, units))
  memory = np.zeros((height, width, units))
  for r in range(height):
    for c in range(width):
      gates = inputs[r, c].copy()
      for j in range(taps):
        cc = c + j - taps // 2
        if 0 <= cc < width:
          above = hidden[r - 1, cc] if r > 0 else hidden0
          gates += above @ kernel[j]
      before = memory[r - 1, c] if r > 0 else cell0
      hidden[r, c], memory[r, c] = cell(gates, before)
  return hidden


def diagonal_lstm(inputs, kernel, hidden0, cell0):
  """Run one direction of the Diagonal BiLSTM from the top-left corner.

  The kernel [2, h, 4h] holds the weights of the state above and of the state to the
  left.
  """
  height, width, _ = inputs.shape
  units = kernel.shape[1]
  hidden = np.zeros((height, width, units))
  memory = np.zeros((height, width, units))
  for r in range(height):
    for c in range(width):
      above = hidden[r - 1, c] if r > 0 else hidden0
      left = hidden[r, c - 1] if c > 0 else hidden0
      before = memory[r, c - 1] if c > 0 else cell0
      gates = inputs[r, c] + above @ kernel[0] + left @ kernel[1]
      hidden[r, c], memory[r, c] = cell(gates, before)
  return hidden


def diagonal_bilstm(left_inputs, right_inputs, kernel, hidden0, cell0):
  """Run both directions of the Diagonal BiLSTM and add their states.

  The states of the right-to-left direction are shifted down by one row.
  """
  left = diagonal_lstm(left_inputs, kernel[0], hidden0[0], cell0[0])
  mirrored = right_inputs[:, ::-1]
  right = diagonal_lstm(mirrored, kernel[1], hidden0[1], cell0[1])[:, ::-1]
  output = left.copy()
  for r in range(1, len(output)):
    output[r] += right[r - 1]
  return output


def relu(x):
  return np.maximum(x, 0)


def conv(x, kernel, bias):
  """Return an unmasked, zero-padded convolution with a kernel [KH, KW, F, G]."""
  height, width, _ = x.shape
  rows, columns, _, outputs = kernel.shape
  y = np.zeros((height, width, outputs))
  for r in range(height):
    for c in range(width):
      y[r, c] = bias
      for i in range(rows):
        for j in range(columns):
          rr, cc = r + i - rows // 2, c + j - columns // 2
          if 0 <= rr < height and 0 <= cc < width:
            y[r, c] += x[rr, cc] @ kernel[i, j]
  return y


def transposed_conv(x, kernel, bias):
  """Return a transposed convolution of stride f with a kernel [f, f, F, G]."""
  height, width, _ = x.shape
  factor, _, _, outputs = kernel.shape
  y = np.zeros((factor * height, factor * width, outputs)) + bias
  for r in range(height):
    for c in range(width):
      for i in range(factor):
        for j in range(factor):
          y[factor * r + i, factor * c + j] += x[r, c] @ kernel[i, j]
  return y


def subsample(image, factor):
  """Return the middle pixel of each f x f block.

  For an even f it is the lower right one of the four in the middle.
  """
  height, width = image.shape[0] // factor, image.shape[1] // factor
  small = np.zeros((height, width, *image.shape[2:]), image.dtype)
  for r in range(height):
    for c in range(width):
      small[r, c] = image[factor * r + factor // 2, factor * c + factor // 2]
  return small


def upsample(params, small):
  """Return the map that the large image is conditional on.

  It is made of the scaled values of the small image.
  """
  x = relu(conv(small, **params["small"]))
  x = relu(transposed_conv(x, **params["transposed"]))
  return conv(x, **params["large"])


def layer(kind, x, params, channels, condition=None):
  """Return f(x) of one residual layer, from [H, W, 2h] to [H, W, h].

  With a condition [H, W, c], its 1x1 convolution is added to the input-to-state map.
  """
  biases = 0 if condition is None else condition @ params["condition"]["kernel"]

  def one(x, name):
    kernel = params[name]["kernel"][None, None]
    return masked_conv(x, kernel, params[name]["bias"], "B", channels)

  if kind == "pixel_cnn":
    y = relu(one(relu(x), "down"))
    y = masked_conv(y, **params["conv"], kind="B", channels=channels)
    return relu(y + biases)
  recurrent = params["state_to_state"]
  states = (recurrent["kernel"], recurrent["hidden"], recurrent["cell"])
  kernel, bias = params["input_to_state"]["kernel"], params["input_to_state"]["bias"]
  if kind == "row_lstm":
    gates = masked_conv(x, kernel[None], bias, "B", channels, blocks=4) + biases
    return row_lstm(gates, *states)
  gates = masked_conv(x, kernel[None, None], bias, "B", channels, blocks=8) + biases
  return diagonal_bilstm(*np.split(gates, 2, axis=-1), *states)


def logits(config, params, image, small=None):
  """Return all logits [H, W, C, levels] of one image [H, W, C].

  With a small image [H / f, W / f, C], return the logits of the conditional network.
  """
  channels = config.image_shape[2]

  def one(x, name, params):
    kernel = params[name]["kernel"][None, None]
    return masked_conv(x, kernel, params[name]["bias"], "B", channels)

  def scaled(values):
    return 2 * values.astype(np.float64) / (config.levels - 1) - 1

  condition = None if small is None else upsample(params["upsampler"], scaled(small))
  x = scaled(image)
  x = masked_conv(x, **params["first"], kind="A", channels=channels)
  skips = 0
  for number in range(config.layers):
    weights = {
        name: {k: v[number] for k, v in leaves.items()}
        for name, leaves in params["layers"].items()
    }
    features = layer(config.kind, x, weights, channels, condition)
    y = one(features, "up", weights)
    if config.residual:
      y = y + x
    if config.skip:
      skips = skips + one(features, "skip", weights)
    x = y
  x = x + skips
  for name in ("head_0", "head_1", "head_2"):
    x = one(relu(x), name, params)
  x = x.reshape(*x.shape[:2], channels, -1)
  if config.levels == 2:
    x = np.concatenate([np.zeros_like(x), x], axis=-1)
  return x
