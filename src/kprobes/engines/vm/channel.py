"""The controller's end of a channel port: calls, and the streams that a guest pushes."""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from threading import Condition, Lock, Thread
from typing import TYPE_CHECKING

from kprobes.engines.vm.frames import FrameReader, Head, encode_frame
from kprobes.engines.vm.trouble import rebuild_error
from kprobes.errors import FormatError, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READ = 1 << 18
# A fraction of the guest's window (`guest.streams.WINDOW`).
ACKNOWLEDGE = 1 << 20

Message = tuple[Head, bytes]


class Incoming:
    """One stream from the guest: messages in order.

    What was taken is told to the guest now and then, to open its window; not for each message, since reading that would
    be a hit where the guest's `read` is probed.
    """

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number
        self._taken = 0
        self._waiting: deque[Message] = deque()

    def put(self, head: Head, blob: bytes) -> None:
        """Add a message; the channel's reader calls this."""
        self._waiting.append((head, blob))

    def take(self, timeout_s: float | None) -> Message | None:
        """Return the next message, waiting for it; None where the time ran out.

        Raises:
            TargetError: the guest is gone and nothing is left.
        """
        message = self._channel.wait_for(lambda: self._waiting.popleft() if self._waiting else None, timeout_s)
        if message is not None:
            self._taken += len(message[1])
            if self._taken >= ACKNOWLEDGE:
                self._channel.acknowledge(self._number, self._taken)
                self._taken = 0
        return message

    def wait(self, timeout_s: float) -> bool:
        """Wait for a message without taking it; return whether one is there."""
        found = self._channel.wait_for(lambda: self._waiting[0] if self._waiting else None, timeout_s)
        return found is not None


class Channel:
    """A connection to a guest; `close` ends it, and the guest ends what it did for it.

    *explain* makes the error for a guest that went away.
    """

    def __init__(self, connected: socket.socket, explain: Callable[[], TargetError]) -> None:
        self._socket = connected
        self._explain = explain
        self._writing = Lock()
        self._changed = Condition()
        self._answers: dict[int, Message] = {}
        self._streams: dict[int, Incoming] = {}
        self._calls = 0
        self._broken: FormatError | None = None
        self._gone = False
        Thread(target=self._read, daemon=True, name="kprobes-channel").start()

    def call(
        self,
        call: str,
        blob: bytes = b"",
        /,
        *,
        timeout_s: float | None = None,
        repeat_s: float | None = None,
        **arguments: object,
    ) -> tuple[object, bytes]:
        """Carry out *call* in the guest and return its result and the blob that came with it.

        With *repeat_s* it is said again after that time, and again after ever longer ones, until it is answered.

        Raises:
            TargetError: the guest is gone, or did not answer in time.
            KprobesError: what the guest raised.
        """
        with self._changed:
            self._calls += 1
            number = self._calls
        for pause_s in _pauses(timeout_s, repeat_s):
            self._send({"id": number, "call": call, **arguments}, blob)
            answer = self.wait_for(lambda: self._answers.pop(number, None), pause_s)
            if answer is not None:
                head, data = answer
                if "error" in head:
                    raise rebuild_error(head["error"])
                return head.get("result"), data
        raise TargetError(f"the guest did not answer {call!r} within {timeout_s:g} s")

    def stream(self, number: int) -> Incoming:
        """Return the stream that the guest announced as *number*."""
        with self._changed:
            return self._stream(number)

    def acknowledge(self, number: int, count: int) -> None:
        """Tell the guest that *count* bytes of a stream were taken."""
        try:
            self._send({"ack": number, "bytes": count}, b"")
        except TargetError:
            return  # it is gone; what was taken is still good

    def wait_for(self, take: Callable[[], Message | None], timeout_s: float | None) -> Message | None:
        """Return what *take* finds among what has come, waiting for it; None where the time ran out.

        Raises:
            TargetError: the guest is gone.
        """
        found: list[Message] = []

        def look() -> bool:
            message = take()
            if message is not None:
                found.append(message)
            return message is not None or self._gone

        with self._changed:
            self._changed.wait_for(look, timeout_s)
        if not found and self._gone:
            raise self._broken or self._explain()
        return found[0] if found else None

    def close(self) -> None:
        """Hang up; idempotent."""
        self._gone = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, head: Head, blob: bytes) -> None:
        try:
            with self._writing:
                self._socket.sendall(encode_frame(head, blob))
        except OSError as error:
            raise self._broken or self._explain() from error

    def _read(self) -> None:
        reader = FrameReader()
        try:
            while data := self._socket.recv(READ):
                frames = reader.feed(data)
                if frames:
                    with self._changed:
                        for head, blob in frames:
                            self._sort(head, blob)
                        self._changed.notify_all()
        except OSError:
            pass  # closed, here or there
        except FormatError as error:
            self._broken = error
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _sort(self, head: Head, blob: bytes) -> None:
        number = head.get("stream")
        if isinstance(number, int):
            self._stream(number).put(head, blob)
            return
        answered = head.get("id")
        if isinstance(answered, int):
            self._answers[answered] = (head, blob)

    def _stream(self, number: int) -> Incoming:
        return self._streams.setdefault(number, Incoming(self, number))


def _pauses(timeout_s: float | None, repeat_s: float | None) -> Iterator[float | None]:
    """Yield how long to wait for an answer each time: once for all, or from *repeat_s* on half as long again."""
    if timeout_s is None or repeat_s is None:
        yield timeout_s
        return
    while timeout_s > 0:
        yield min(repeat_s, timeout_s)
        timeout_s -= repeat_s
        repeat_s *= 1.5
