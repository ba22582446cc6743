"""The engine's half of a session in the guest: facts out, plans in, records out."""

# No pathlib: an emulated CPU takes 0.1 s to import it.
# ruff: noqa: PTH123

from __future__ import annotations

from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from kprobes.engines.vm.frames import encode_records
from kprobes.errors import TargetError, UsageError
from kprobes.model import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.engines.kernel.attached import KernelAttached
    from kprobes.engines.kernel.engine import KernelEngine
    from kprobes.engines.kernel.traced import TracedAttached
    from kprobes.engines.vm.frames import Head
    from kprobes.engines.vm.guest.streams import Stream

    Answer = tuple[object, bytes]

POLL_S = 0.2
# After each message records may gather: many small ones would keep an emulated CPU busy with sending.
GATHER_S = 0.004
MOST_MEMORY = 1 << 24  # bytes that are read at once


class Link:
    """An attached plan, whose records go into *stream* as they come."""

    def __init__(self, attached: KernelAttached | TracedAttached, stream: Stream) -> None:
        self.attached = attached
        self._stream = stream
        self._reading = Lock()
        self._stopped = Event()
        Thread(target=self._pump, daemon=True).start()

    def sync(self) -> int:
        """Forward what the ring holds now, one batch, as far as the window is open; return how many records.

        Not more than that: where `write` itself is probed, forwarding makes records, and it would never end.
        """
        return self._forward() if self._stream.wait_for_room(0) else 0

    def close(self) -> None:
        """Detach. What the ring still holds is gone; `sync` comes before. The thread ends when it next looks."""
        self._stopped.set()
        self._stream.close()
        with self._reading:
            self.attached.close()

    def _pump(self) -> None:
        while not self._stopped.is_set():
            if self._stream.wait_for_room(POLL_S) and self.attached.wait(POLL_S):
                self._forward()
                self._stopped.wait(GATHER_S)

    def _forward(self) -> int:
        """Send what the ring holds, as it lay there; return how many records there were."""
        with self._reading:
            if self._stopped.is_set():
                return 0
            span = self.attached.poll_raw(0)
            if span.stride:
                self._stream.send(span.data, stride=span.stride, length=span.length)
            elif span.bounds:
                self._stream.send(span.data)
        return len(span)


class Links:
    """The kernel engine of this session and the plans attached through it."""

    def __init__(self, engine: KernelEngine, new_stream: Callable[[], Stream]) -> None:
        self._engine = engine
        self._new_stream = new_stream
        self._links: dict[int, Link] = {}

    def facts(self, _: Head, __: bytes) -> Answer:
        """Return the features, and the names of the modules with BTF."""
        facts = self._engine.facts()
        return {"modules": list(facts.modules())}, wire.to_bytes(facts.features)

    def fact(self, head: Head, _: bytes) -> Answer:
        """Return one fact whole: `kallsyms`, `btf:MODULE`, `text:WHAT` or `memory:ADDRESS:SIZE`; the result says
        whether there is one."""
        facts = self._engine.facts()
        what, __, rest = str(head.get("what")).partition(":")
        if what == "kallsyms":
            return True, _content(facts.kallsyms())
        if what == "btf":
            path = facts.btf(rest)
            return path is not None, _content(path) if path else b""
        if what == "memory":
            address, ___, size = rest.partition(":")
            memory = facts.memory(int(address), min(int(size), MOST_MEMORY))
            return memory is not None, memory or b""
        text = facts.text(rest) if what == "text" else None
        return text is not None, (text or "").encode("utf-8", "surrogateescape")

    def attach(self, _: Head, blob: bytes) -> Answer:
        """Carry out a plan; its records come as a stream."""
        attached = self._engine.attach(wire.plan_from_bytes(blob))
        stream = self._new_stream()
        self._links[stream.number] = Link(attached, stream)
        return {"stream": stream.number}, b""

    def sync(self, head: Head, _: bytes) -> Answer:
        """Forward what the ring holds before answering."""
        return self._link(head).sync(), b""

    def read_map(self, head: Head, _: bytes) -> Answer:
        """Return keys and values of a map, in turn."""
        pairs = self._link(head).attached.read_map(str(head["name"]))
        return None, encode_records([part for pair in pairs for part in pair])

    def take_map(self, head: Head, _: bytes) -> Answer:
        """Return keys and values of a map, in turn, and leave nothing of them."""
        pairs = self._link(head).attached.take_map(str(head["name"]))
        return None, encode_records([part for pair in pairs for part in pair])

    def read_stack(self, head: Head, _: bytes) -> Answer:
        """Return the addresses of a stack."""
        stack = head["stack"]
        if not isinstance(stack, int):
            raise UsageError("a stack is asked for by its number")
        return list(self._link(head).attached.read_stack(stack)), b""

    def link_stats(self, head: Head, _: bytes) -> Answer:
        """Return what the kernel counted."""
        return None, wire.to_bytes(self._link(head).attached.link_stats())

    def unmatched(self, head: Head, _: bytes) -> Answer:
        """Return pairs of a site and how many calls were entered there and haven't returned."""
        return [list(pair) for pair in self._link(head).attached.unmatched().items()], b""

    def set_enabled(self, head: Head, _: bytes) -> Answer:
        """Let the probes at some sites rest, or go on."""
        sites = head["sites"]
        if not isinstance(sites, list):
            raise UsageError("sites are told by their numbers")
        self._link(head).attached.set_enabled(frozenset(map(int, sites)), bool(head["enabled"]))
        return None, b""

    def detach(self, head: Head, _: bytes) -> Answer:
        """Detach plans side by side; their rings, maps and counts stay readable."""
        links = head["links"]
        if not isinstance(links, list):
            raise UsageError("plans are told by the numbers of their links")
        self._engine.detach_all([self._link({"link": number}).attached for number in links])
        return None, b""

    def close_link(self, head: Head, _: bytes) -> Answer:
        """Detach a plan and free what it has; once more is no error."""
        link = self._links.pop(int(str(head["link"])), None)
        if link is not None:
            link.close()
        return None, b""

    def _link(self, head: Head) -> Link:
        link = self._links.get(int(str(head["link"])))
        if link is None:
            raise TargetError("this plan is no longer attached in the guest")
        return link


def _content(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()
