"""Which of several ways an operation is computed: the defaults of each backend.

No choice alters a value or a gradient, except by rounding. What is fast on a CPU is
slow elsewhere, so each backend has its own defaults. docs/speed.md has the figures.

- Those of a CPU are measured.
- Those of a GPU were measured one by one on an H200, in training steps of networks of 2
  layers. The Row LSTM's baseline varied by a third between its runs, so the smaller
  differences from it may be chance. Three defaults were changed after that
  (`gates_gradient`, `saved`, `unroll`). Today's defaults together were not measured.
- Those of a TPU are what the compiler's estimates say; no TPU has run them yet.
"""

import dataclasses

import jax

AUTO = "auto"
# The backends that JAX names by their maker are GPUs.
_GPUS = ("gpu", "cuda", "rocm")

OPTIONS = {
    "gates_gradient": ("select", "concatenate"),
    "kernel_gradient": ("in_scan", "after_scan"),
    "saved": ("wide", "narrow"),
    "row_start": ("slice", "select"),
    "skew": ("reshape", "concatenate"),
    "convolution": ("products", "xla"),
    "logits": ("together", "by_channel"),
}


@dataclasses.dataclass(frozen=True)
class Choices:
  """How to compute what can be computed in several ways.

  `auto`, and 0 of a number, are the backend's defaults.

  Attributes:
    gates_gradient: of an LSTM: the gradients of h and c are selected by gate, or
      concatenated. XLA does not vectorise a concatenation on a CPU.
    kernel_gradient: of an LSTM's K_ss: summed up in the reverse scan, or one product
      after it.
    saved: what an LSTM's forward scan saves for the gradient by h and c: at least
      float32, or of the products' dtype.
    row_start: of the Diagonal BiLSTM: the initial state is written to the row that
      starts, or every row selects between it and the state before, and its gradient is
      summed up after the scan.
    skew: a map is padded and read as rows of another length, or its padded rows are
      concatenated. The latter has a gradient of its own, for reverse mode only.
    convolution: masked convolutions as a product for each tap, or as XLA's
      convolution.
    logits: the training loss from the logits of all channels in one array
      [..., C, levels], or from an array for each channel.
    unroll: steps of an LSTM in one iteration of the compiled loop.
    images_per_strip: how many images stand side by side in the Diagonal BiLSTM's
      skewed map, at most.
  """

  gates_gradient: str = AUTO
  kernel_gradient: str = AUTO
  saved: str = AUTO
  row_start: str = AUTO
  skew: str = AUTO
  convolution: str = AUTO
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
        gates_gradient="select", kernel_gradient="in_scan", saved="wide",
        row_start="slice", skew="reshape", convolution="products", logits="together",
        unroll=1, images_per_strip=8),
    "gpu": Choices(
        gates_gradient="select", kernel_gradient="after_scan", saved="narrow",
        row_start="select", skew="reshape", convolution="products",
        logits="by_channel", unroll=32, images_per_strip=1),
    "tpu": Choices(
        gates_gradient="concatenate", kernel_gradient="after_scan", saved="wide",
        row_start="select", skew="concatenate", convolution="xla",
        logits="by_channel", unroll=1, images_per_strip=2),
}
