"""What every model checks of the images that it is given."""

from pixelrnn_jax.errors import InputError


def check_image_shape(
    shape: tuple[int, ...], image_shape: tuple[int, int, int], letter: str = "B"
) -> None:
  """Raise InputError unless a shape is [B, H, W, C] with B at least 1.

  Args:
    shape: the images' shape.
    image_shape: (H, W, C).
    letter: what the caller's documentation calls B.
  """
  if len(shape) != 4 or shape[1:] != tuple(image_shape) or shape[0] < 1:
    raise InputError(
        f"Images of shape {shape}: this model takes [{letter}, H, W, C] ="
        f" [{letter}, {', '.join(map(str, image_shape))}], with {letter} at least 1."
    )
