"""The world page: what handlers know without a system call (see `model.shared`), filled in and kept up to date by us.

*Clock.* `now()` is the time stamp counter scaled to CLOCK_MONOTONIC. Its rate is measured from attach on, over an ever
longer time: after 10 ms to some millionths, after a second to some tens of thousandths of a millionth. Whenever the
controller looks for events, at most once a second, a new pair of readings goes to another slot of the page, then the
slot's offset is changed; a handler that still reads the old slot is not disturbed.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
import time
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.seccomp import has_our_filters
from kprobes.errors import UnsupportedError
from kprobes.model.shared import (
    CLOCK,
    CLOCK_SLOTS,
    MAX_RANGES,
    RANGES,
    WORLD_COMM,
    WORLD_GID,
    WORLD_MAY_CALL,
    WORLD_PID,
    WORLD_RANGES,
    WORLD_UID,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kprobes.engines.process.procfs import Mapping

_RDTSC = bytes.fromhex("0f3148c1e2204809d0c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret
_READINGS = 5
_SYS_GETPID, _SYS_PRCTL, _SYS_GETTID, _SYS_PROCESS_VM_READV = 39, 157, 186, 310
_PR_GET_NAME = 16
REFRESH_S = 1.0
# Objects that stay for as long as the process runs, by the beginning of their file's name; and the program itself.
_LASTING = ("libc.so.", "libc-", "ld-linux", "ld-musl", "ld.so")


class Clock:
    """Reads the time stamp counter and CLOCK_MONOTONIC together. It begins to measure when it is made.

    Raises:
        UnsupportedError: the counter isn't steady on this machine.
    """

    def __init__(self) -> None:
        if not _is_steady():
            raise UnsupportedError(
                "now() needs a steady time stamp counter, which this machine has not",
                hint="add --engine uprobe, or leave now() out",
            )
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(_RDTSC)
        pointer = ctypes.c_char.from_buffer(self._code)
        self._ticks: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(pointer))
        self._begun = self.read()

    def read(self) -> tuple[int, int]:
        """Return (ticks, nanoseconds), read as close to each other as can be."""
        best = (1 << 64, 0, 0)
        for _ in range(_READINGS):
            before = self._ticks()
            nanoseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            after = self._ticks()
            best = min(best, (after - before, (before + after) // 2, nanoseconds))
        return best[1], best[2]

    def slot(self) -> bytes:
        """Return what goes into a clock slot now: ticks, nanoseconds, nanoseconds per 2**32 ticks."""
        ticks, nanoseconds = self.read()
        passed = max(ticks - self._begun[0], 1)
        return struct.pack("<QQQ", ticks, nanoseconds, ((nanoseconds - self._begun[1]) << 32) // passed)


def _is_steady() -> bool:
    with open("/proc/cpuinfo", "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
        flags = file.read(8192)
    return b" constant_tsc" in flags


class World:
    """The page at offset *start* of *view*."""

    def __init__(self, view: mmap.mmap, start: int, clock: Clock) -> None:
        self._view = view
        self._start = start
        self._clock = clock
        self._slot = 0
        self._calls_pass: bool | None = None
        self._next_s = time.monotonic() + REFRESH_S

    def fill(self, pid: int, mappings: Iterable[Mapping]) -> None:
        """Write everything about the process *pid*."""
        with contextlib.suppress(OSError):
            owner = os.stat(f"/proc/{pid}")  # noqa: PTH116
            self._put("<I", WORLD_UID, owner.st_uid)
            self._put("<I", WORLD_GID, owner.st_gid)
        self._put("<I", WORLD_PID, pid)
        self._put("<I", WORLD_MAY_CALL, int(self._may_call(pid)))
        self._put("<16s", WORLD_COMM, _name(pid))
        lasting = _lasting(pid, mappings)
        for number, (start, end) in enumerate(lasting):
            self._put("<QQ", RANGES + 16 * number, start, end)
        self._put("<Q", WORLD_RANGES, len(lasting))
        self._put_clock()

    def refresh(self, pid: int) -> None:
        """Write what may have changed, if that has not been done for a second."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + REFRESH_S
        self._put_clock()
        with contextlib.suppress(OSError):
            self._put("<I", WORLD_MAY_CALL, int(self._may_call(pid)))

    def _may_call(self, pid: int) -> bool:
        """Tell whether no seccomp filter might kill a thread of *pid* for a system call of a handler.

        In a container all have the filter that we have, and what it lets us do it lets the target do.
        """
        filtered = _filtered(pid)
        if not filtered:
            return True
        if not all(has_our_filters(pid, tid) for tid in filtered):
            return False
        if self._calls_pass is None:
            self._calls_pass = _calls_pass()
        return self._calls_pass

    def _put_clock(self) -> None:
        self._slot = (self._slot + 1) % len(CLOCK_SLOTS)
        at = CLOCK_SLOTS[self._slot]
        self._put("<24s", at, self._clock.slot())
        self._put("<Q", CLOCK, at)

    def _put(self, layout: str, offset: int, *values: object) -> None:
        struct.pack_into(layout, self._view, self._start + offset, *values)


def _name(pid: int) -> bytes:
    try:
        return procfs.read_comm(pid, pid)[:15]
    except OSError:
        return b""


def _filtered(pid: int) -> list[int]:
    """Return the threads of *pid* that have a seccomp filter."""
    found = []
    for tid in procfs.thread_ids(pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{tid}/status", "rb") as file:  # noqa: PTH123
            if b"\nSeccomp:\t0\n" not in file.read():
                found.append(tid)
    return found


def _calls_pass() -> bool:
    """Tell whether this process's own filters allow the calls that handlers make: a child of ours tries them out."""
    child = os.fork()
    if not child:
        status = 1
        try:
            status = int(not _try_calls())
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _try_calls() -> bool:
    call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
    room = ctypes.create_string_buffer(16)
    pair = (ctypes.c_uint64 * 4)(ctypes.addressof(room), 8, ctypes.addressof(room) + 8, 8)
    local, remote = ctypes.c_void_p(ctypes.addressof(pair)), ctypes.c_void_p(ctypes.addressof(pair) + 16)
    return (
        call(_SYS_GETPID) > 0
        and call(_SYS_GETTID) > 0
        and call(_SYS_PRCTL, _PR_GET_NAME, room) == 0
        and call(_SYS_PROCESS_VM_READV, os.getpid(), local, 1, remote, 1, 0) == 8
    )


def _lasting(pid: int, mappings: Iterable[Mapping]) -> list[tuple[int, int]]:
    """Return the readable memory of the program and of the objects that can't be unloaded, neighbours as one."""
    try:
        program = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
    except OSError:
        program = ""
    found: list[tuple[int, int]] = []
    for one in sorted(mappings, key=lambda one: one.start):
        name = one.path.rpartition("/")[2]
        if one.permissions[0] != "r" or not one.path.startswith("/"):
            continue
        if one.path != program and not name.startswith(_LASTING):
            continue
        if found and found[-1][1] == one.start:
            found[-1] = (found[-1][0], one.end)
        else:
            found.append((one.start, one.end))
    return found[:MAX_RANGES]
