"""Breakpoints, served by the hand: the way that always works, for instructions that no jump fits over.

The thread that runs into the int3 stops; it is sent to the site's detour, which counts, runs the handlers and the moved
instruction, and leads back: the same code as behind a jump, so a hit costs two switches to the hand and no single step.

While there are breakpoints every thread stays traced (a breakpoint without a tracer kills), new ones become so by
themselves. The loader's rendezvous (see `loader.py`) is another breakpoint, of an empty function: whoever comes to it
is sent back to its caller, and waits there until the objects that have come are seen to.

A forked child has the int3 bytes in its copy of the code: they are taken out before it runs, so it goes on with the
jumps only. A vfork child runs in the target's memory and is served until it executes a program.
"""

from __future__ import annotations

import contextlib
import signal
import struct
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs, ptrace
from kprobes.engines.process.memory import ProcessMemory
from kprobes.engines.process.ptrace import TraceeGoneError
from kprobes.engines.process.threads import SI_KERNEL, TRACED_OPTIONS, shares_memory
from kprobes.errors import SyscallError, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kprobes.engines.process.ptrace import Registers
    from kprobes.engines.process.registry import Patch
    from kprobes.engines.process.threads import StoppedThreads

AT_ONCE = 1000  # stops served before the controller is listened to again


class Breakpoints:
    """Serves the breakpoints *traps* (address -> detour) of *threads*, which are traced and run.

    *patches* are the breakpoints' bytes. *rendezvous* is the one of *traps* that is the loader's (0: there is none);
    `loader_called` is set when it is hit. *ended* is told the wait status of each thread or child that ended. *alone*:
    this process has no children but those traced, so that it may wait for any.
    """

    def __init__(
        self,
        threads: StoppedThreads,
        traps: Mapping[int, int],
        patches: Sequence[Patch],
        ended: Callable[[int, int], None],
        *,
        alone: bool,
        rendezvous: int = 0,
    ) -> None:
        self._threads = threads
        self._traps = traps
        self._patches = [patch for patch in patches if patch.address in traps]
        self._ended = ended
        self.alone = alone
        self.loader_called = False
        self._rendezvous = rendezvous

    def serve(self) -> bool:
        """Serve the stops that are there; tell whether there may be more."""
        if not self.alone:
            return self._serve_known()
        for _ in range(AT_ONCE):
            found = ptrace.wait_any()
            if found is None:
                return False
            with contextlib.suppress(TraceeGoneError):
                self._serve_one(*found)
            if self.loader_called:
                break
        return True

    def _serve_known(self) -> bool:
        """Ask each thread by itself, as long as one has something to say."""
        for _ in range(AT_ONCE):
            quiet = True
            for tid in (*self._threads.running, *self._threads.strangers):
                try:
                    status = ptrace.wait(tid, block=False)
                    if status is not None:
                        quiet = False
                        self._serve_one(tid, status)
                    if self.loader_called:
                        return True
                except TraceeGoneError:
                    self._threads.running.discard(tid)
                    self._threads.strangers.discard(tid)
            if quiet:
                return False
        return True

    def _serve_one(self, tid: int, status: int) -> None:
        if ptrace.is_end(status):
            self._threads.running.discard(tid)
            self._threads.strangers.discard(tid)
            self._ended(tid, status)
        elif tid not in self._threads.running:
            self._welcome(tid, status)
        elif ptrace.event(status) == ptrace.EVENT_EXEC:
            self._threads.running.clear()
            ptrace.detach(tid)
        elif ptrace.event(status) == ptrace.EVENT_STOP:
            self._threads.note_group_stop(tid, status)
            self._threads.go_on(tid)
        elif not self._hit(tid, status):
            self._threads.pass_on(tid, status)

    def _hit(self, tid: int, status: int) -> bool:
        """Send *tid* to the detour if it stands on a breakpoint of ours; tell whether it does."""
        if ptrace.event(status) or status >> 8 != signal.SIGTRAP:
            return False
        values = ptrace.registers(tid)
        detour = self._traps.get(values.ip - 1)
        if detour is None or ptrace.signal_code(tid) != SI_KERNEL:
            return False
        if values.ip - 1 == self._rendezvous:
            self._send_back(tid, values)
            return True
        values.ip = detour
        ptrace.set_registers(tid, values)
        ptrace.resume(tid)
        return True

    def _send_back(self, tid: int, values: Registers) -> None:
        """Let *tid* return from the empty function, and stop it before it does anything else."""
        with ProcessMemory(tid) as memory:
            (values.ip,) = struct.unpack("<Q", memory.read(values.sp, 8))
        values.sp += 8
        ptrace.set_registers(tid, values)
        ptrace.interrupt(tid)
        ptrace.resume(tid)
        self.loader_called = True

    def _welcome(self, tid: int, status: int) -> None:
        """See to a thread or child that has become ours by itself and stands at its beginning."""
        self._threads.strangers.discard(tid)
        if ptrace.event(status) != ptrace.EVENT_STOP:
            self._threads.pass_on(tid, status)
            return
        if procfs.leader(tid) == self._threads.pid or shares_memory(self._threads.pid, tid):
            self._threads.owners[tid] = procfs.leader(tid)
            self._threads.running.add(tid)
            ptrace.set_options(tid, TRACED_OPTIONS)
            self._threads.go_on(tid)
        else:
            self.send_on(tid)

    def send_on(self, child: int) -> None:
        """Let the forked *child* run free, without breakpoints."""
        with contextlib.suppress(TargetError, SyscallError), ProcessMemory(child) as memory:
            for patch in self._patches:
                if memory.read_some(patch.address, len(patch.written)) == patch.written:
                    memory.write(patch.address, patch.original)
        ptrace.detach(child)

    def send_on_strangers(self) -> None:
        """See to the children that became ours during a standstill; they stand at their beginning, or are about to."""
        for tid in list(self._threads.strangers):
            with contextlib.suppress(TraceeGoneError):
                status = ptrace.wait_stop(tid)
                if status is not None and not ptrace.is_end(status):
                    self._welcome(tid, status)
            self._threads.strangers.discard(tid)
