"""Small file systems that can be made to fail, for tests; they need root."""

import contextlib
import glob
import os
import subprocess
import time


class Disk:
  """A mounted ext4 file system in a file, with its own ways to fail.

  Attributes:
    path: where it is mounted.
  """

  def __init__(self, folder, megabytes=8):
    """Make and mount the file system.

    Args:
      folder: a directory, for the image and the mount point.
      megabytes: size of the file; the file system takes a part of it.

    Raises:
      OSError: the system cannot make it.
    """
    self.image, self.path = folder / "image", folder / "disk"
    self.path.mkdir()
    with open(self.image, "wb") as file:
      file.truncate(megabytes << 20)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", self.image)
    self.mount()

  @classmethod
  def make(cls, folder, megabytes=8):
    """Return a disk, or None if the system cannot make one."""
    try:
      return cls(folder, megabytes)
    except OSError:
      return None

  def mount(self):
    """Mount it."""
    _run("mount", "-o", "loop", self.image, self.path)

  def unmount(self):
    """Unmount it; open files stay open."""
    _run("umount", "-l", self.path)

  def break_down(self):
    """Make it read-only at once, as the kernel does after an error of the device.

    `remount,ro` would be refused while files are open for writing.
    """
    _run("sync", "-f", self.path)
    _run("mount", "-o", "remount,abort", self.path)

  def repair(self):
    """Mount it anew after `break_down`.

    TensorStore's threads may have a file open for a moment. Until then the broken file
    system would come back with the same faults.
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
    """Return the files that processes have open on it, as `PID: PATH`."""
    found = []
    for link in glob.glob("/proc/[0-9]*/fd/*"):
      with contextlib.suppress(OSError):
        if (path := os.readlink(link)).startswith(f"{self.path}/"):
          found.append(f"{link.split('/')[2]}: {path}")
    return found

  def fill(self):
    """Write a file until no room is left."""
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
