"""The IR's verifier: a violation is a bug of the front or of a pass, never the user's.

What holds after it: every value is assigned once and before each use on all paths; types, slots, maps and events fit;
every cycle runs through a header with a bound that dominates it, so that each part ends; per-call data is saved as the
last thing of an entry part and taken back as the first of an exit part.
"""

from __future__ import annotations

from kprobes.compiler.ir.graph import Graph
from kprobes.compiler.ir.nodes import Branch, RestoreCall, Return, SaveCall, Slot, Value
from kprobes.compiler.ir.operands import made, slots_read, slots_written, successors, used
from kprobes.compiler.ir.rules import RULES
from kprobes.errors import InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from kprobes.compiler.ir.nodes import Block, Function, Handler, Node
    from kprobes.model.layout import EventLayout, MapLayout


def verify(handler: Handler) -> None:
    """Check that *handler* is well formed.

    Raises:
        InternalError: it is not; names the part, the block and the node.
    """
    if handler.entry is None and handler.exit is None:
        raise InternalError(f"{handler.name} has no part")
    saves = restores = False
    for function, part in ((handler.entry, "entry"), (handler.exit, "exit")):
        if function is not None:
            checker = _Checker(handler, function, part)
            checker.check()
            saves, restores = saves or checker.saves, restores or checker.restores
    if restores != (handler.entry is not None and handler.exit is not None) or (saves and not restores):
        raise InternalError(f"{handler.name}: SaveCall, RestoreCall and the parts don't go together")


class _Checker:
    """One pass over one part. Where it stands is kept for messages and for the rules of the nodes."""

    def __init__(self, handler: Handler, function: Function, part: str) -> None:
        self.handler = handler
        self.function = function
        self.part = part
        self.maps: dict[str, MapLayout] = {layout.name: layout for layout in handler.maps}
        self.events: dict[int, EventLayout] = {event.id: event for event in handler.events}
        self.saves = self.restores = False
        self._slots = frozenset(function.slots)
        self._values: dict[int, Value] = {}
        self._where = ""

    def fail(self, what: str) -> NoReturn:
        """Raise the error that the node at hand is wrong."""
        raise InternalError(f"{self.handler.name}.{self.part}{self._where}: {what}")

    def require(self, condition: bool, what: str) -> None:
        """Raise unless *condition*."""
        if not condition:
            self.fail(what)

    def check(self) -> None:
        """Check the whole part."""
        function = self.function
        self.require(function.part == self.part, f"the part says it is {function.part!r}")
        self.require(bool(function.blocks), "no block")
        names = [slot.name for slot in function.slots]
        self.require(len(set(names)) == len(names), "two slots have one name")
        labels = [block.label for block in function.blocks]
        self.require(len(set(labels)) == len(labels), "two blocks have one label")
        known = frozenset(labels)
        for block in function.blocks:
            self._where = f", block {block.label}"
            for target in successors(block):
                self.require(target in known, f"goes to {target}, which is not there")
            for value in (value for node in block.nodes for value in made(node)):
                self.require(value.number not in self._values, f"{value} is assigned twice")
                self._values[value.number] = value
        graph = Graph(function)
        self._check_loops(graph)
        self._check_nodes(graph)

    def _check_loops(self, graph: Graph) -> None:
        for block, header in graph.back_edges():
            self._where = f", block {block.label}"
            self.require(graph.dominates(header, block), f"jumps into the middle of a loop, at {header.label}")
            self.require(header.bound > 0, f"goes back to {header.label}, which has no bound")

    def _check_nodes(self, graph: Graph) -> None:
        defined_before = graph.reaching([sum(1 << v.number for n in b.nodes for v in made(n)) for b in graph.blocks])
        for block, defined in zip(graph.blocks, defined_before, strict=True):
            for index, node in enumerate(block.nodes):
                self._where = f", block {block.label}, node {index} ({type(node).__name__})"
                self._check_uses(used(node), defined)
                for slot in (*slots_read(node), *slots_written(node)):
                    self.require(slot in self._slots, f"the slot {slot.name} is not one of the function's")
                self._check_position(block, index, node)
                RULES[type(node)](self, node)
                for value in made(node):
                    defined |= 1 << value.number
            self._where = f", end of block {block.label}"
            self._check_uses(used(block.end), defined)
            if isinstance(block.end, Branch):
                self.require(block.end.condition.type.bits == 1, "branches on a number")

    def _check_uses(self, values: list[Value], defined: int) -> None:
        for value in values:
            if not defined >> value.number & 1:
                self.fail(f"{value} is not defined on every path to here")
            if self._values[value.number] is not value and self._values[value.number] != value:
                self.fail(f"{value} has another type than where it was made")

    def _check_position(self, block: Block, index: int, node: Node) -> None:
        if isinstance(node, SaveCall):
            self.saves = True
            is_last = index == len(block.nodes) - 1 and isinstance(block.end, Return)
            self.require(self.part == "entry" and is_last, "comes elsewhere than at an end of the entry part")
        elif isinstance(node, RestoreCall):
            self.restores = True
            is_first = index == 0 and block is self.function.blocks[0]
            self.require(self.part == "exit" and is_first, "comes elsewhere than at the start of the exit part")

    # For the rules

    def buffer(self, slot: object) -> Slot:
        """Return *slot*, which has to be a byte buffer."""
        if not isinstance(slot, Slot) or slot.type is not None or slot.size <= 0:
            self.fail(f"{slot} is no byte buffer")
        return slot

    def layout(self, name: str, *kinds: str) -> MapLayout:
        """Return the layout of the map *name*, which has to be of one of *kinds*."""
        layout = self.maps.get(name)
        if layout is None:
            self.fail(f"there is no map {name!r}")
        self.require(layout.kind in kinds, f"the map {name} is a {layout.kind}, not a {' or '.join(kinds)}")
        return layout
