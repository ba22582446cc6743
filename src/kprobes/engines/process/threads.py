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
    from collections.abc import Iterable, Mapping

    from kprobes.engines.process.faults import FaultHandlers
    from kprobes.engines.process.patch import Resume
    from kprobes.engines.process.ptrace import Registers

STOP_TIMEOUT_S = 5.0
STARVED_TIMEOUT_S = 60.0
STUCK_S, STUCK_LOOKS = 0.5, 10
SLEEPER_AFTER_S = 0.02
POLL_S = 20e-6
PASS_S = 200e-6  # longer than most handlers run

EINTR = -4 & (1 << 64) - 1
# -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND, -ERESTART_RESTARTBLOCK: the kernel will go back to the instruction.
RESTARTS = frozenset(-number & (1 << 64) - 1 for number in (512, 513, 514, 516))

# System calls that end with EINTR when their thread is merely stopped (signal(7), "interruption of system calls by
# stop signals"). They have done nothing yet, so we send the thread back to start them again.
RESTARTABLE = frozenset({0, 1, 43, 44, 45, 46, 47, 65, 128, 208, 220, 232, 281, 288, 441})

SI_KERNEL = 0x80
TAKEN_POLL_S = 0.003

_KCMP = 312
_KCMP_VM = 1
_libc = ctypes.CDLL(None, use_errno=True)


def shares_memory(first: int, second: int) -> bool:
    """Tell whether two processes run in one address space."""
    return int(_libc.syscall(_KCMP, first, second, _KCMP_VM, 0, 0)) == 0


class TakenError(TargetError):
    """The process *pid* is traced by the process *tracer*."""

    def __init__(self, pid: int, tracer: int) -> None:
        super().__init__(
            f"process {pid} is traced by process {tracer} already",
            hint="a process has one tracer at a time: end the other first; a killed session lets go in a moment",
        )


# Signals by which the processor's own faults are told.
FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP})


class LetGo:
    """What `release` does with the threads: let them run free, keep them as they are, or let them run as ours."""

    FREE = "free"
    HELD = "held"
    TRACED = "traced"


FREE_OPTIONS = ptrace.OPTION_CLONE | ptrace.OPTION_EXEC | ptrace.OPTION_SYSGOOD
TRACED_OPTIONS = FREE_OPTIONS | ptrace.OPTION_FORK | ptrace.OPTION_VFORK


