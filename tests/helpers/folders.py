"""What a folder holds."""


def contents(folder, without=""):
  """The files below a folder, but for those below folders of the name `without`."""
  return {
      path: path.read_bytes() for path in folder.rglob("*")
      if path.is_file() and without not in path.parts}
