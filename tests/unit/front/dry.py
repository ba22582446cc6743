"""Runs compiled handlers of the tests in the interpreter and reads back what they sent."""

from __future__ import annotations

from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.verify import verify
from kprobes.compiler.ir.world import DryWorld, Frame


class Dry:
    """A handler in a dry world. `events` are the records sent, each a dict by the names of its fields."""

    def __init__(self, handler, **world) -> None:
        verify(handler)
        self.world = DryWorld(**world)
        self.handler = handler
        self.machine = Interpreter(handler, self.world)

    def hit(self, *arguments: int, **frame: object) -> list[dict[str, object]]:
        """Run the entry part with *arguments*; return what was sent."""
        before = len(self.world.records)
        self.machine.enter(Frame(arguments=(*arguments, *(0,) * (8 - len(arguments))), **frame))
        return self.events[before:]

    def leave(self, result: int = 0, **frame: object) -> list[dict[str, object]]:
        """Run the exit part; return what was sent."""
        before = len(self.world.records)
        self.machine.leave(Frame(result=result & (1 << 64) - 1, **frame))
        return self.events[before:]

    @property
    def faults(self) -> int:
        return self.machine.counters.faults

    @property
    def events(self) -> list[dict[str, object]]:
        layouts = {event.id: event for event in self.handler.events}
        return [self._decoded(layouts[int.from_bytes(record[:4], "little")], record) for record in self.world.records]

    def lines(self) -> list[str]:
        """Return what `log` makes of each record."""
        layouts = {event.id: event for event in self.handler.events}
        templates = [layouts[int.from_bytes(record[:4], "little")].template for record in self.world.records]
        return [template.format(**event) for template, event in zip(templates, self.events, strict=True)]

    def map(self, name: str) -> list[tuple[bytes, bytes]]:
        return self.machine.read_map(name)

    @staticmethod
    def _decoded(layout, record):
        found = {}
        for field in layout.fields:
            raw = record[field.offset : field.offset + field.size]
            if field.kind == "str":
                found[field.name] = raw.split(b"\0")[0].decode()
            else:
                found[field.name] = int.from_bytes(raw, "little", signed=field.kind in ("int", "stack", "user_stack"))
        return found
