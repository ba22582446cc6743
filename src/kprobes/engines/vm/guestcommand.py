"""A command that runs in a guest, as the controller sees it."""

from __future__ import annotations

import signal
from threading import Thread
from typing import TYPE_CHECKING

from kprobes.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.engines.vm.channel import Channel

    Sink = Callable[[int, bytes], None]


class GuestCommand:
    """A running command. Its output is given to *sink* as (1 or 2, bytes) as it comes, or kept for `output`."""

    def __init__(self, channel: Channel, stream: int, pid: int, sink: Sink | None) -> None:
        self.pid = pid
        self._channel = channel
        self._number = stream
        self._incoming = channel.stream(stream)
        self._sink = sink or self._keep
        self._kept: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self._status: int | None = None
        self._failure: Exception | None = None
        self._thread = Thread(target=self._follow, daemon=True, name="kprobes-command")
        self._thread.start()

    @property
    def output(self) -> bytes:
        """Return what it has written to standard output so far, where no sink takes it."""
        return bytes(self._kept[1])

    @property
    def error_output(self) -> bytes:
        """Return what it has written to standard error so far, where no sink takes it."""
        return bytes(self._kept[2])

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit status (minus the signal that killed it), None where the time ran out before.

        Raises:
            TargetError: the guest is gone.
        """
        self._thread.join(timeout_s)
        if self._failure is not None:
            raise self._failure
        return self._status

    def write(self, data: bytes) -> None:
        """Give *data* to its standard input; empty data ends it."""
        self._channel.call("input", data, command=self._number)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the size of the terminal."""
        self._channel.call("resize", command=self._number, rows=rows, columns=columns)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it, and what it started, a signal; nothing happens where it has ended."""
        try:
            self._channel.call("kill", command=self._number, signal=int(number))
        except TargetError:
            return

    def _keep(self, descriptor: int, data: bytes) -> None:
        self._kept[2 if descriptor == 2 else 1] += data

    def _follow(self) -> None:
        try:
            while self._status is None:
                message = self._incoming.take(None)
                if message is not None:
                    self._take(*message)
        except Exception as error:  # noqa: BLE001  `wait` raises it where somebody sees it
            self._failure = error

    def _take(self, head: dict[str, object], data: bytes) -> None:
        status, descriptor = head.get("status"), head.get("fd")
        if isinstance(status, int):
            self._status = status
        elif isinstance(descriptor, int):
            self._sink(descriptor, data)
