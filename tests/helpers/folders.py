"""The contents of folders."""


def contents(folder, without=""):
  """Return the files below a folder, by path.

  Folders named `without` are left out.
  """
  return {
      path: path.read_bytes() for path in folder.rglob("*")
      if path.is_file() and without not in path.parts}
