"""What runs in the hand: one target, attached at most once at a time."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs, ptrace
from kprobes.engines.process.hand import leave_terminal
from kprobes.engines.process.registry import Identity
from kprobes.engines.process.release import clean, is_alive
from kprobes.engines.process.threads import procfs_alive
from kprobes.engines.process.worker import Worker
from kprobes.errors import KprobesError, TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.engines.process.arming import Armed
    from kprobes.engines.process.worker import Outcome
    from kprobes.model.inherited import Inherited
    from kprobes.model.listed import Listed
    from kprobes.model.plan import Plan

_libc = ctypes.CDLL(None, use_errno=True)


SOON_MS, LOOK_MS = 1, 20


@contextlib.contextmanager
def _ending(target: Identity) -> Iterator[None]:
    """Turn what fails because the process has ended into just that."""
    try:
        yield
    except (OSError, KprobesError) as error:
        if (is_alive(target) or procfs_alive(target.pid)) and procfs.has_memory(target.pid):
            raise
        raise TargetError(f"process {target.pid} ended") from error


class TargetService:
    """Serves one process: *target*, or a program that `spawn` starts. *owner* is the controller.

    *forked* tells whether this is a process of its own, which then leaves the controller's terminal.
    """

    def __init__(self, target: Identity | None, owner: Identity, *, forked: bool) -> None:
        self._target = target
        self._owner = owner
        self._forked = forked
        self._worker: Worker | None = None
        self._child = 0
        self._running = False
        self._status: int | None = None
        self._exit_watch = -1
        if target is not None and forked:
            leave_terminal()

    def spawn(self, argv: Sequence[str], environment: dict[str, str] | None) -> tuple[int, int]:
        """Start a program and return its (pid, start time); it stands at its entry point until `attach` or `run`."""
        from kprobes.engines.process.spawn import spawn

        self._child = spawn(argv, environment)
        if self._forked:
            leave_terminal()
        self._exit_watch = os.pidfd_open(self._child)
        self._target = Identity(self._child, procfs.read_start_time(self._child))
        return self._target.pid, self._target.start_time

    def attach(
        self, plan: Plan, exact_faults: bool = False, inherited: Inherited | None = None
    ) -> tuple[Outcome, int, int]:
        """Attach *plan*; return what came of it, with (process, descriptor) by which the memfd can be opened.

        With what it has *inherited* it takes the place of the plan that is attached.
        """
        if self._target is None:
            raise TargetError("there is no target")
        before = self._worker
        if (before is None) != (inherited is None):
            how = "by this session already" if before else "by nobody now"
            raise TargetError(f"process {self._target.pid} is probed {how}")
        held = self._child if self._status is None and not self._running else 0
        with _ending(self._target):
            worker = Worker(
                self._target,
                plan,
                self._owner,
                held=held,
                ended=self._note_end,
                exact_faults=exact_faults,
                before=before,
                inherited=inherited,
            )
            try:
                outcome = worker.attach()
            except BaseException:
                worker.close()
                raise
        self._running = True
        self._worker = worker
        return outcome, os.getpid(), worker.area.file

    def run(self) -> None:
        """Let a program that was started run, without probes."""
        if self._child and not self._running:
            self._running = True
            with contextlib.suppress(ptrace.TraceeGoneError):
                ptrace.detach(self._child)

    def detach(self) -> list[int]:
        """Take the probes away; return the addresses whose code somebody else has changed since."""
        if self._worker is None:
            return []
        try:
            with _ending(self._worker.ground.target):
                return [patch.address for patch in self._worker.detach()]
        finally:
            self._worker.close()
            self._worker = None

    def clean(self) -> int:
        """Undo what a dead controller left in the target; return the number of places restored."""
        if self._target is None:
            raise TargetError("there is no target")
        with _ending(self._target):
            return clean(self._target)

    def status(self) -> int | None:
        """Return the wait status of the program that was started, None while it lives."""
        self.idle()
        return self._status

    def _look_for_end(self) -> None:
        if not self._child or self._status is not None:
            return
        with contextlib.suppress(ptrace.TraceeGoneError):
            status = ptrace.wait(self._child, block=False)
            if status is not None and ptrace.is_end(status):
                self._note_end(self._child, status)

    def _note_end(self, pid: int, status: int) -> None:
        if pid != self._child or self._status is not None:
            return
        self._status = status
        os.close(self._exit_watch)
        self._exit_watch = -1

    def set_enabled(self, sites: Sequence[int], enabled: bool) -> None:
        """Put the jumps of *sites* in place, or take them away."""
        if self._worker is None:
            raise TargetError("nothing is attached")
        with _ending(self._worker.ground.target):
            self._worker.set_enabled(frozenset(sites), enabled)

    def armed(self) -> list[Armed]:
        """Return how each site is armed by now."""
        return [] if self._worker is None else self._worker.armed

    def listed(self) -> list[Listed]:
        """Return what is armed now, and how."""
        return [] if self._worker is None else self._worker.listed()

    def idle(self) -> int:
        """See `hand.Service`."""
        worker = self._worker
        if worker is None:
            self._look_for_end()
            return -1
        with contextlib.suppress(KprobesError, OSError):  # the target may end at any moment
            if worker.idle():
                return SOON_MS
        if worker.breakpoints is None:
            self._look_for_end()
        elif not worker.breakpoints.alone:
            return SOON_MS
        return LOOK_MS if worker.looks_again else -1

    def watch(self) -> list[int]:
        """See `hand.Service`."""
        return [self._exit_watch] if self._exit_watch >= 0 else []

    def close(self) -> None:
        """See `hand.Service`."""
        with contextlib.suppress(KprobesError):
            self.detach()
