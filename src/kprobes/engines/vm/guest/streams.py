"""What a guest sends without being asked for each piece: records of probes, output of commands.

Every stream has a window: once so many bytes are under way unacknowledged, its sender waits. So a controller that
doesn't read makes the ring fill up (and count what it loses), never the channel.
"""

from __future__ import annotations

import os
from threading import Condition, Lock
from typing import TYPE_CHECKING

from kprobes.engines.vm.frames import encode_frame

if TYPE_CHECKING:
    from kprobes.engines.vm.frames import Head

WINDOW = 8 << 20


class Port:
    """The guest's end of the channel, for several threads."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._lock = Lock()

    def send(self, head: Head, blob: bytes | memoryview = b"") -> None:
        """Send one message; blocks while the host doesn't take it."""
        data = memoryview(encode_frame(head, blob))
        with self._lock:
            while data:
                data = data[os.write(self.descriptor, data) :]


class Stream:
    """One stream of blobs to the controller."""

    def __init__(self, port: Port, number: int) -> None:
        self.number = number
        self._port = port
        self._under_way = 0
        self._closed = False
        self._changed = Condition()

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Wait until the window is open; False where the time ran out or the stream was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < WINDOW or self._closed, timeout_s)
            return self._under_way < WINDOW and not self._closed

    def send(self, blob: bytes | memoryview, **head: object) -> None:
        """Send *blob*, counted against the window."""
        with self._changed:
            self._under_way += len(blob)
        self._port.send({"stream": self.number, **head}, blob)

    def acknowledge(self, count: int) -> None:
        """Open the window by *count* bytes that the controller has taken."""
        with self._changed:
            self._under_way -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Let a waiting sender go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
