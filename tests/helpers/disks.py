"""Small file systems that fail when a test asks for it. They need root."""

import contextlib
import glob
import os
import subprocess
import time


class Disk:
  """A mounted ext4 file system in a file, with methods that make it fail.

  Attributes:
    path: the mount point.
  """

  def __init__(self, folder, megabytes=8):
    """Make and mount the file system.

    Args:
      folder: a directory for the image and the mount point.
      megabytes: the size of the file. The file system takes some of it for itself.

    Raises: OSError: the system cannot make it.
    """
    self.image, self.path = folder / "image", folder / "disk"
    self.path.mkdir()
    with open(self.image, "wb") as file:
      file.truncate(megabytes << 20)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", self.image)
    self.mount()

  @classmethod
  def make(cls, folder, megabytes=8):
    """Make a disk and return it, or None if the system cannot make one."""
    try:
      return cls(folder, megabytes)
    except OSError:
      return None

  def mount(self):
    """Mount the file system."""
    _run("mount", "-o", "loop", self.image, self.path)

  def unmount(self):
    """Unmount the file system. Open files stay open."""
    _run("umount", "-l", self.path)

  def break_down(self):
    """Make the file system read-only, as the kernel does after a device error.

    It takes effect at once. `remount,ro` would be refused while files are open for
    writing.
    """
    _run("sync", "-f", self.path)
    _run("mount", "-o", "remount,abort", self.path)

  def repair(self):
    """Repair the file system after `break_down`, and mount it again.

    Threads of TensorStore may keep a file open for a moment. Until they close it,
    mounting would bring back the broken file system.
    """
    deadline = time.monotonic() + 30
    while True:
      try:
        _run("umount", self.path)
        break
      except OSError as error:
        if time.monotonic() > deadline:
          raise OSError(f"{error} Open: {self._open_files()}") from error
        time.sleep(0.05)
    self.mount()

  def _open_files(self):
    """Return the files that processes have open on the disk, as `PID: PATH`."""
    found = []
    for link in glob.glob("/proc/[0-9]*/fd/*"):
      with contextlib.suppress(OSError):
        if (path := os.readlink(link)).startswith(f"{self.path}/"):
          found.append(f"{link.split('/')[2]}: {path}")
    return found

  def fill(self):
    """Write a file until no space is left."""
    with open(self.path / "filler", "ab", buffering=0) as file:
      for size in (1 << 16, 1 << 12, 1 << 8):
        try:
          while True:
            file.write(b"x" * size)
        except OSError:
          pass

  def make_room(self):
    """Remove the file that `fill` wrote."""
    (self.path / "filler").unlink()


def _run(*command):
  done = subprocess.run(
      [str(word) for word in command], check=False, capture_output=True, text=True)
  if done.returncode:
    raise OSError(f"{command[0]}: {done.stderr.strip()}")
