"""What runs in the guest while it is probed: the user's command, or the small workload for those who have none."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Self

from kprobes.model.within import ANYWHERE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from kprobes.engines.vm.guestcommand import GuestCommand
    from kprobes.engines.vm.machine import Machine


class GuestWorkload:
    """Runs *command* in the guest, or the small workload where there is none; a context manager that ends it."""

    within = ANYWHERE

    def __init__(self, machine: Machine, command: Sequence[str], copy: Sequence[str]) -> None:
        self._machine = machine
        self._argv = list(command)
        self._copy = list(copy)
        self._running: GuestCommand | None = None
        self.status = 0

    def release(self) -> None:
        """Start it."""
        if self._argv:
            self._running = self._machine.run(self._argv, copy=self._copy, sink=_pass_on)
        else:
            self._running = self._machine.workload()

    def poll(self, timeout_s: float = 0) -> bool:
        """Return whether the user's command has ended within *timeout_s*; the small workload never does."""
        if self._running is None:
            return False
        status = self._running.wait(timeout_s)
        if status is None:
            return False
        self.status = status if status >= 0 else 128 - status
        return True

    def interrupt(self) -> None:
        """Pass the wish on."""
        if self._running is not None and self._argv:
            self._running.kill(signal.SIGINT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None and self._running.wait(0) is None:
            self._running.kill()


def _pass_on(descriptor: int, data: bytes) -> None:
    """Give the command's output to our own streams, byte for byte."""
    stream = sys.stderr if descriptor == 2 else sys.stdout
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()
