"""System calls made by a thread of the target on our behalf.

The thread must stand in PTRACE_EVENT_STOP. Its instruction pointer is set to a `syscall` instruction that exists
already (the vDSO has one, in static programs too), so nothing is written for it and no stack is needed: it works with
fs = 0 and the smallest stacks. Syscall stops are used rather than single steps, since a step ends in a forced SIGTRAP,
which would reset a target's own disposition of that signal. All signals are blocked meanwhile; they stay pending.
Afterwards the thread is brought to an event stop again before its registers are put back: there the kernel restarts an
interrupted system call as it would have done without us.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kprobes.engines.process import ptrace
from kprobes.errors import SyscallError, TargetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.procfs import Mapping
    from kprobes.engines.process.ptrace import Registers

SYSCALL_INSTRUCTION = b"\x0f\x05"
NO_SYSCALL = (1 << 64) - 1
ALL_SIGNALS = (1 << 64) - 1
MAX_ERRNO = 4095
_OPTIONS = ptrace.OPTION_SYSGOOD | ptrace.OPTION_EXEC
SEARCH_BYTES = 1 << 20

SYS_CLOSE = 3
SYS_MMAP = 9
SYS_MUNMAP = 11
SYS_MADVISE = 28
SYS_MEMFD_CREATE = 319


def find_syscall(memory: ProcessMemory, mappings: Sequence[Mapping]) -> int:
    """Return the address of a `syscall` instruction in the target: in the vDSO, else anywhere in its code.

    Raises:
        TargetError: there is none.
    """
    code = [mapping for mapping in mappings if mapping.executable and mapping.path != "[vsyscall]"]
    for mapping in sorted(code, key=lambda mapping: mapping.path != "[vdso]"):
        content = memory.read_some(mapping.start, min(mapping.end - mapping.start, SEARCH_BYTES))
        found = content.find(SYSCALL_INSTRUCTION)
        if found >= 0:
            return mapping.start + found
    raise TargetError(f"process {memory.pid} has no system call instruction to borrow")


class RemoteCalls:
    """System calls by the stopped thread *tid*; a context manager that puts the thread back as it was.

    *gadget* is the address of a `syscall` instruction.
    """

    def __init__(self, tid: int, gadget: int) -> None:
        self._tid = tid
        self._gadget = gadget
        self._lifted = False
        self._saved: Registers | None = None
        self._mask = 0
        self._used = False

    def lift_seccomp(self) -> bool:
        """Lift the thread's seccomp filters until the end; return whether that could be done.

        It takes CAP_SYS_ADMIN, and a tracer without filters of its own.
        """
        try:
            ptrace.set_options(self._tid, _OPTIONS | ptrace.OPTION_SUSPEND_SECCOMP)
        except SyscallError:
            return False
        self._lifted = True
        return True

    def __enter__(self) -> RemoteCalls:
        self._saved = ptrace.registers(self._tid)
        self._mask = ptrace.signal_mask(self._tid)
        ptrace.set_signal_mask(self._tid, ALL_SIGNALS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is None:
            return
        if self._used:
            ptrace.interrupt(self._tid)
            ptrace.resume(self._tid)
            self._wait(ptrace.EVENT_STOP)
        ptrace.set_registers(self._tid, self._saved)
        ptrace.set_signal_mask(self._tid, self._mask)
        if self._lifted:
            ptrace.set_options(self._tid, _OPTIONS)
        self._saved = None

    def _wait(self, event: int) -> None:
        """Wait for *event*, or for a syscall stop where it is 0; pass on what else comes."""
        while True:
            status = ptrace.wait_stop(self._tid)
            if status is None or ptrace.is_end(status):
                self._saved = None
                raise TargetError(f"process ended while it was being attached (thread {self._tid})")
            number, stop = ptrace.event(status), os.WSTOPSIG(status)
            if number == event and (number or stop == ptrace.SYSCALL_STOP_SIGNAL):
                return
            passed = 0 if number or stop == ptrace.SYSCALL_STOP_SIGNAL else stop
            if event:
                ptrace.interrupt(self._tid)  # any other stop makes the kernel forget that it was asked for
                ptrace.resume(self._tid, passed)
            else:
                ptrace.resume_to_syscall(self._tid, passed)

    def call(self, doing: str, number: int, *arguments: int) -> int:
        """Make system call *number* and return its result; *doing* is what an error says.

        Raises:
            SyscallError: it failed, or a filter refused it.
            TargetError: the process ended.
        """
        if self._saved is None:
            raise TargetError("the thread is not held")
        values = self._saved.copy()
        values.ip, values.ax, values.orig_ax = self._gadget, number, NO_SYSCALL
        for name, value in zip(("di", "si", "dx", "r10", "r8", "r9"), arguments, strict=False):
            setattr(values, name, value & NO_SYSCALL)
        ptrace.set_registers(self._tid, values)
        self._used = True
        for _ in range(2):
            ptrace.resume_to_syscall(self._tid)
            self._wait(0)
        result = ptrace.registers(self._tid).ax
        if result > NO_SYSCALL - MAX_ERRNO:
            raise SyscallError(doing, (1 << 64) - result)
        return result
