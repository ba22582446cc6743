"""The kernel's own files about tracing, as they are: read, and written a piece at a time."""

from __future__ import annotations

import os
from errno import ENOENT

from kprobes.engines.kernel.files import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.engines.kernel.files import KernelFiles


class Tracefs:
    """tracefs of the running kernel; paths are relative to its root."""

    def __init__(self, files: KernelFiles) -> None:
        self._files = files

    def read(self, path: str) -> bytes | None:
        """Return the content of the file *path*, None where it can't be read."""
        root = self._files.root("tracefs")
        return read_bytes(f"{root}/{path}") if root and _is_inside(path) else None

    def write(self, path: str, content: bytes) -> int:
        """Add *content* to the file *path* by one write, truncating nothing; return 0 or the errno of the refusal."""
        root = self._files.root("tracefs")
        if not root or not _is_inside(path):
            return ENOENT
        try:
            descriptor = os.open(f"{root}/{path}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            return error.errno or 0
        try:
            os.write(descriptor, content)
        except OSError as error:
            return error.errno or 0
        finally:
            os.close(descriptor)
        return 0


def _is_inside(path: str) -> bool:
    return ".." not in path.split("/") and not path.startswith("/")
