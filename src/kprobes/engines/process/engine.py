"""The process engine: carries out plans inside a running process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kprobes.engines.process.attached import ProcessAttached
from kprobes.engines.process.facts import ProcessFacts
from kprobes.engines.process.hand import Hand
from kprobes.engines.process.registry import Identity
from kprobes.engines.process.service import TargetService
from kprobes.engines.process.target import Process, identify, only_ancestors_may_trace
from kprobes.engines.process.worker import myself
from kprobes.errors import TargetError

if TYPE_CHECKING:
    from kprobes.model.plan import Plan


class ProcessEngine:
    """Probes one process; a context manager.

    A program that we start stands at its entry point until the first `attach`, or `run`. *in_thread*: the tracing is
    done by a thread of this process rather than by a hand; by default only where the kernel allows nothing else.

    Raises:
        TargetError, PrivilegeError, UnsupportedError, UsageError: why not.
    """

    is_native = True  # its plans carry native code

    def __init__(self, process: Process, *, in_thread: bool | None = None) -> None:
        self._hand: Hand | None = None
        self._owner = myself()
        self._waiting = False
        self._exact_faults = process.exact_faults
        self.exit_status: int | None = None
        if process.argv:
            hand = Hand(lambda: TargetService(None, self._owner, forked=True))
            try:
                environment = None if process.environment is None else dict(process.environment)
                pid, start_time = hand.call("spawn", process.argv, environment)
            except BaseException:
                hand.close()
                raise
            self.identity = Identity(pid, start_time)
            self._hand = hand
            self._waiting = True
        else:
            self.identity = identify(process.pid)
        self._in_thread = only_ancestors_may_trace(self.identity.pid) if in_thread is None else in_thread
        self._watch = os.pidfd_open(self.identity.pid)

    def __enter__(self) -> ProcessEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self.identity.pid

    @property
    def is_alive(self) -> bool:
        """Tell whether the process still runs."""
        return self._watch >= 0 and not self.wait(0)

    def facts(self) -> ProcessFacts:
        """Return where the process's symbols are."""
        return ProcessFacts(self.identity)

    def attach(self, plan: Plan) -> ProcessAttached:
        """Carry out *plan*, all or nothing.

        Raises:
            UnprobeableError, UnsupportedError, TargetError, PrivilegeError, SyscallError: the target is unharmed.
        """
        if self._watch < 0:
            raise TargetError("the target has been let go")
        if self._hand is None:
            forked = not self._in_thread
            self._hand = Hand(lambda: TargetService(self.identity, self._owner, forked=forked), here=not forked)
        self._waiting = False
        return ProcessAttached(plan, self._hand, self._watch, self.pid, exact_faults=self._exact_faults)

    def run(self) -> None:
        """Let a program that was started run, if nothing has been attached to it."""
        if self._waiting and self._hand is not None:
            self._hand.call("run")
            self._waiting = False

    def abandon(self) -> None:
        """End a program that was started and has not begun to run: without its probes it isn't wanted."""
        if self._waiting:
            from signal import SIGKILL, pidfd_send_signal

            self._waiting = False
            pidfd_send_signal(self._watch, SIGKILL)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the process has ended; tell whether it has. *exit_status* is known then if we started it."""
        import select

        poller = select.poll()
        poller.register(self._watch, select.POLLIN)
        if not poller.poll(None if timeout_s is None else int(timeout_s * 1000)):
            return False
        if self.exit_status is None and self._hand is not None and self._hand.is_open:
            status = self._hand.call("status")
            if status is not None:
                self.exit_status = os.waitstatus_to_exitcode(status)
        return True

    def close(self) -> None:
        """Let go of the process, taking the probes away; idempotent. A program that has not begun is ended."""
        self.abandon()
        if self._hand is not None:
            self._hand.close()
            self._hand = None
        if self._watch >= 0:
            os.close(self._watch)
            self._watch = -1


def detach_process(pid: int) -> int:
    """Take away the probes that a dead controller left in the process *pid*; return how many places were restored.

    Raises:
        TargetError: a living controller probes it, or it can't be restored now.
        PrivilegeError, UnsupportedError: as `ProcessEngine`.
    """
    target, owner = identify(pid), myself()
    with Hand(lambda: TargetService(target, owner, forked=True)) as hand:
        return int(hand.call("clean"))
