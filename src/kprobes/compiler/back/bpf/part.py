"""The state of lowering one part of a handler to one BPF program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.pointers import used_as_numbers
from kprobes.compiler.back.bpf.target import STATS, TRAMPOLINE_WAYS
from kprobes.compiler.back.text import literal
from kprobes.compiler.ir.nodes import Slot
from kprobes.compiler.ir.operands import made
from kprobes.errors import CompileError, InternalError
from kprobes.model.layout import SITE_COUNTER_BYTES, SITE_COUNTERS

if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.target import BpfTarget
    from kprobes.compiler.back.bpf.texts import Fill
    from kprobes.compiler.back.text import FunctionText
    from kprobes.compiler.ir.nodes import Function, Handler, Node, Operand, Place, Value
    from kprobes.model.layout import MapLayout


SCRATCH_HEADER = 8  # u64: in use
_LARGE = 64


class Part:
    """One part (`entry` or `exit`) on its way to LLVM text: its values, slots, counters and the fault flag.

    *implicit* collects the layouts of the maps that the code turns out to need.
    """

    def __init__(self, handler: Handler, function: Function, target: BpfTarget, way: str, text: FunctionText) -> None:
        self.handler = handler
        self.function = function
        self.target = target
        self.way = way
        self.text = text
        self.context = "%ctx"
        self.implicit: dict[str, MapLayout] = {}
        self.buffers: dict[Slot, str] = {}
        self.integers: dict[Slot, str] = {}
        self.sunk: dict[Slot, Fill] = {}  # texts that are read straight into the one record that wants them
        self.numbers = frozenset[int]()
        if way in TRAMPOLINE_WAYS:
            self.numbers = frozenset(used_as_numbers(function, target.pointers, target.argument_count))
        self.site = ""
        # Where the stack is too small: bytes of this CPU's working memory that are there, and that turned out needed.
        # Working memory is found out about while lowering, so a part that needs some is lowered twice.
        self.scratch_size = -1  # none: everything goes on the stack
        self.scratch_used = 0
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
        """Return *size* bytes outside the stack, where there is such memory."""
        if self.scratch_size < 0:
            return self.text.alloca(size)
        place = self.text.fixed_offset("%scratch", SCRATCH_HEADER + self.scratch_used)
        self.scratch_used += -(-size // 8) * 8
        return place

    def integer(self, operand: Operand) -> Value:
        """Return *operand*, which has to be an integer."""
        if isinstance(operand, Slot):
            raise InternalError(f"{self.handler.name}: the byte buffer {operand.name} stands for an integer")
        return operand

    # Maps and sites

    def layout(self, name: str) -> MapLayout:
        """Return the layout of the handler's map *name*."""
        return self._maps[name]

    def need(self, layout: MapLayout) -> None:
        """Note that the program needs the map *layout*."""
        self.implicit[layout.name] = layout

    def map(self, name: str) -> str:
        """Return the operand that stands for the map *name* in helper calls."""
        return self.text.module.external(f"map:{name}")

    def map_value(self, name: str) -> str:
        """Return the address of the first value of the array map *name*."""
        return self.text.module.external(f"value:{name}")

    def shard(self, stride: int) -> str:
        """Return the distance (i64 operand) of this CPU's share where each takes *stride* bytes."""
        if self.target.shards == 1:
            return "0"
        cpu = call(self.text, "get_smp_processor_id")
        number = self.text.let(f"and i64 {cpu}, {self.target.shards - 1}")
        return self.text.let(f"mul i64 {number}, {stride}")

    def learn_site(self) -> None:
        """Find out the number of the site, at the beginning of the program."""
        how = self.target.learns_site_by
        if how == "none":
            self.site = str(self.target.site)
        elif how == "site":
            self.site = f"ptrtoint (ptr {self.text.module.external('site', may_be_zero=True)} to i64)"
        else:
            self.site = call(self.text, "get_attach_cookie", self.context)
            wrong, right = self.text.label("nosite"), self.text.label("site")
            outside = self.text.let(f"icmp ugt i64 {self.site}, {self.target.sites - 1}")
            self.text.unlikely(outside, wrong, right)
            self.text.start(wrong)
            self.text.give_back("0")
            self.text.start(right)

    # Counters

    def count(self, counter: str) -> None:
        """Add 1 to a counter of the site (see `SITE_COUNTERS`)."""
        text, index = self.text, SITE_COUNTERS.index(counter)
        constant = 8 * index
        pointer = text.offset(self.map_value(STATS), self.shard(self.target.sites * SITE_COUNTER_BYTES))
        if self.target.site is not None:
            constant += self.target.site * SITE_COUNTER_BYTES
        else:
            pointer = text.offset(pointer, text.let(f"mul i64 {self.site}, {SITE_COUNTER_BYTES}"))
        self.add(text.offset(pointer, constant), "1")

    def add(self, pointer: str, amount: str) -> None:
        """Add *amount* to the u64 at *pointer*, atomically; the old value is not asked for, which every kernel can."""
        self.text.do(f"atomicrmw add ptr {pointer}, i64 {amount} monotonic, align 8")

    # Faults

    def fault(self, result: str) -> None:
        """Raise the fault flag where the i64 *result* is negative."""
        if not self._fault:
            self._fault = self.text.variable(64)
        flag = self.text.load(64, self._fault)
        self.text.store(64, self.text.let(f"or i64 {flag}, {result}"), self._fault)

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

    def unsupported(self, what: str, place: Place, hint: str) -> CompileError:
        """Return the error that *what* can't be done by this way in."""
        handler = self.handler
        return CompileError(
            f"{what} can't be had through a {self.way}",
            hint=hint,
            place=(handler.file, place.line, place.column),
            source=handler.lines.get(place.line, ""),
        )
