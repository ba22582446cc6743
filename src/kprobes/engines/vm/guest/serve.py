"""Serves one controller: takes calls from its port, carries them out, pushes records and output back.

One thread reads, so that the end of the connection is seen whatever is going on; calls are carried out in order by a
second one; each attached plan and each command has a thread that forwards.
"""

# No pathlib: an emulated CPU takes 0.1 s to import it.
# ruff: noqa: PTH110, PTH123

from __future__ import annotations

import os
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from kprobes.engines.vm.frames import PROTOCOL, FrameReader
from kprobes.engines.vm.guest import system
from kprobes.engines.vm.guest.agent import wait_connected
from kprobes.engines.vm.guest.commands import Command, put_file
from kprobes.engines.vm.guest.links import Links
from kprobes.engines.vm.guest.streams import Port, Stream
from kprobes.engines.vm.trouble import describe_error
from kprobes.errors import UsageError

if TYPE_CHECKING:
    from kprobes.engines.kernel.engine import KernelEngine
    from kprobes.engines.vm.frames import Head

READ = 1 << 16

Answer = tuple[object, bytes]


def serve(descriptor: int, session: Session) -> None:
    """Serve the controller at the other end of the port, once there is one, until it goes away.

    When the next one comes at once, the kernel may not show the end between the two, or show it after the next one's
    first words. So a greeting by another ends this session as well; it is repeated until somebody answers.
    """
    wait_connected(descriptor)
    reader = FrameReader()
    greeting = b""
    while data := os.read(descriptor, READ):
        for head, blob in reader.feed(data):
            if head.get("call") == "hello":
                if greeting not in (b"", blob):
                    return session.kill_commands()
                greeting = blob
            session.take(head, blob)
    return session.kill_commands()


class Session:
    """What one controller has in this guest."""

    def __init__(self, descriptor: int, engine: KernelEngine) -> None:
        self._port = Port(descriptor)
        self._greeting: bytes | None = None
        self._streams: dict[int, Stream] = {}
        self._commands: dict[int, Command] = {}
        self._engine = engine
        self._links = Links(engine, self._new_stream)
        self._calls: SimpleQueue[tuple[Head, bytes]] = SimpleQueue()
        self._handlers: dict[str, Callable[[Head, bytes], Answer]] = {
            "hello": self._hello,
            "facts": self._links.facts,
            "fact": self._links.fact,
            "attach": self._links.attach,
            "sync": self._links.sync,
            "read_map": self._links.read_map,
            "take_map": self._links.take_map,
            "read_stack": self._links.read_stack,
            "link_stats": self._links.link_stats,
            "unmatched": self._links.unmatched,
            "set_enabled": self._links.set_enabled,
            "detach": self._links.detach,
            "close_link": self._links.close_link,
            "run": self._run,
            "input": self._input,
            "resize": self._resize,
            "kill": self._kill,
            "put": self._put,
            "exists": self._exists,
            "get": self._get,
            "clock": self._clock,
            "trace_read": self._trace_read,
            "trace_write": self._trace_write,
        }
        Thread(target=self._work, daemon=True).start()

    def take(self, head: Head, blob: bytes) -> None:
        """Take one message: acknowledgements at once, calls in order."""
        if "ack" in head:
            stream = self._streams.get(_number(head, "ack"))
            if stream is not None:
                stream.acknowledge(_number(head, "bytes"))
        else:
            self._calls.put((head, blob))

    def kill_commands(self) -> None:
        """Kill what the controller started."""
        for command in self._commands.values():
            command.kill()

    def _work(self) -> None:
        while True:
            head, blob = self._calls.get()
            answer: Head = {"id": head.get("id")}
            data = b""
            try:
                handler = self._handlers.get(str(head.get("call")))
                if handler is None:
                    raise UsageError(f"the guest knows no call {head.get('call')!r}")
                answer["result"], data = handler(head, blob)
            except BaseException as error:  # noqa: BLE001  the controller raises it again
                answer["error"] = describe_error(error)
            self._port.send(answer, data)

    def _trace_read(self, head: Head, _blob: bytes) -> Answer:
        content = self._engine.tracefs().read(str(head["path"]))
        return content is not None, content or b""

    def _trace_write(self, head: Head, blob: bytes) -> Answer:
        return self._engine.tracefs().write(str(head["path"]), blob), b""

    def _clock(self, _head: Head, _blob: bytes) -> Answer:
        return time.monotonic_ns(), b""

    def _new_stream(self) -> Stream:
        stream = Stream(self._port, len(self._streams) + 1)
        self._streams[stream.number] = stream
        return stream

    def _hello(self, head: Head, blob: bytes) -> Answer:
        if blob != self._greeting:  # else it is said again, with a clock that is old by now
            self._greeting = blob
            system.set_clock(_number(head, "clock"))
            system.stir(blob)
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        return {"protocol": PROTOCOL, "release": os.uname().release, "cpus": os.cpu_count(), "uptime": uptime}, b""

    def _run(self, head: Head, _: bytes) -> Answer:
        stream = self._new_stream()
        command = Command(head, stream)
        self._commands[stream.number] = command
        return {"stream": stream.number, "pid": command.pid}, b""

    def _command(self, head: Head) -> Command:
        command = self._commands.get(_number(head, "command"))
        if command is None:
            raise UsageError("there is no such command in the guest")
        return command

    def _input(self, head: Head, blob: bytes) -> Answer:
        self._command(head).write(blob)
        return None, b""

    def _resize(self, head: Head, _: bytes) -> Answer:
        self._command(head).resize(_number(head, "rows"), _number(head, "columns"))
        return None, b""

    def _kill(self, head: Head, _: bytes) -> Answer:
        self._command(head).kill(_number(head, "signal"))
        return None, b""

    def _put(self, head: Head, blob: bytes) -> Answer:
        put_file(str(head["path"]), blob, _number(head, "mode"))
        return None, b""

    def _exists(self, head: Head, _: bytes) -> Answer:
        return os.path.exists(str(head["path"])), b""

    def _get(self, head: Head, _: bytes) -> Answer:
        with open(str(head["path"]), "rb") as stream:
            return None, stream.read()


def _number(head: Head, name: str) -> int:
    value = head.get(name)
    if not isinstance(value, int):
        raise UsageError(f"the guest was called without {name}")
    return value
