"""The state of lowering one part of a handler: what every machine keeps alike."""

from __future__ import annotations

from abc import ABC, abstractmethod

from kprobes.compiler.back.arithmetic import unknown
from kprobes.compiler.back.text import literal
from kprobes.compiler.ir.nodes import Slot
from kprobes.compiler.ir.operands import made
from kprobes.errors import CompileError, InternalError
from kprobes.model.layout import META_DROPPED, meta_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.fills import Fill
    from kprobes.compiler.back.text import FunctionText
    from kprobes.compiler.ir.nodes import Function, Handler, Node, Operand, Place, Value
    from kprobes.model.layout import EventLayout, MapLayout

_LARGE = 64


class Part(ABC):
    """One part (`entry` or `exit`) on its way to LLVM text: its values, slots, temporaries and the fault flag.

    *implicit* collects the layouts of the maps that the code turns out to need.
    """

    is_verified = False  # by something that has to see the end of each loop

    def __init__(self, handler: Handler, function: Function, text: FunctionText) -> None:
        self.handler = handler
        self.function = function
        self.text = text
        self.implicit: dict[str, MapLayout] = {}
        self.buffers: dict[Slot, str] = {}
        self.rooms: dict[Slot, int] = {}  # of buffers that take more than their size
        self.integers: dict[Slot, str] = {}
        self.sunk: dict[Slot, Fill] = {}  # texts that are read straight into the one record that wants them
        self.counts: frozenset[Value] = frozenset()  # truth values that LLVM must not see through
        self._values: dict[int, str] = {}
        self._temporaries: dict[tuple[str, int], str] = {}
        self._fault = ""
        self._makers: dict[int, Node] = {}
        self._maps = {layout.name: layout for layout in handler.maps}

    # Values

    def value(self, value: Value) -> str:
        """Return the operand of *value*."""
        return self._values[value.number]

    def bind(self, value: Value, operand: str) -> None:
        """Let *value* be *operand* from here on."""
        self._values[value.number] = operand

    def bind_constant(self, value: Value, number: int) -> None:
        """Let *value* be the constant *number*."""
        self._values[value.number] = literal(number, value.type.bits)

    def maker(self, value: Value) -> Node:
        """Return the node that makes *value*."""
        if not self._makers:
            nodes = (node for block in self.function.blocks for node in block.nodes)
            self._makers = {one.number: node for node in nodes for one in made(node)}
        return self._makers[value.number]

    def buffer(self, slot: Slot) -> str:
        """Return the pointer to a byte buffer."""
        return self.buffers[slot]

    def temporary(self, role: str, size: int) -> str:
        """Return *size* bytes of stack for one node's use as *role*; nodes share them."""
        key = (role, -(-size // 8))
        if key not in self._temporaries:
            self._temporaries[key] = self.text.alloca(size) if size <= _LARGE else self.room(size)
        return self._temporaries[key]

    def room(self, size: int) -> str:
        """Return *size* bytes for something large: on the stack, where the machine has no other place."""
        return self.text.alloca(size)

    def integer(self, operand: Operand) -> Value:
        """Return *operand*, which has to be an integer."""
        if isinstance(operand, Slot):
            raise InternalError(f"{self.handler.name}: the byte buffer {operand.name} stands for an integer")
        return operand

    @abstractmethod
    def copy_string(self, to: str, source: str, size: str) -> str:
        """Copy the string at *source*, in memory of the handler's own, to *to*: at most *size* bytes (an i64 operand or
        number above 0) with the NUL, nothing behind it. Return its length. *to* may be *source*."""

    # Maps and events

    def layout(self, name: str) -> MapLayout:
        """Return the layout of the handler's map *name*."""
        return self._maps[name]

    def need(self, layout: MapLayout) -> None:
        """Note that the program needs the map *layout*."""
        self.implicit[layout.name] = layout

    def event(self, number: int) -> EventLayout:
        """Return the layout of the handler's event *number*."""
        for layout in self.handler.events:
            if layout.id == number:
                return layout
        raise InternalError(f"{self.handler.name} has no event {number}")

    # Counters

    @abstractmethod
    def count(self, counter: str) -> None:
        """Add 1 to a counter of the site (see `SITE_COUNTERS`)."""

    def add(self, pointer: str, amount: str) -> None:
        """Add *amount* to the u64 at *pointer*, atomically; the old value is not asked for, which every kernel can.

        Where LLVM saw that nothing is added, it would make it an atomic `or`, which kernels know since 5.12 only.
        """
        amount = unknown(self.text, amount) if amount.startswith("%") else amount
        if amount == "0":
            return
        self.text.do(f"atomicrmw add ptr {pointer}, i64 {amount} monotonic, align 8")

    @abstractmethod
    def map_value(self, name: str) -> str:
        """Return the address of the map *name*, or of its first value."""

    def drop(self, layout: MapLayout) -> None:
        """Count a write that found no room in the map *layout*, and raise the fault flag."""
        meta = meta_of(layout)
        self.need(meta)
        self.add(self.text.offset(self.map_value(meta.name), META_DROPPED), "1")
        self.fault("-1")

    # Faults

    def fault(self, result: str) -> None:
        """Raise the fault flag where the i64 *result* is negative."""
        if not self._fault:
            self._fault = self.text.variable(64)
        flag = self.text.load(64, self._fault)
        self.text.store(64, self.text.let(f"or i64 {flag}, {result}"), self._fault)

    def faulted(self) -> str:
        """Return whether the flag is up (i1)."""
        if not self._fault:
            self._fault = self.text.variable(64)
        return self.text.let(f"icmp slt i64 {self.text.load(64, self._fault)}, 0")

    def settle_faults(self) -> None:
        """Count the hit as faulty where the flag is up; comes before each end of the program."""
        if not self._fault:
            return
        faulty, clean = self.text.label("faulty"), self.text.label("clean")
        flag = self.text.load(64, self._fault)
        self.text.unlikely(self.text.let(f"icmp slt i64 {flag}, 0"), faulty, clean)
        self.text.start(faulty)
        self.count("faults")
        self.text.start(clean)

    # Errors

    @abstractmethod
    def unsupported(self, what: str, place: Place, hint: str) -> CompileError:
        """Return the error that *what* can't be done where the handler is to run."""

    def error(self, message: str, place: Place, hint: str) -> CompileError:
        """Return an error that shows the line of the handler at *place*."""
        handler = self.handler
        return CompileError(
            message,
            hint=hint,
            place=(handler.file, place.line, place.column),
            source=handler.lines.get(place.line, ""),
        )
