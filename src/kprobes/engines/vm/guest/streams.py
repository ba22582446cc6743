"""What a guest sends without being asked for each piece: records of probes, output of commands.

Every stream has a window: once so many bytes are under way unacknowledged, its sender waits. So a controller that
doesn't read makes the ring fill up (and count what it loses), never the channel.
"""

from __future__ import annotations

import ctypes
import os
from threading import Condition, Lock
from typing import TYPE_CHECKING

from kprobes.engines.vm.frames import encode_frame
from kprobes.engines.vm.guest.system import LIBC

if TYPE_CHECKING:
    from kprobes.engines.vm.frames import Head

WINDOW = 8 << 20


class Port:
    """The guest's end of the channel, for several threads.

    What is sent goes through a pipe by vmsplice and splice, not by write: whoever probes `vfs_write` or `ksys_write`
    would see the sending of each record, send that, and so on for ever.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._lock = Lock()
        self._pipe = os.pipe()

    def send(self, head: Head, blob: bytes | memoryview = b"") -> None:
        """Send one message; blocks while the host doesn't take it."""
        data = encode_frame(head, blob)
        place = 0
        with self._lock:
            while place < len(data):
                count = vmsplice(self._pipe[1], data, place)
                place += count
                while count > 0:
                    count -= os.splice(self._pipe[0], self.descriptor, count)


def vmsplice(pipe: int, data: bytes, start: int) -> int:
    """Put what *data* holds from *start* on into a pipe, as much as there is room; return how many bytes that was.

    Raises:
        OSError: the kernel refused.
    """
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    vector = (ctypes.c_size_t * 2)(address + start, len(data) - start)
    count = int(LIBC.vmsplice(pipe, vector, ctypes.c_size_t(1), 0))
    if count < 0:
        raise OSError(ctypes.get_errno(), "vmsplice")
    return count


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
