import jax

from pixelrnn_jax.studies.tables import describe_machine, format_table


def test_table_and_machine():
  assert format_table(["a", "bb"], [["123", "4"]]).split("\n") == [
      "| a   | bb |", "| --- | -- |", "| 123 | 4  |"]
  assert jax.__version__ in describe_machine()
  assert "cores" in describe_machine()
