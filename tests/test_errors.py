import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixelrnn_jax.errors import InputError, out_of_memory


@pytest.mark.parametrize("fill", [
    lambda: jax.jit(lambda: jnp.ones((2**23, 2**24)))().block_until_ready(),
    lambda: np.ones((2**25, 2**25)),
    lambda: bytearray(2**62),
])
def test_memory_that_is_not_there(fill):
  """A lack of memory is an InputError, from XLA, NumPy and Python alike."""
  @out_of_memory("Take less.")
  def program():
    return fill()

  with pytest.raises(InputError, match="There is not enough memory: .*. Take less."):
    program()


def test_other_errors_pass():
  @out_of_memory("Take less.")
  def program(error):
    raise error

  for error in (jax.errors.JaxRuntimeError("INTERNAL: x"), KeyError("x")):
    with pytest.raises(type(error)) as raised:
      program(error)
    assert raised.value is error
