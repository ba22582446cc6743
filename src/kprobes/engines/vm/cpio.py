"""Writes the cpio archive ("newc") that a kernel unpacks as its first root file system.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

DIRECTORY = 0o040000
REGULAR = 0o100000
SYMLINK = 0o120000
CHARACTER_DEVICE = 0o020000
TRAILER = "TRAILER!!!"


class CpioWriter:
    """Appends members to a stream; parent directories are added by themselves. `close` writes the end mark.

    Owners are root and times are zero, so that the same members give the same bytes.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inode = 0
        self._size = 0
        self._directories: set[str] = set()

    def directory(self, name: str, permissions: int = 0o755) -> None:
        """Add the directory *name* and those above it; one that is there already is left as it is."""
        path = ""
        for part in name.strip("/").split("/"):
            path = f"{path}/{part}" if path else part
            if path and path not in self._directories:
                self._directories.add(path)
                self._member(path, DIRECTORY | permissions, b"")

    def file(self, name: str, content: bytes, permissions: int = 0o644) -> None:
        """Add a regular file."""
        self._parents(name)
        self._member(name.lstrip("/"), REGULAR | permissions, content)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link to *target*."""
        self._parents(name)
        self._member(name.lstrip("/"), SYMLINK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int, permissions: int = 0o600) -> None:
        """Add a device node; nobody needs to be root for that, since only the kernel makes it real."""
        self._parents(name)
        self._member(name.lstrip("/"), CHARACTER_DEVICE | permissions, b"", (major, minor))

    def close(self) -> None:
        """Write the end mark. The stream stays open."""
        self._member(TRAILER, 0, b"")
        self._pad(512)

    def _parents(self, name: str) -> None:
        parent = name.strip("/").rpartition("/")[0]
        if parent:
            self.directory(parent)

    def _member(self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        encoded = name.encode() + b"\0"
        self._inode += 1
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        self._write(b"070701" + "".join(f"{field:08X}" for field in fields).encode() + encoded)
        self._pad(4)
        self._write(content)
        self._pad(4)

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._size += len(data)

    def _pad(self, alignment: int) -> None:
        self._write(bytes(-self._size % alignment))
