"""/proc/PID/maps: what is mapped where in a process, and which object a short name means there."""

from __future__ import annotations

import os
import re

from kprobes.errors import FormatError, TargetError
from kprobes.frozen import dataclass
from kprobes.symbols.source import read_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.symbols.elf import ElfFile

SIZE_LIMIT = 256 << 20
_LINE = re.compile(
    rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][ps]) ([0-9a-f]{1,16}) ([0-9a-f]+:[0-9a-f]+) (\d+) *([^\n]*)$",
    re.MULTILINE,
)
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Addresses from *start* to below *end* hold the file *path* from *offset* on.

    *path* is as the process sees it (in its own root); empty for anonymous memory, `[stack]` and the like for special
    memory. *deleted*: the file is gone from its directory. *device* and *inode* tell which file it is.
    """

    start: int
    end: int
    permissions: str
    offset: int
    path: str
    device: str = ""
    inode: int = 0
    deleted: bool = False

    @property
    def is_code(self) -> bool:
        """Return whether it is executable memory of a file."""
        return self.permissions[2] == "x" and self.inode != 0


def parse_maps(text: bytes) -> Iterator[Mapping]:
    """Return the mappings that the text of a maps file tells of, in ascending order."""
    for low, high, permissions, offset, device, inode, name in _LINE.findall(text):
        path = _unescape(name).decode("utf-8", "surrogateescape")
        deleted = path.endswith(_DELETED) and inode != b"0"
        yield Mapping(
            int(low, 16),
            int(high, 16),
            permissions.decode(),
            int(offset, 16),
            path.removesuffix(_DELETED) if deleted else path,
            device.decode(),
            int(inode),
            deleted,
        )


def load_maps(pid: int) -> list[Mapping]:
    """Return the mappings of the process *pid*.

    Raises:
        TargetError: there is no such process, or it may not be looked at.
    """
    try:
        return list(parse_maps(read_source(f"/proc/{pid}/maps", SIZE_LIMIT)))
    except FormatError as problem:
        raise TargetError(
            f"process {pid} can't be looked at: {str(problem).rpartition(': ')[2]}",
            hint="is it still running, and does it belong to you?",
        ) from None


def file_of(pid: int, mapping: Mapping) -> str:
    """Return a path by which the file of *mapping* can be opened from here, whatever the root of *pid* is.

    The path itself where it means the same file here; else that through the process's own root; through its mapping
    where the file was deleted (needs CAP_SYS_ADMIN).
    """
    if mapping.deleted:
        return f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
    inside = f"/proc/{pid}/root{mapping.path}"
    return mapping.path if _is_same(mapping.path, inside) else inside


def _is_same(first: str, second: str) -> bool:
    try:
        one, other = os.stat(first), os.stat(second)  # noqa: PTH116 - pathlib costs start-up time
    except OSError:
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def load_bias(elf: ElfFile, mappings: Sequence[Mapping]) -> int | None:
    """Return how far *elf* was moved: the address in memory is the address in the file plus that.

    *mappings* are those of this file; None where none of them fits a segment.
    """
    for mapping in mappings:
        for segment in elf.loads:
            first_page = segment.offset & ~0xFFF
            if first_page <= mapping.offset < segment.offset + segment.file_size:
                return mapping.start - (segment.address - segment.offset + mapping.offset)
    return None


def _unescape(name: bytes) -> bytes:
    """The kernel writes a newline in a path as `\\012`."""
    return name.replace(rb"\012", b"\n")
