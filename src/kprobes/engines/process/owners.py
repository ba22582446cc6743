"""The threads that exist at attach get their blocks from the controller, which knows their ids and names."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.layout import (
    BLOCK_COMM,
    BLOCK_NUMBER,
    BLOCK_OWNER,
    BLOCK_RING,
    CLAIM_COUNTER,
    OWNER_ENTRIES,
    OWNER_SIZE,
    OWNER_TABLE_SIZE,
)
from kprobes.engines.process.stubs import REGISTER, SELF, SHARED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kprobes.engines.process.area import Area
    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.threads import StoppedThreads

_AT_HWCAP2 = 26
_HWCAP2_FSGSBASE = 2
_GLIBC_TID = 0x2D0  # offset of `tid` in glibc's `struct pthread` on x86-64 since 2.6
_THREAD_STRUCT = 0x800
_PROBES = 16


@dataclass(frozen=True, slots=True)
class ThreadPointers:
    """How the target's threads are told apart: a mode of `stubs`, and where a thread keeps its id (0: unknown)."""

    mode: str
    tid_offset: int


def has_fsgsbase() -> bool:
    """Tell whether programs may read the fs base by an instruction here (FSGSBASE: Ivy Bridge, Linux 5.9)."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype = ctypes.c_ulong
    return bool(getauxval(_AT_HWCAP2) & _HWCAP2_FSGSBASE)


def choose_mode(bases: Mapping[int, int], memory: ProcessMemory, *, wiped: bool) -> ThreadPointers:
    """Return how to tell threads apart; *bases* are the fs bases by thread id.

    Threads that share a base can't be told apart; without a table that is wiped on fork a child can't be.
    """
    set_up = [base for base in bases.values() if base]
    if not wiped or len(set(set_up)) != len(set_up):
        return ThreadPointers(SHARED, 0)
    pointing = [base for base in set_up if memory.read_some(base, 8) == struct.pack("<Q", base)]
    if set_up and len(pointing) == len(bases):
        return ThreadPointers(SELF, _find_tid(bases, memory))
    return ThreadPointers(REGISTER if has_fsgsbase() else SHARED, 0)


def _find_tid(bases: Mapping[int, int], memory: ProcessMemory) -> int:
    """Return the one offset from the thread pointer at which each thread has its id, 0 where it can't be told."""
    candidates: set[int] | None = None
    for tid, base in bases.items():
        content = memory.read_some(base, _THREAD_STRUCT)
        words = struct.unpack(f"<{len(content) // 4}I", content[: len(content) & -4])
        found = {4 * index for index, word in enumerate(words) if word == tid and index}
        candidates = found if candidates is None else candidates & found
    if not candidates:
        return 0
    if _GLIBC_TID in candidates:
        return _GLIBC_TID
    return candidates.pop() if len(candidates) == 1 else 0


def give_blocks(threads: StoppedThreads, memory: ProcessMemory, area: Area) -> int:
    """Give each stopped thread a block and write the owner table; return how many got one."""
    blocks = area.layout.seen_at(area.base)
    _fill_rings(area)
    table = bytearray(OWNER_TABLE_SIZE)
    number = 1
    for tid, values in threads.registers.items():
        base = values.fs_base
        place = _free_entry(table, base)
        if not base or base & 1 or place < 0 or number >= blocks.count or threads.owners[tid] != threads.pid:
            continue
        struct.pack_into("<QQ", table, place, base, blocks.first + number * blocks.stride)
        _fill_block(area, number, threads.pid, tid, base)
        number += 1
    struct.pack_into("<Q", area.shared, CLAIM_COUNTER, number)
    memory.write(area.table, bytes(table))
    return number - 1


def claim_block(area: Area) -> int:
    """Take a block for the hand, while the target stands still; return its number, 0 where none is left."""
    (number,) = struct.unpack_from("<Q", area.shared, CLAIM_COUNTER)
    if not 0 < number < area.layout.blocks:
        return 0
    struct.pack_into("<Q", area.shared, CLAIM_COUNTER, number + 1)
    return int(number)


def _fill_rings(area: Area) -> None:
    """Tell each block where its ring is, also those that are yet to be claimed."""
    layout = area.layout
    for number, (ring, size) in enumerate(layout.ring_places):
        at = layout.blocks_at + number * layout.stride
        struct.pack_into("<QQ", area.shared, at + BLOCK_RING, area.base + ring, size)


def _free_entry(table: bytearray, base: int) -> int:
    start = base >> 12
    for probe in range(_PROBES):
        place = (start + probe) % OWNER_ENTRIES * OWNER_SIZE
        if not any(table[place : place + 8]):
            return place
    return -1


def _fill_block(area: Area, number: int, pid: int, tid: int, base: int) -> None:
    at = area.layout.blocks_at + number * area.layout.stride
    struct.pack_into("<QII", area.shared, at + BLOCK_OWNER, base, tid, pid)
    struct.pack_into("<Q", area.shared, at + BLOCK_NUMBER, number)
    try:
        comm = procfs.read_comm(pid, tid)
    except OSError:
        return
    area.shared[at + BLOCK_COMM : at + BLOCK_COMM + 16] = comm[:15].ljust(16, b"\0")
