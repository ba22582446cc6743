"""Standstills of one target: each checks that it is still the same process, and none leaves a thread behind."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.area import choose_thread
from kprobes.engines.process.inject import RemoteCalls, find_syscall
from kprobes.engines.process.registry import registries
from kprobes.engines.process.seccomp import has_our_filters, may_map
from kprobes.engines.process.threads import LetGo, StoppedThreads
from kprobes.errors import PrivilegeError, TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.patch import Resume
    from kprobes.engines.process.procfs import Mapping as Memory
    from kprobes.engines.process.registry import Identity


@dataclass(frozen=True, slots=True)
class Proof:
    """The shared memory that an undo belongs to: where the target maps it, and its inode."""

    address: int
    inode: int


class Stops:
    """Brings *target* to a standstill again and again. `pauses_ms` are the times it stood still.

    *held* is the only thread of a program that has just been started: it stays stopped until `run`. After `keep` the
    threads stay ours while they run. *proof* is set once memory of ours is mapped: what was done with it is undone only
    as long as it is still there, since another may have cleaned up meanwhile, or an exec taken everything away.
    """

    def __init__(self, target: Identity, memory: ProcessMemory, *, held: int = 0) -> None:
        self.target = target
        self.memory = memory
        self.pauses_ms: list[float] = []
        self.kept: StoppedThreads | None = StoppedThreads(target.pid, held=held) if held else None
        self.proof: Proof | None = None
        self._lingering: list[StoppedThreads] = []

    def beside(self, memory: ProcessMemory) -> Stops:
        """Return the standstills of the same target for another plan: the threads are kept in common."""
        found = Stops(self.target, memory)
        found.kept = self.kept
        return found

    def take_lingering(self, other: Stops) -> None:
        """See to the threads that *other* could not let go of."""
        self._lingering += other._lingering
        other._lingering = []

    @contextlib.contextmanager
    def stopped(self) -> Iterator[StoppedThreads]:
        """Stop every thread for as long as the block runs.

        Raises:
            TargetError: the process ended, or a thread doesn't stop.
        """
        if procfs.read_start_time(self.target.pid) != self.target.start_time:
            raise TargetError(f"process {self.target.pid} ended", hint="another process has its number now")
        threads = self.kept or StoppedThreads(self.target.pid)
        try:
            with threads:
                yield threads
        finally:
            self.pauses_ms.append((time.monotonic() - threads.stopped_at) * 1000)
            if threads.lingering:
                self._lingering.append(threads)

    def keep(self, threads: StoppedThreads, traps: Mapping[int, int], copies: Mapping[int, Resume]) -> None:
        """Keep the stopped *threads* ours when they run, so that the breakpoints *traps* can be served.

        Faults at the addresses *copies* are told as of what these stand for.
        """
        threads.traps, threads.copies = traps, copies
        self.kept = threads
        if threads.let_go != LetGo.HELD:
            threads.let_go = LetGo.TRACED

    def set_free(self, threads: StoppedThreads) -> None:
        """Let the stopped *threads* run free from now on."""
        threads.let_go = LetGo.FREE
        threads.traps, threads.copies, threads.on_fault = {}, {}, None
        self.kept = None

    def run(self) -> None:
        """Let a program that was held run: traced where it has breakpoints, free otherwise."""
        if self.kept is None or self.kept.let_go != LetGo.HELD:
            return
        threads = self.kept
        traced = bool(threads.traps or threads.copies or threads.on_fault)
        threads.let_go = LetGo.TRACED if traced else LetGo.FREE
        if not traced:
            self.kept = None
        threads.release()

    @contextlib.contextmanager
    def calls(self, threads: StoppedThreads) -> Iterator[tuple[RemoteCalls, int]]:
        """Borrow one of the stopped *threads* for system calls; give it with its id.

        Raises:
            PrivilegeError: it has a seccomp filter that can't be lifted, and that might kill it.
        """
        tid = choose_thread(threads, self.memory)
        filtered = procfs.read_status(self.target.pid, tid).seccomp != procfs.SECCOMP_OFF
        calls = RemoteCalls(tid, find_syscall(self.memory, self.mappings()))
        if filtered and not calls.lift_seccomp() and not (has_our_filters(self.target.pid, tid) and may_map()):
            raise PrivilegeError(
                f"process {self.target.pid} has a seccomp filter, which might kill it for what an attach needs",
                hint="run as root: with CAP_SYS_ADMIN the filter is lifted for a moment",
            )
        with calls:
            yield calls, tid

    def mappings(self) -> list[Memory]:
        """Return the mappings of the target."""
        return procfs.read_maps(procfs.live_thread(self.target.pid))

    def is_ours(self, mappings: Sequence[Memory]) -> bool:
        """Tell whether the memory that *proof* names is still among *mappings*."""
        if self.proof is None:
            return False
        return any((one.start, one.inode) == (self.proof.address, self.proof.inode) for one in registries(mappings))

    def reap(self) -> bool:
        """Let go of threads that could not be let go before; tell whether none is left."""
        self._lingering = [threads for threads in self._lingering if not threads.reap()]
        return not self._lingering
