"""Runs the IR in plain Python: the engine of dry runs, and the reference that every lowering is compared with.

It does exactly what the docstrings of `nodes` say, with maps and records in the binary layouts of `model.layout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.compiler.ir.interpret import hits, maps, numbers, texts
from kprobes.compiler.ir.interpret.run import Run
from kprobes.compiler.ir.storage import Elements, Storage, Waiting, storage_of
from kprobes.errors import InternalError

if TYPE_CHECKING:
    from kprobes.compiler.ir import nodes as ir
    from kprobes.compiler.ir.world import Frame, World

NODES = {**numbers.NODES, **hits.NODES, **texts.NODES, **maps.NODES}


@dataclass(slots=True)
class Counters:
    """The counters of the one site, as in `SITE_COUNTERS`."""

    hits: int = 0
    missed: int = 0
    lost: int = 0
    faults: int = 0


class Interpreter:
    """Runs the parts of *handler* in *world*. *calls* bounds the calls in flight; *site* goes into records.

    `maps` and `counters` hold what came of it.
    """

    def __init__(self, handler: ir.Handler, world: World, *, calls: int = 16384, site: int = 0) -> None:
        self.handler = handler
        self.world = world
        self.site = site
        self.room_for_calls = calls
        self.maps = {layout.name: storage_of(layout) for layout in handler.maps}
        self.events = {event.id: event for event in handler.events}
        self.counters = Counters()
        self.saved: dict[int, tuple[int | bytes, ...]] = {}

    def enter(self, frame: Frame) -> None:
        """Run the entry part, if there is one."""
        if self.handler.entry is not None:
            self._run(self.handler.entry, frame)

    def leave(self, frame: Frame) -> None:
        """Run the exit part, if there is one."""
        if self.handler.exit is not None:
            self._run(self.handler.exit, frame)

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs of a map, as an engine does."""
        return self.maps[name].read()

    def storage(self, name: str) -> Storage:
        """Return a map with keys, or of one value."""
        found = self.maps[name]
        if not isinstance(found, Storage):
            raise InternalError(f"the map {name} has no keys")
        return found

    def lookups(self, name: str) -> Storage | Elements:
        """Return a map or an array."""
        found = self.maps[name]
        if isinstance(found, Waiting):
            raise InternalError(f"the map {name} is a queue")
        return found

    def queue(self, name: str) -> Waiting:
        """Return a queue."""
        found = self.maps[name]
        if not isinstance(found, Waiting):
            raise InternalError(f"the map {name} is no queue")
        return found

    def _run(self, function: ir.Function, frame: Frame) -> None:
        run = Run(self, function, frame)
        has_both = self.handler.entry is not None and self.handler.exit is not None
        self.counters.hits += not has_both
        if run.walk(NODES) and has_both and function.part == "entry":
            if self.saved.pop(frame.call, None) is not None:
                self.counters.missed += 1
            self.counters.hits += 1
        self.counters.faults += run.fault
