"""Changing code while every thread stands still, and changing it back.

A patch may cover several instructions. A thread that stands on the second one, or will return there from a signal
handler, would run into the middle of the jump: it is sent to the same instruction in the relocated copy instead. A
thread whose system call will be restarted counts as standing on the `syscall` instruction, two bytes back.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.engines.process import ptrace
from kprobes.engines.process.stacks import signal_frames
from kprobes.engines.process.threads import RESTARTS
from kprobes.errors import TargetError, UnsafeSiteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.procfs import Mapping as Memory
    from kprobes.engines.process.ptrace import Registers
    from kprobes.engines.process.registry import Patch
    from kprobes.engines.process.threads import StoppedThreads

PAGE = 4096
COUNTER_SIZE = 2
SYSCALL_SIZE = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a thread will go on: thread *tid* itself, or its signal frame that stores the address at *stored_at*."""

    tid: int
    ip: int
    stored_at: int = 0
    restarts: bool = False

    @property
    def first(self) -> int:
        """Return the address of the instruction that it will run first."""
        return self.ip - SYSCALL_SIZE if self.restarts else self.ip


def places(threads: StoppedThreads, memory: ProcessMemory, mappings: Sequence[Memory]) -> Iterator[Place]:
    """Yield every place at which a stopped thread will go on, now or after its signal handlers."""
    pointers = []
    for tid, values in threads.registers.items():
        yield Place(tid, values.ip, 0, _restarts(values))
        pointers.append(values.sp)
    for tid, (sp, ip) in threads.asleep.items():
        yield Place(tid, ip)
        pointers.append(sp)
    for frame in signal_frames(memory, mappings, pointers):
        yield Place(0, frame.ip, frame.place)


def _restarts(values: Registers) -> bool:
    return values.orig_ax < 1 << 63 and values.ax in RESTARTS


class _Regions:
    """Patches by the addresses they cover."""

    def __init__(self, patches: Sequence[Patch]) -> None:
        self._patches = sorted(patches, key=lambda patch: patch.address)
        self._starts = [patch.address for patch in self._patches]

    def at(self, address: int) -> Patch | None:
        """Return the patch that covers *address*, or None."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        patch = self._patches[index]
        return patch if address < patch.end else None


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a place goes on instead, with *pop* bytes taken off its stack."""

    address: int
    pop: int = 0


def move_threads(threads: StoppedThreads, memory: ProcessMemory, sends: Mapping[Place, Resume]) -> None:
    """Send each place in *sends* to another address, as found by `ways_out` or `ways_back`."""
    for place, to in sends.items():
        address = to.address + place.ip - place.first
        if place.stored_at:
            memory.write(place.stored_at, struct.pack("<Q", address))
            continue
        values = threads.registers[place.tid]
        values.ip = address
        values.sp += to.pop
        ptrace.set_registers(place.tid, values)


def ways_out(
    threads: StoppedThreads, standing: Sequence[Place], patches: Sequence[Patch], moves: Mapping[int, int]
) -> dict[Place, Resume]:
    """Return where to send those who stand where *patches* will be written; *moves* leads from an instruction to its
    copy.

    Raises:
        UnsafeSiteError: one can't be moved now.
    """
    regions = _Regions(patches)
    sends = {}
    for place in standing:
        patch = regions.at(place.first)
        if patch is None or place.first == patch.address == patch.head:
            continue
        to = moves.get(place.first)
        if to is None or not _movable(threads, place):
            raise UnsafeSiteError(f"{patch.address:#x}", f"a thread stands inside of it, at {place.first:#x}")
        sends[place] = Resume(to)
    return sends


def ways_back(
    threads: StoppedThreads, standing: Sequence[Place], patches: Sequence[Patch], resume: Mapping[int, Resume]
) -> dict[Place, Resume] | None:
    """Return where to send those who stand on a jump that will be taken away, or at a place in a detour that *resume*
    knows; None where one can't be moved now."""
    hops = {one.address: Resume(one.head) for one in patches if one.head != one.address and not one.counts}
    sends = {place: hops[place.ip] for place in standing if place.ip in hops}
    if not all(_movable(threads, place) for place in sends):
        return None
    for place in standing:
        back = resume.get(place.first)
        if back is not None and _movable(threads, place) and not (back.pop and place.stored_at):
            sends[place] = back
    return sends


def _movable(threads: StoppedThreads, place: Place) -> bool:
    return bool(place.stored_at) or place.tid in threads.registers


def write_patches(
    memory: ProcessMemory, patches: Sequence[Patch], *, undo: bool = False, check_only: bool = False
) -> list[Patch]:
    """Write all *patches* (or what was there before, with *undo*), in the order of the first of each page.

    A site must hold what is expected there. When writing, one that doesn't is an error; when undoing, it is left alone
    and returned. With *check_only* nothing is written. Counters count up, or down.

    Raises:
        TargetError: the code isn't what it was, or can't be written.
    """
    pages: dict[tuple[int, int], list[Patch]] = {}
    for patch in patches:
        # What stands between counters is the program's own data: nothing but the counter is written.
        pages.setdefault((patch.address if patch.counts else 0, patch.address // PAGE), []).append(patch)
    left = []
    for group in pages.values():
        left += _edit(memory, group, undo=undo, write=not check_only)
    return left


def _counted(before: bytes, *, undo: bool) -> tuple[bytes, bytes]:
    """Return what a counter must hold to be changed, and what it becomes; it never goes around its end."""
    after = int.from_bytes(before, "little") + (-1 if undo else 1)
    if len(before) < COUNTER_SIZE or not 0 <= after < 1 << 8 * COUNTER_SIZE:
        return b"", b""
    return before, after.to_bytes(COUNTER_SIZE, "little")


def _edit(memory: ProcessMemory, group: Sequence[Patch], *, undo: bool, write: bool) -> list[Patch]:
    start, end = min(patch.address for patch in group), max(patch.end for patch in group)
    content = bytearray(memory.read_some(start, end - start))
    left = []
    for patch in group:
        place = slice(patch.address - start, patch.end - start)
        if patch.counts:
            old, new = _counted(bytes(content[place]), undo=undo)
        else:
            old, new = (patch.written, patch.original) if undo else (patch.original, patch.written)
        if content[place] == old:
            content[place] = new
            continue
        if not undo:
            if patch.counts:
                raise TargetError(f"the reference counter at {patch.address:#x} can't be counted up")
            raise TargetError(
                f"the code at {patch.address:#x} is not what it was a moment ago",
                hint="the program changes its own code, or another tool probes it",
            )
        left.append(patch)
    if write and len(left) < len(group):
        memory.write(start, bytes(content))
    return left
