"""Handlers that run when a probed instruction faults, before the program gets its signal.

Nothing changes in the program's code for them: all threads are traced, so the hand sees each fault. It lays `pt_regs`
below the stack of the thread that has faulted and lets that thread, alone and with all other signals blocked, run the
handler (see `handlers.py`). The thread comes back by a system call that is never made (PTRACE_SYSEMU), so that what the
kernel remembers of the fault (`cr2`, `trapno`, `err` in the program's `ucontext`) stays as it was. Then it gets its
signal with the siginfo of the fault, or goes on without, as the handler said.

A thread whose stack has no room, or ends while the handler runs on it, has its registers put back: a missed fault.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.arch.x86_64.registers import PT_REGS, PT_REGS_SIZE
from kprobes.engines.process import ptrace
from kprobes.engines.process.layout import BLOCK_GUARD
from kprobes.engines.process.owners import claim_block
from kprobes.engines.process.ptrace import TraceeGoneError
from kprobes.errors import SyscallError, TargetError
from kprobes.model.layout import SITE_COUNTERS
from kprobes.model.plan import LEFT, OMITTED

if TYPE_CHECKING:
    from collections.abc import Set

    from kprobes.engines.process.area import Area
    from kprobes.engines.process.detours import Detours
    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.ptrace import Registers

SIGNALS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
_OURS = SIGNALS | {signal.SIGTRAP}
_BLOCKED = (1 << 64) - 1 - sum(1 << number - 1 for number in (*_OURS, signal.SIGSYS))
_RED_ZONE = 128
_BEHIND = struct.Struct("<QQ")  # the signal's number and its address, behind pt_regs
_FRAME = PT_REGS_SIZE + _BEHIND.size
_FLAGS = 0x202  # none set but the interrupt flag
_NO_CALL = (1 << 64) - 1
_KEPT = frozenset({"orig_ax", "cs", "ss"})  # what no handler changes
TOUCH_SIZE = 4
_SI_ADDR = 16
_HITS, _MISSED = SITE_COUNTERS.index("hits"), SITE_COUNTERS.index("missed")
_YIELDS = 200
_PAUSE_S, _LOOK_AFTER = 50e-6, 1000
_SYS_TGKILL = 234

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class FaultSite:
    """What runs when the instruction *code* faults: *calls* are (number of the site, address of the handler), *stub* is
    what calls them."""

    code: bytes
    calls: tuple[tuple[int, int], ...]
    stub: int


class FaultHandlers:
    """Runs the handlers of `detours.faults` in a process whose *memory* is open, with ours mapped as *area*.

    `disabled` are the numbers of sites that rest. Made while the target stands still.
    """

    def __init__(self, detours: Detours, memory: ProcessMemory, area: Area) -> None:
        self._detours = detours
        self._memory = memory
        self._area = area
        self._own = claim_block(area)
        self.disabled: Set[int] = frozenset()

    def handle(self, tid: int, number: int, values: Registers, found: Registers) -> int:
        """Run what there is for a fault of *tid*, which is stopped for signal *number*; return the signal to deliver.

        *values* are its registers as of the instruction itself, *found* what they were before they were put right.

        Raises:
            TraceeGoneError: it was killed; its end is yet to be waited for.
        """
        site = self._detours.faults.get(values.ip)
        if site is None or number not in SIGNALS:
            return number
        calls = [call for call in site.calls if call[0] not in self.disabled]
        in_place = values.ip == found.ip
        if in_place and self._memory.read_some(values.ip, len(site.code)) != site.code:
            return number  # the object has gone, and something else has come to its place
        loan = _Loan(tid, number)
        now = values.copy()
        goes_on = 0
        try:
            for where, entry in calls:
                goes_on = self._call(loan, (where, entry, site.stub), now)
                if goes_on:
                    break
        finally:
            if goes_on & OMITTED and not goes_on & LEFT:
                goes_on = self._skip(now, values.ip + len(site.code))
            elif goes_on and now.ip == values.ip:  # once more: not by way of the jump, or it would count as a hit
                now.ip, now.sp = found.ip, now.sp + found.sp - values.sp
            number = loan.end(now, swallow=bool(goes_on))
        return number

    def _call(self, loan: _Loan, call: tuple[int, int, int], now: Registers) -> int:
        """Let the thread run the handler of the site *call*: (number, handler, stub), with the registers *now*, which
        are changed as it says; return what it returned."""
        where, entry, stub = call
        frame = (now.sp - _RED_ZONE - _FRAME) & -16
        content = bytes(now)[:PT_REGS_SIZE] + _BEHIND.pack(loan.number, loan.address)
        if now.sp < 1 << 16 or not self._place(loan, frame, content, (stub, now)):
            self._count(self._own, where, _MISSED, 1)
            return 0
        if not loan.run(_as_called(now, stub + TOUCH_SIZE, frame, where, entry)):
            self._forgive(frame, where)
            return 0
        result = ptrace.registers(loan.tid).bx & (LEFT | OMITTED)
        changed = self._memory.read_some(frame, PT_REGS_SIZE)
        if len(changed) != PT_REGS_SIZE:  # another thread has unmapped its stack
            return 0
        for name, before, after in zip(PT_REGS, _words(content), _words(changed), strict=True):
            if after != before and name not in _KEPT:
                setattr(now, name, after)
        return result

    def _place(self, loan: _Loan, frame: int, content: bytes, at: tuple[int, Registers]) -> bool:
        """Write *content* at *frame*, on the thread's stack; tell whether the thread itself may write there."""
        if _write_as_itself(loan.tid, frame, content):
            return True
        stub, now = at  # it may be a stack that grows when it is touched, at both ends of what will be written
        for place in (frame + len(content) - 1, frame):
            if not loan.run(_as_called(now, stub, place, 0, 0)):
                return False
        try:
            self._memory.write(frame, content)
        except TargetError:
            return False
        return True

    def _skip(self, now: Registers, after: int) -> int:
        """Let *now* go on at *after*, or at its copy where a jump has taken its place; 0 where there is none."""
        if not any(one.address <= after < one.end and after != one.head for one in self._detours.patches):
            now.ip = after
            return OMITTED
        copies = (copy for copy, back in self._detours.resume.items() if back.address == after and not back.pop)
        now.ip = min(copies, default=now.ip)
        return OMITTED if now.ip != after and now.ip in self._detours.resume else 0

    def _forgive(self, frame: int, where: int) -> None:
        """Count a fault whose handler ran out of stack as missed rather than as a hit."""
        at = PT_REGS.index("orig_ax") * 8
        (block,) = struct.unpack("<Q", self._memory.read_some(frame + at, 8).ljust(8, b"\0"))
        layout = self._area.layout
        number, rest = divmod(block - self._area.base - layout.blocks_at, layout.stride)
        if not rest and 0 <= number < layout.blocks:
            self._count(number, where, _HITS, -1)
            struct.pack_into("<Q", self._area.shared, layout.blocks_at + number * layout.stride + BLOCK_GUARD, 0)
        self._count(self._own, where, _MISSED, 1)

    def _count(self, block: int, site: int, kind: int, amount: int) -> None:
        layout = self._area.layout
        at = layout.blocks_at + block * layout.stride + layout.counter(site, kind)
        (value,) = struct.unpack_from("<Q", self._area.shared, at)
        struct.pack_into("<Q", self._area.shared, at, max(value + amount, 0) & (1 << 64) - 1)


