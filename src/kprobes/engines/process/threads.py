"""Bringing every thread of a process to a standstill, and letting them go as if nothing had been.

All threads are seized (which stops nobody), interrupted, and waited for until each stands in PTRACE_EVENT_STOP. That is
the one stop where registers may be changed freely: a system call is over or will be restarted by the kernel, no signal
is half delivered. A signal that arrives first is delivered, and the thread stops at its handler's first instruction.
New threads are caught by PTRACE_O_TRACECLONE, those that were started by a thread not yet seized by looking again until
a look finds nobody new.

A thread waiting for its vfork child can't stop, and can't run either; the child shares the memory and does. Such a
child, and any other process on the same memory that is a child of the target, is stopped as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs, ptrace
from kprobes.engines.process.ptrace import TraceeGoneError
from kprobes.errors import SyscallError, TargetError

if TYPE_CHECKING:
    from kprobes.engines.process.ptrace import Registers

STOP_TIMEOUT_S = 5.0
SLEEPER_AFTER_S = 0.02
POLL_S = 20e-6

EINTR = -4 & (1 << 64) - 1
# -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND, -ERESTART_RESTARTBLOCK: the kernel will go back to the instruction.
RESTARTS = frozenset(-number & (1 << 64) - 1 for number in (512, 513, 514, 516))

# System calls that end with EINTR when their thread is merely stopped (signal(7), "interruption of system calls by
# stop signals"). They have done nothing yet, so we send the thread back to start them again.
RESTARTABLE = frozenset({0, 1, 43, 44, 45, 46, 47, 65, 128, 208, 220, 232, 281, 288, 441})

_KCMP = 312
_KCMP_VM = 1
_libc = ctypes.CDLL(None, use_errno=True)


def shares_memory(first: int, second: int) -> bool:
    """Tell whether two processes run in one address space."""
    return int(_libc.syscall(_KCMP, first, second, _KCMP_VM, 0, 0)) == 0


class StoppedThreads:
    """The threads of *pid*, all standing still between `stop` and `release`; a context manager.

    `registers` maps the ids of the stopped threads to their registers; `asleep` those of threads that wait for a vfork
    child to (sp, ip). `lingering` are threads that could not be let go because they sleep: call `reap` now and then.

    *held* is a thread that is ours and stopped already; `release` leaves it so, `let_run` lets it go.
    """

    def __init__(self, pid: int, *, held: int = 0) -> None:
        self.pid = pid
        self._held = held
        self.registers: dict[int, Registers] = {}
        self.asleep: dict[int, tuple[int, int]] = {}
        self.lingering: set[int] = set()
        self.owners: dict[int, int] = {}
        self._pending: dict[int, float] = {}
        self.stopped_at = 0.0

    def __enter__(self) -> StoppedThreads:
        try:
            self.stop()
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def tids(self) -> set[int]:
        """Return the threads that are ours, stopped or about to be."""
        return self._pending.keys() | self.registers.keys() | self.asleep.keys()

    def stop(self) -> None:
        """Stop every thread.

        Raises:
            SyscallError: the kernel refuses.
            TargetError: a thread doesn't stop, or the process ended.
        """
        self.stopped_at = time.monotonic()
        if self._held:
            self.owners[self._held] = self.pid
            self.registers[self._held] = ptrace.registers(self._held)
            return
        deadline = self.stopped_at + STOP_TIMEOUT_S
        while self._seize_new() or self._pending:
            self._collect(deadline)
        if not self.registers and not self.asleep:
            raise TargetError(f"process {self.pid} ended")

    def _processes(self) -> list[int]:
        found = [self.pid]
        for tid in [self.pid, *self.registers, *self.asleep]:
            if self.owners.get(tid, self.pid) != self.pid:
                continue
            with contextlib.suppress(OSError):
                found += [child for child in procfs.children_of(self.pid, tid) if shares_memory(self.pid, child)]
        return list(dict.fromkeys(found))

    def _seize_new(self) -> bool:
        """Seize the threads that aren't ours yet; tell whether there were any."""
        found = False
        for pid in self._processes():
            try:
                tids = procfs.thread_ids(pid)
            except FileNotFoundError:
                if pid == self.pid:
                    raise TargetError(f"process {pid} ended") from None
                continue
            known = self.tids
            for tid in tids:
                if tid not in known and self._seize(pid, tid):
                    found = True
        return found

    def _seize(self, pid: int, tid: int) -> bool:
        try:
            ptrace.seize(tid, ptrace.OPTION_CLONE | ptrace.OPTION_EXEC | ptrace.OPTION_SYSGOOD)
            ptrace.interrupt(tid)
        except TraceeGoneError:
            return False
        except SyscallError:
            try:
                status = procfs.read_status(pid, tid)
            except OSError:
                return False
            if status.state in "ZX":
                return False
            if status.tracer != os.getpid():
                raise
        self.owners[tid] = pid
        self._pending[tid] = time.monotonic()
        return True

    def _collect(self, deadline: float) -> None:
        while self._pending:
            for tid in list(self._pending):
                try:
                    status = ptrace.wait(tid, block=False)
                    if status is not None:
                        self._handle(tid, status)
                    elif time.monotonic() - self._pending[tid] > SLEEPER_AFTER_S:
                        self._look_asleep(tid)
                except TraceeGoneError:
                    self._pending.pop(tid, None)
            if self._pending:
                if time.monotonic() > deadline:
                    raise TargetError(
                        f"thread {next(iter(self._pending))} of process {self.pid} doesn't stop",
                        hint="it sleeps in the kernel where it can't be interrupted: try again later",
                    )
                time.sleep(POLL_S)

    def _handle(self, tid: int, status: int) -> None:
        if ptrace.is_end(status):
            del self._pending[tid]
            if tid == self.pid and not procfs_alive(self.pid):
                raise TargetError(f"process {self.pid} ended")
            return
        event = ptrace.event(status)
        if event == ptrace.EVENT_EXEC:
            raise TargetError(f"process {self.pid} started another program (exec) meanwhile", hint="attach again")
        if event == ptrace.EVENT_STOP:
            values = ptrace.registers(tid)
            self._restart_if_only_stopped(tid, values)
            self.registers[tid] = values
            del self._pending[tid]
            return
        ptrace.resume(tid, 0 if event else os.WSTOPSIG(status))

    def _look_asleep(self, tid: int) -> None:
        """Accept *tid* as standing still if it waits in vfork for a child on the same memory."""
        pid = self.owners[tid]
        self._pending[tid] = time.monotonic()
        try:
            if procfs.read_status(pid, tid).state != "D":
                return
            children = [child for child in procfs.children_of(pid, tid) if shares_memory(pid, child)]
            place = procfs.blocked_syscall(pid, tid) if children else None
        except OSError:
            return
        if place is not None:
            self.asleep[tid] = place
            del self._pending[tid]

    def _restart_if_only_stopped(self, tid: int, values: Registers) -> None:
        if values.ax != EINTR or values.orig_ax not in RESTARTABLE:
            return
        status = procfs.read_status(self.owners[tid], tid)
        if status.pending & ~status.blocked:
            return
        values.ax = values.orig_ax
        values.ip -= 2
        ptrace.set_registers(tid, values)

    def let_run(self) -> None:
        """Let the held thread go."""
        held, self._held = self._held, 0
        self.registers.clear()
        with contextlib.suppress(TraceeGoneError):
            ptrace.detach(held)

    def release(self) -> None:
        """Let every thread run on; idempotent."""
        if self._held:
            return
        for tid in self.registers:
            with contextlib.suppress(TraceeGoneError):
                ptrace.detach(tid)
        self.lingering |= self.asleep.keys() | self._pending.keys()
        self.registers.clear()
        self.asleep.clear()
        self._pending.clear()
        self.reap()

    def reap(self) -> bool:
        """Let go of lingering threads that have woken up; tell whether none is left."""
        for tid in list(self.lingering):
            try:
                status = ptrace.wait(tid, block=False)
                if status is None:
                    continue
                if not ptrace.is_end(status):
                    at_event = bool(ptrace.event(status))
                    ptrace.detach(tid, 0 if at_event else signal.Signals(os.WSTOPSIG(status)))
            except TraceeGoneError:
                pass
            self.lingering.discard(tid)
        return not self.lingering


def procfs_alive(pid: int) -> bool:
    """Tell whether *pid* still has a thread that is not a zombie."""
    try:
        return any(procfs.read_status(pid, tid).state not in "ZX" for tid in procfs.thread_ids(pid))
    except OSError:
        return False
