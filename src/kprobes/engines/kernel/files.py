"""Reading the kernel's small files, and finding tracefs and debugfs. No `pathlib`: it costs more than what is read."""

from __future__ import annotations

import os

from kprobes.engines.kernel import syscall

_PIECE = 1 << 20

# Where the kernel's file systems are mounted, with a file that is there when they are.
_PLACES = {
    "tracefs": (("/sys/kernel/tracing", "events"), ("/sys/kernel/debug/tracing", "events")),
    "debugfs": (("/sys/kernel/debug", "bdi"), ("/sys/kernel/debug", "tracing"), ("/sys/kernel/debug", "kprobes")),
}


def read_bytes(path: str, *, directory: int | None = None) -> bytes | None:
    """Return the content of *path* (under the *directory* descriptor), or None where it can't be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        pieces = []
        while piece := os.read(fd, _PIECE):
            pieces.append(piece)
        return b"".join(pieces)
    except OSError:
        return None
    finally:
        os.close(fd)


def read_text(path: str) -> str:
    """Return the text of *path*, empty where it can't be read."""
    return (read_bytes(path) or b"").decode("utf-8", "replace")


def mounted(filesystem: str) -> str:
    """Return where *filesystem* (`tracefs` or `debugfs`) is mounted in the usual place, or an empty text."""
    for place, witness in _PLACES[filesystem]:
        if os.access(f"{place}/{witness}", os.F_OK):
            return place
    return ""


class KernelFiles:
    """tracefs and debugfs of the running kernel, also where nobody has mounted them: then by a mount of our own, which
    nobody else sees and which ends with its descriptor."""

    def __init__(self) -> None:
        self._roots: dict[str, str] = {}
        self._mounts: list[int] = []

    def root(self, filesystem: str) -> str:
        """Return the path of `tracefs` or `debugfs` for this process, or an empty text where it can't be had."""
        if filesystem not in self._roots:
            self._roots[filesystem] = mounted(filesystem) or self._mount(filesystem)
        return self._roots[filesystem]

    def _mount(self, filesystem: str) -> str:
        fd = syscall.mount_private(filesystem)
        if fd < 0:
            return ""
        self._mounts.append(fd)
        return f"/proc/self/fd/{fd}"

    def text(self, filesystem: str, path: str) -> str | None:
        """Return the text of the file *path* in `tracefs` or `debugfs`, or None."""
        root = self.root(filesystem)
        content = read_bytes(f"{root}/{path}") if root else None
        return None if content is None else content.decode("utf-8", "replace")

    def writable(self, filesystem: str, path: str) -> bool:
        """Return whether the file *path* in `tracefs` or `debugfs` is there and may be written."""
        root = self.root(filesystem)
        return bool(root) and os.access(f"{root}/{path}", os.W_OK)

    def close(self) -> None:
        """Undo our own mounts; idempotent."""
        self._roots.clear()
        while self._mounts:
            os.close(self._mounts.pop())
