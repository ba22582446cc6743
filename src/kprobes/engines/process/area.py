"""Our memory in the target: code near the code it serves, the owner table, and the memfd shared with the controller.

Nothing is ever writable and executable at once: code areas are mapped read and execute and are written through
/proc/PID/mem. The memfd is created by the target (so it lives in the target's own limits and namespaces), opened by the
controller through /proc/TID/fd, sized and sealed there; the target keeps the mapping and closes the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kprobes.engines.process import inject, ptrace
from kprobes.engines.process.registry import NAME
from kprobes.errors import SyscallError, TargetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.process.inject import RemoteCalls
    from kprobes.engines.process.layout import SharedLayout
    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.threads import StoppedThreads

_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_SHARED, _MAP_PRIVATE, _MAP_ANONYMOUS = 1, 2, 0x20
_MAP_FIXED_NOREPLACE = 0x100000
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_NOEXEC_SEAL = 1, 2, 8
_MADV_WIPEONFORK = 18
_F_ADD_SEALS = 1033
_SEALS = 1 | 2 | 4  # no more seals, no shrinking, no growing


@dataclass(slots=True)
class Area:
    """What is mapped: *code* and *table* as (start, size), the memfd at *base* in the target.

    *view* is the controller's mapping of the memfd. *wiped* tells whether a forked child gets an empty table.
    """

    layout: SharedLayout
    code: list[tuple[int, int]] = field(default_factory=list)
    table: int = 0
    base: int = 0
    wiped: bool = False
    file: int = -1
    view: mmap.mmap | None = None

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """Return every mapping of ours but the memfd's, (start, size) each."""
        return [*self.code, (self.table, self.layout.table_size)] if self.table else list(self.code)

    @property
    def shared(self) -> mmap.mmap:
        """Return the controller's mapping of the memfd.

        Raises:
            TargetError: it has been closed.
        """
        if self.view is None:
            raise TargetError("the shared memory is closed")
        return self.view

    def close(self) -> None:
        """Close the controller's side."""
        if self.view is not None:
            with contextlib.suppress(BufferError):
                self.view.close()
            self.view = None
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


def choose_thread(threads: StoppedThreads, memory: ProcessMemory) -> int:
    """Return the stopped thread that may best be borrowed: one asleep in a system call, never one inside of a
    restartable sequence, which the kernel would not abort once its instruction pointer has been elsewhere.

    Raises:
        TargetError: there is none.
    """
    candidates = sorted(threads.registers, key=lambda tid: threads.registers[tid].orig_ax >= 1 << 63)
    for tid in candidates:
        if threads.owners[tid] == threads.pid and not _in_sequence(tid, memory):
            return tid
    raise TargetError(f"process {threads.pid} has no thread that can be borrowed now", hint="try again")


def _in_sequence(tid: int, memory: ProcessMemory) -> bool:
    configuration = ptrace.rseq(tid)
    if configuration is None:
        return False
    return any(memory.read_some(configuration.area + 8, 8))


def map_area(
    calls: RemoteCalls, tid: int, memory: ProcessMemory, area: Area, places: Sequence[tuple[int, int]]
) -> None:
    """Map everything of *area* into the target, its code at *places* ((address, size) each), all or nothing.

    Raises:
        SyscallError: the target has no room (ENOMEM), no free descriptor (EMFILE), or a place was taken (EEXIST).
    """
    try:
        for address, size in places:
            _map_code(calls, address, size)
            area.code.append((address, size))
        _map_table(calls, area)
        memory.write(area.code[0][0], NAME.encode() + b"\0")
        _map_shared(calls, tid, area)
    except BaseException:
        with contextlib.suppress(TargetError, SyscallError):
            unmap_area(calls, area)
        area.close()
        raise


def map_more_code(calls: RemoteCalls, area: Area, places: Sequence[tuple[int, int]]) -> None:
    """Map more code into the target, all or nothing.

    Raises:
        SyscallError: the target has no room (ENOMEM), or a place was taken (EEXIST).
    """
    done: list[tuple[int, int]] = []
    try:
        for address, size in places:
            _map_code(calls, address, size)
            done.append((address, size))
    except BaseException:
        with contextlib.suppress(TargetError, SyscallError):
            for address, size in done:
                calls.call("unmapping", inject.SYS_MUNMAP, address, size)
        raise
    area.code += done


def _map_code(calls: RemoteCalls, address: int, size: int) -> None:
    flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
    found = calls.call("mapping code", inject.SYS_MMAP, address, size, _PROT_READ | _PROT_EXEC, flags, -1, 0)
    if found != address:  # before 4.17 the flag is only a hint
        calls.call("unmapping", inject.SYS_MUNMAP, found, size)
        raise SyscallError("mapping code", errno.EEXIST)


def _map_table(calls: RemoteCalls, area: Area) -> None:
    protection, flags = _PROT_READ | _PROT_WRITE, _MAP_PRIVATE | _MAP_ANONYMOUS
    size = area.layout.table_size
    area.table = calls.call("mapping the thread table", inject.SYS_MMAP, 0, size, protection, flags, -1, 0)
    try:
        calls.call("marking the table", inject.SYS_MADVISE, area.table, size, _MADV_WIPEONFORK)
        area.wiped = True
    except SyscallError:  # before 4.14
        area.wiped = False


def _map_shared(calls: RemoteCalls, tid: int, area: Area) -> None:
    name, size = area.code[0][0], area.layout.size
    doing = "creating shared memory"
    try:
        remote = calls.call(doing, inject.SYS_MEMFD_CREATE, name, _MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except SyscallError as error:  # the flag is known since 6.3
        if error.errno != errno.EINVAL:
            raise
        remote = calls.call(doing, inject.SYS_MEMFD_CREATE, name, _MFD_CLOEXEC | _MFD_ALLOW_SEALING)
    try:
        area.file = os.open(f"/proc/{tid}/fd/{remote}", os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(area.file, size)
        fcntl.fcntl(area.file, _F_ADD_SEALS, _SEALS)
        area.view = mmap.mmap(area.file, size)
        area.base = calls.call(
            "mapping shared memory", inject.SYS_MMAP, 0, size, _PROT_READ | _PROT_WRITE, _MAP_SHARED, remote, 0
        )
    except OSError as error:
        if isinstance(error, SyscallError):
            raise
        raise SyscallError(doing, error.errno or 0) from None
    finally:
        calls.call("closing", inject.SYS_CLOSE, remote)


def unmap_area(calls: RemoteCalls, area: Area, *, keep_code: bool = False) -> None:
    """Unmap everything of *area* from the target; *keep_code* where a thread is still inside."""
    if keep_code:
        return
    for start, size in area.pieces:
        calls.call("unmapping", inject.SYS_MUNMAP, start, size)
    if area.base:
        calls.call("unmapping", inject.SYS_MUNMAP, area.base, area.layout.size)
    area.code, area.table, area.base = [], 0, 0
