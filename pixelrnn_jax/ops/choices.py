"""Which of several ways an operation is computed: the defaults of each backend.

No choice alters a value or a gradient, except by rounding. What is fast on a CPU is
slow elsewhere, so each backend has its own defaults. docs/speed.md has the figures.

- Those of a CPU are measured.
- Those of a GPU were measured one by one on an H200, in training steps of networks of 2
  layers. The Row LSTM's baseline varied by a third between its runs, so the smaller
  differences from it may be chance. Three defaults were changed after that
  (`gates_gradient`, `saved`, `unroll`). `head_products` and `state_to_state` were added
  unmeasured. Today's defaults together were not measured.
- Those of a TPU are what the compiler's estimates say; no TPU has run them yet.
"""

import dataclasses

import jax

AUTO = "auto"
# The backends that JAX names by their maker are GPUs.
_GPUS = ("gpu", "cuda", "rocm")

OPTIONS = {
    "state_to_state": ("move_first", "multiply_first"),
    "gates_gradient": ("select", "concatenate"),
    "kernel_gradient": ("in_scan", "after_scan"),
    "saved": ("wide", "narrow"),
    "row_start": ("slice", "select"),
    "skew": ("reshape", "concatenate"),
    "convolution": ("products", "xla"),
    "head_products": ("masked", "visible"),
    "logits": ("together", "by_channel"),
}


@dataclasses.dataclass(frozen=True)
class Choices:
  """How to compute what can be computed in several ways.

  `auto`, and 0 of a number, are the backend's defaults.

  Attributes:
    state_to_state: how an LSTM's forward scan computes the product with K_ss.
      `move_first` puts the hidden states that a position sees side by side, and
      multiplies them. `multiply_first` multiplies each hidden state by the kernels of
      all taps, and moves the products to the positions that see it.
    gates_gradient: how the gradients of h and c become that of an LSTM's gates.
      `select` picks one of them for each gate. `concatenate` puts them side by side,
      which XLA does not vectorise on a CPU.
    kernel_gradient: where the gradient of an LSTM's K_ss is computed. `in_scan` sums it
      up in the reverse scan. `after_scan` is one product after that.
    saved: dtype of the derivatives of h and c that an LSTM's forward scan saves. `wide`
      is at least float32. `narrow` is the dtype of the products.
    row_start: how the Diagonal BiLSTM starts a row. `slice` writes the initial state to
      the row that starts. `select` lets every row select between the initial state and
      the state before; the gradient of the initial state is summed up after the scan.
    skew: how a map is skewed. `reshape` pads the map and reads it as rows of another
      length. `concatenate` puts its padded rows side by side; it has a gradient of its
      own, for reverse mode only.
    convolution: how a masked convolution is computed. `products` is one matrix product
      for each tap. `xla` is XLA's convolution.
    head_products: how the head's 1 x 1 convolutions are computed. `masked` is one
      product with the masked kernel. `visible` is a product for each channel, with
      the part of the kernel that the mask shows it.
    logits: how the training loss takes the logits. `together` is one array for all
      channels, [..., C, levels]. `by_channel` is an array for each channel.
    unroll: number of steps of an LSTM in one iteration of the compiled loop.
    images_per_strip: largest number of images side by side in the Diagonal BiLSTM's
      skewed map.
  """

  state_to_state: str = AUTO
  gates_gradient: str = AUTO
  kernel_gradient: str = AUTO
  saved: str = AUTO
  row_start: str = AUTO
  skew: str = AUTO
  convolution: str = AUTO
  head_products: str = AUTO
  logits: str = AUTO
  unroll: int = 0
  images_per_strip: int = 0

  def resolve(self, backend: str | None = None) -> "Choices":
    """Return the choices with the backend's defaults in place of `auto` and 0.

    Args:
      backend: `cpu`, `gpu` or `tpu`. None is JAX's default backend. Another one has
        the defaults of a GPU.
    """
    backend = backend or jax.default_backend()
    defaults = DEFAULTS.get("gpu" if backend in _GPUS else backend, DEFAULTS["gpu"])
    return dataclasses.replace(defaults, **{
        name: value for name, value in vars(self).items() if value not in (AUTO, 0)})


BY_BACKEND = Choices()

DEFAULTS = {
    "cpu": Choices(
        state_to_state="move_first", gates_gradient="select",
        kernel_gradient="in_scan", saved="wide", row_start="slice", skew="reshape",
        convolution="products", head_products="visible", logits="by_channel", unroll=1,
        images_per_strip=8),
    "gpu": Choices(
        state_to_state="multiply_first", gates_gradient="select",
        kernel_gradient="after_scan", saved="narrow", row_start="select",
        skew="reshape", convolution="products", head_products="masked",
        logits="by_channel", unroll=32, images_per_strip=1),
    "tpu": Choices(
        state_to_state="move_first", gates_gradient="concatenate",
        kernel_gradient="after_scan", saved="narrow", row_start="select",
        skew="concatenate", convolution="xla", head_products="masked",
        logits="by_channel", unroll=1, images_per_strip=2),
}
