"""Reading, writing and finding room in the memory of another process.

Everything goes through /proc/PID/mem: it reads and writes code that is mapped read-only and executable (on a private
mapping the kernel then makes a copy of the page for this process), and the open file stays with the address space it
was opened on: after an exec reads and writes fail instead of reaching the new program.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.errors import SyscallError, TargetError, UnsafeSiteError
from kprobes.model.layout import align_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kprobes.engines.process.procfs import Mapping
    from kprobes.engines.process.registry import Patch

PAGE = 4096
REACH = (1 << 31) - (1 << 16)  # a rel32 with room for an instruction's own length and a detour's
LOWEST = 0x10000  # mmap_min_addr of every distribution
HIGHEST = 0x7FFF_FFFF_F000
STACK_GAP = 256 * PAGE  # stack_guard_gap: growing stacks keep this distance from the mapping below
STACK_ROOM = 64 << 20  # we never settle in what a stack may still grow into


class ProcessMemory:
    """The memory of the process *pid*; a context manager. What it reads is what would be there without the patches
    `hidden`.

    Raises:
        TargetError: the process has ended.
        SyscallError: /proc/PID/mem can't be opened (`target.py` explains why).
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.hidden: Sequence[Patch] = ()
        try:
            self._file = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in {errno.ESRCH, errno.ENOENT}:
                raise TargetError(f"process {pid} ended") from None
            raise SyscallError(f"opening the memory of process {pid}", error.errno or 0) from None

    def __enter__(self) -> ProcessMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the memory."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, address: int, size: int) -> bytes:
        """Return exactly *size* bytes at *address*.

        Raises:
            TargetError: part of it isn't mapped, or the process is gone.
        """
        found = self.read_some(address, size)
        if len(found) != size:
            raise TargetError(f"process {self.pid}: {size} bytes at {address:#x} can't be read")
        return found

    def read_some(self, address: int, size: int) -> bytes:
        """Return the bytes from *address* up to *size* of them, as many as are mapped."""
        try:
            found = os.pread(self._file, size, address) if address < 1 << 63 else b""
        except OSError as error:
            if error.errno in {errno.EIO, errno.EFAULT}:
                return b""
            raise SyscallError(f"reading process {self.pid} at {address:#x}", error.errno or 0) from None
        return self._uncovered(found, address) if self.hidden else found

    def _uncovered(self, content: bytes, start: int) -> bytes:
        """Return *content*, which was read at *start*, as it would be without the patches `hidden`."""
        end, whole = start + len(content), bytearray(content)
        for patch in self.hidden:
            first, last = max(patch.address, start), min(patch.end, end)
            if first < last:
                whole[first - start : last - start] = patch.original[first - patch.address : last - patch.address]
        return bytes(whole)

    def write(self, address: int, content: bytes) -> None:
        """Write *content* at *address*, also where the target itself may not.

        Raises:
            TargetError: it can't be written (not mapped, a shared file, the process is gone).
        """
        try:
            written = os.pwrite(self._file, content, address)
        except OSError as error:
            raise TargetError(
                f"process {self.pid}: {len(content)} bytes at {address:#x} can't be written: "
                f"{os.strerror(error.errno or 0)}",
                hint="code in a shared file mapping can't be probed" if error.errno == errno.EIO else "",
            ) from None
        if written != len(content):
            raise TargetError(f"process {self.pid}: {len(content)} bytes at {address:#x} can't be written")


@dataclass(frozen=True, slots=True)
class Room:
    """A free range of addresses."""

    start: int
    end: int


def free_rooms(mappings: Sequence[Mapping], *, margin: int = 0) -> list[Room]:
    """Return the gaps between *mappings* (in order) that we may use.

    Left out: what lies above the heap up to the next mapping or 64 MiB (it grows there), what lies below a stack, and
    the last *margin* bytes of each gap, where the program's own next mappings go.
    """
    rooms = []
    floor = LOWEST
    for mapping in mappings:
        top = min(mapping.start, HIGHEST) - margin
        if mapping.path.startswith("[stack"):
            top -= STACK_ROOM
        if top > floor:
            rooms.append(Room(floor, top))
        floor = mapping.end + (STACK_ROOM if mapping.path == "[heap]" else 0)
    if floor < HIGHEST:
        rooms.append(Room(floor, HIGHEST))
    return rooms


def find_room(rooms: Iterable[Room], reach: Room, size: int) -> int | None:
    """Return the address of *size* free bytes inside *reach*, as near to its middle as can be, or None.

    At the same distance the lower place wins: above a program lies the heap.
    """
    middle = (reach.start + reach.end) // 2
    best = None
    for room in rooms:
        low = align_up(max(room.start, reach.start), PAGE)
        high = (min(room.end, reach.end) - size) & -PAGE
        if low > high:
            continue
        place = min(max(middle & -PAGE, low), high)
        if best is None or abs(place - middle) < abs(best - middle):
            best = place
    return best


def reach_of(start: int, end: int) -> Room:
    """Return where detours for code in [*start*, *end*) may lie so that every rel32 reaches both ways.

    Raises:
        UnsafeSiteError: the code itself is too long for that.
    """
    low, high = max(end - REACH, LOWEST), min(start + REACH, HIGHEST)
    if low >= high:
        raise UnsafeSiteError(f"{start:#x}-{end:#x}", "the code is larger than a jump can reach")
    return Room(low, high)