class StoppedThreads:
    """The threads of *pid*, all standing still between `stop` and `release`; a context manager.

    `registers` maps the ids of the stopped threads to their registers; `asleep` those of threads that wait for a vfork
    child to (sp, ip). `lingering` are threads that could not be let go because they sleep: call `reap` now and then.
    `running` are threads that are ours and run (LetGo.TRACED). `in_group_stop` are those that would not run if they
    were let go (SIGSTOP and the like). `strangers` are threads and forked children that became ours by themselves and
    are yet to be seen to.

    *held* is a thread that is ours and stopped already. `traps` are the addresses of breakpoints: a thread that stops
    for one is backed up to it.
    """

    def __init__(self, pid: int, *, held: int = 0) -> None:
        self.pid = pid
        self.let_go = LetGo.HELD if held else LetGo.FREE
        self.registers: dict[int, Registers] = {}
        self.asleep: dict[int, tuple[int, int]] = {}
        self.lingering: set[int] = set()
        self.running: set[int] = set()
        self.strangers: set[int] = set()
        self.traps: Mapping[int, int] = {}
        self.copies: Mapping[int, Resume] = {}
        self.on_fault: FaultHandlers | None = None
        self.owners: dict[int, int] = {}
        self.stopped_at = 0.0
        self._pending: dict[int, float] = {}
        self.in_group_stop: set[int] = set()
        if held:
            self.owners[held] = pid
            self.registers[held] = ptrace.registers(held)

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
        if self.let_go == LetGo.HELD:
            self.registers = {tid: ptrace.registers(tid) for tid in self.registers}
            return
        self._interrupt_running()
        deadline = self.stopped_at + STOP_TIMEOUT_S
        while not self._stop_all(deadline):
            time.sleep(TAKEN_POLL_S)
        if not self.registers and not self.asleep:
            raise TargetError(f"process {self.pid} ended")

    def let_pass(self, tids: Iterable[int]) -> None:
        """Let the stopped *tids* run on for a moment, while the others stand still, and stop them again.

        Raises:
            SyscallError, TargetError: as `stop`.
        """
        for tid in tids:
            del self.registers[tid]
            with contextlib.suppress(TraceeGoneError):
                self.go_on(tid)
                self.running.add(tid)
        time.sleep(PASS_S)
        self._interrupt_running()
        while not self._stop_all(time.monotonic() + STOP_TIMEOUT_S):
            time.sleep(TAKEN_POLL_S)

    def _stop_all(self, deadline: float) -> bool:
        """Stop every thread; return False, with none stopped, where another traces one for the moment.

        That is another session like this one, or one that was killed and is still letting go.
        """
        try:
            while self._seize_new() or self._pending:
                self._collect(deadline)
        except TakenError:
            self._collect(deadline)
            self.release()
            if time.monotonic() > deadline:
                raise
            self.stopped_at = time.monotonic()
            return False
        return True

    def _interrupt_running(self) -> None:
        for tid in self.running:
            with contextlib.suppress(TraceeGoneError):
                ptrace.interrupt(tid)
                self._pending[tid] = time.monotonic()
        self.running.clear()

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

    def _seize(self, pid: int, tid: int, tries: int = 3) -> bool:
        try:
            ptrace.seize(tid, FREE_OPTIONS)
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
            if status.tracer and status.tracer != os.getpid():
                raise TakenError(pid, status.tracer) from None
            if not status.tracer:
                if not tries:
                    raise
                time.sleep(TAKEN_POLL_S)  # it was another's until just now
                return self._seize(pid, tid, tries - 1)
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
                    deadline = self._give_more_time()
                time.sleep(POLL_S)

    def _give_more_time(self) -> float:
        """Return a later deadline if the threads that haven't stopped only wait for a processor.

        Raises:
            TargetError: one sleeps.
        """
        for tid in self._pending:
            if self._is_stuck(tid):
                raise TargetError(
                    f"thread {tid} of process {self.pid} doesn't stop",
                    hint="it sleeps in the kernel where it can't be interrupted: try again later",
                )
        if time.monotonic() > self.stopped_at + STARVED_TIMEOUT_S:
            raise TargetError(f"process {self.pid} doesn't stop", hint="the machine is overloaded: try again later")
        return time.monotonic() + STOP_TIMEOUT_S

    def _is_stuck(self, tid: int) -> bool:
        """Tell whether *tid* sleeps in the kernel, uninterrupted and without having run for a while."""
        try:
            switches = procfs.switches(self.owners[tid], tid)
            for _ in range(STUCK_LOOKS):
                if procfs.read_status(self.owners[tid], tid).state != "D":
                    return False
                time.sleep(STUCK_S / STUCK_LOOKS)
            return procfs.switches(self.owners[tid], tid) == switches
        except OSError:
            return False

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
            is_group_stop = self.note_group_stop(tid, status)
            values = ptrace.registers(tid)
            if not is_group_stop and self._has_hit(tid, values):
                ptrace.resume(tid)
                return
            self._restart_if_only_stopped(tid, values)
            self.registers[tid] = values
            del self._pending[tid]
            return
        # Whatever else a thread stops for (it is starting another one, say) makes the kernel forget the request.
        ptrace.interrupt(tid)
        self.pass_on(tid, status)

    def _has_hit(self, tid: int, values: Registers) -> bool:
        """Tell whether *tid* has run into a breakpoint and stopped before it could tell: its SIGTRAP comes next.

        Left where it is, the signal would kill the program as soon as nobody traces it.
        """
        if values.ip - 1 not in self.traps:
            return False
        status = procfs.read_status(self.owners[tid], tid)
        return bool(status.pending & ~status.blocked & 1 << signal.SIGTRAP - 1)

    def note_group_stop(self, tid: int, status: int) -> bool:
        """Remember whether an event stop of *tid* is a group stop (SIGSTOP and the like), and tell."""
        if os.WSTOPSIG(status) == signal.SIGTRAP:
            self.in_group_stop.discard(tid)
            return False
        self.in_group_stop.add(tid)
        return True

    def pass_on(self, tid: int, status: int) -> None:
        """Let *tid* go on from a stop that isn't an event stop; a breakpoint of ours is backed up to."""
        event = ptrace.event(status)
        if event in {ptrace.EVENT_FORK, ptrace.EVENT_VFORK, ptrace.EVENT_CLONE} and self.let_go == LetGo.TRACED:
            self.strangers.add(ptrace.event_message(tid))
        passed = 0 if event else os.WSTOPSIG(status)
        if self.traps and passed == signal.SIGTRAP:
            values = ptrace.registers(tid)
            if values.ip - 1 in self.traps and ptrace.signal_code(tid) == SI_KERNEL:
                values.ip -= 1
                ptrace.set_registers(tid, values)
                passed = 0
        if (self.copies or self.on_fault) and passed in FAULTS:
            passed = self._put_right(tid, passed)
        ptrace.resume(tid, passed)

    def _put_right(self, tid: int, passed: int) -> int:
        """Let a fault of an instruction's copy be one of the instruction itself, before the program hears of it; run
        what runs on faults. Return the signal to deliver, 0 for none."""
        found = ptrace.registers(tid)
        original = self.copies.get(found.ip)
        if (original is None and self.on_fault is None) or ptrace.signal_code(tid) <= 0:
            return passed
        values = found.copy()
        if original is not None:
            ptrace.replace_fault_address(tid, found.ip, original.address)
            values.ip = original.address
            values.sp += original.pop
            ptrace.set_registers(tid, values)
        return passed if self.on_fault is None else self.on_fault.handle(tid, passed, values, found)

    def _look_asleep(self, tid: int) -> None:
        """Accept *tid* as standing still if it waits in vfork for a child on the same memory, or has ended.

        The first thread tells its end only after all others have been waited for, those that stand still too.
        """
        pid = self.owners[tid]
        self._pending[tid] = time.monotonic()
        try:
            state = procfs.read_status(pid, tid).state
            if state in "ZX" and tid == pid:
                del self._pending[tid]
                self.lingering.add(tid)
                if pid == self.pid and not procfs_alive(pid):
                    raise TargetError(f"process {self.pid} ended")
            if state != "D":
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

    def release(self) -> None:
        """Let every thread go, as `let_go` says; idempotent."""
        if self.let_go == LetGo.HELD:
            return
        if self.let_go == LetGo.TRACED:
            self._run_traced()
        else:
            for tid in self.registers:
                try:
                    ptrace.detach(tid)
                except TraceeGoneError:  # it was killed: its end wants to be waited for, or its process never ends
                    self.lingering.add(tid)
            self.lingering |= self.asleep.keys() | self._pending.keys()
        self.registers.clear()
        self.asleep.clear()
        self._pending.clear()
        self.reap()

    def _run_traced(self) -> None:
        for tid in self.registers:
            with contextlib.suppress(TraceeGoneError):
                ptrace.set_options(tid, TRACED_OPTIONS)
                self.go_on(tid)
                self.running.add(tid)
        self.running |= self.asleep.keys() | self._pending.keys()

    def go_on(self, tid: int) -> None:
        """Let *tid* run from an event stop, or stay in its group stop."""
        if tid in self.in_group_stop:
            ptrace.listen(tid)
        else:
            ptrace.resume(tid)

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