class _Loan:
    """The thread *tid*, stopped for the fault *number*, while it runs something of ours.

    `address` is that of the fault. What comes for the thread meanwhile is kept until `end`.
    """

    def __init__(self, tid: int, number: int) -> None:
        self.tid = tid
        self.number = number
        self._info = ptrace.signal_info(tid)
        (self.address,) = struct.unpack_from("<Q", self._info, _SI_ADDR)
        self._mask = ptrace.signal_mask(tid)
        self._at_call = False
        self._interrupted = False
        self._put_off: list[int] = []
        ptrace.set_signal_mask(tid, _BLOCKED)

    def run(self, values: Registers) -> bool:
        """Let the thread run from *values* on to its next system call; tell whether it got there without a fault."""
        ptrace.set_registers(self.tid, values)
        while True:
            try:
                ptrace.resume_to_unmade_call(self.tid)
            except SyscallError:  # this kernel can't
                return False
            event, number = self._next()
            self._at_call = not event and number == ptrace.SYSCALL_STOP_SIGNAL
            if self._at_call:
                return True
            if not event and number in (*_OURS, signal.SIGSYS) and ptrace.signal_code(self.tid) > 0:
                return number == signal.SIGSYS  # the program has its system calls sent to itself (as Wine does)
            self._keep(event, number)

    def end(self, values: Registers, *, swallow: bool) -> int:
        """Put the thread where it can be let go with *values*; return the signal to deliver, 0 to *swallow* it."""
        ptrace.set_registers(self.tid, values)
        ptrace.set_signal_mask(self.tid, self._mask & ~(1 << self.number - 1))
        if self._at_call and not swallow:
            self._stop_again()
        if not swallow:
            ptrace.set_signal_info(self.tid, self._info)
        if self._interrupted:
            ptrace.interrupt(self.tid)
        for number in self._put_off:
            _libc.syscall(_SYS_TGKILL, _group_of(self.tid), self.tid, number)
        return 0 if swallow else self.number

    def _stop_again(self) -> None:
        """Bring the thread from its system call to a stop for its signal."""
        passed = self.number
        while True:
            ptrace.resume(self.tid, passed)
            event, number = self._next()
            if not event and number == self.number:
                return
            self._keep(event, number)
            passed = 0

    def _keep(self, event: int, number: int) -> None:
        if event:
            self._interrupted = True
        elif number not in self._put_off:
            self._put_off.append(number)

    def _next(self) -> tuple[int, int]:
        """Wait for the thread's next stop; return its event and its signal.

        Raises:
            TraceeGoneError: it has ended; that is still to be waited for.
        """
        for look in range(1 << 62):
            status = ptrace.peek(self.tid)
            if status is not None:
                if ptrace.is_end(status) or ptrace.event(status) == ptrace.EVENT_EXEC:
                    break
                ptrace.wait(self.tid, block=False)
                return ptrace.event(status), os.WSTOPSIG(status)
            if look < _YIELDS:
                os.sched_yield()
                continue
            if look % _LOOK_AFTER == 0 and ptrace.is_zombie(self.tid):
                break
            time.sleep(_PAUSE_S)
        raise TraceeGoneError(self.tid)


def _as_called(now: Registers, stub: int, frame: int, site: int, entry: int) -> Registers:
    """Return the registers *now* for a run of the stub; see `handlers.py`."""
    values = now.copy()
    values.ip, values.sp, values.di, values.si, values.bx = stub, frame & -16, frame, site, entry
    values.flags, values.orig_ax = _FLAGS, _NO_CALL
    return values


def _words(content: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f"<{len(PT_REGS)}Q", content)


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def _write_as_itself(tid: int, address: int, content: bytes) -> bool:
    """Write *content* at *address* of *tid* only if the thread itself may; tell whether that was done."""
    buffer = ctypes.create_string_buffer(content, len(content))
    here, there = _Vector(ctypes.addressof(buffer), len(content)), _Vector(address, len(content))
    written = _libc.process_vm_writev(tid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return int(written) == len(content)


def _group_of(tid: int) -> int:
    from kprobes.engines.process import procfs

    return procfs.leader(tid)
