"""The state of lowering one part of a handler to one BPF program."""

from __future__ import annotations

from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.pointers import used_as_numbers
from kprobes.compiler.back.bpf.target import STATS, TRAMPOLINE_WAYS
from kprobes.compiler.back.part import Part
from kprobes.model.layout import SITE_COUNTER_BYTES, SITE_COUNTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.target import BpfTarget
    from kprobes.compiler.back.text import FunctionText
    from kprobes.compiler.ir.nodes import Function, Handler, Place, Value
    from kprobes.errors import CompileError


SCRATCH_HEADER = 8  # u64: in use
LARGEST_SCRATCH = 32768  # PCPU_MIN_UNIT_SIZE: the largest value of a per-CPU map


class BpfPart(Part):
    """One part on its way to LLVM text: its way in, its site and its counters, and its working memory."""

    is_verified = True

    def __init__(self, handler: Handler, function: Function, target: BpfTarget, way: str, text: FunctionText) -> None:
        super().__init__(handler, function, text)
        self.target = target
        self.way = way
        self.context = "%ctx"
        self.numbers = frozenset[int]()
        if way in TRAMPOLINE_WAYS:
            arrays = frozenset(layout.name for layout in handler.maps if layout.kind == "array")
            self.numbers = frozenset(used_as_numbers(function, target.pointers, target.argument_count, arrays))
        self.site = ""
        # Where the stack is too small: bytes of this CPU's working memory that are there, and that turned out needed.
        # Working memory is found out about while lowering, so a part that needs some is lowered twice.
        self.scratch_size = -1  # none: everything goes on the stack
        self.scratch_used = 0
        # What lives in working memory since the stack was too small for it (see `spills`).
        self.distant = frozenset[int]()
        self._kept: dict[int, str] = {}

    def room(self, size: int) -> str:
        """Return *size* bytes outside the stack, where there is such memory."""
        if self.scratch_size < 0:
            return super().room(size)
        place = self.text.fixed_offset("%scratch", SCRATCH_HEADER + self.scratch_used)
        self.scratch_used += -(-size // 8) * 8
        return place

    def copy_string(self, to: str, source: str, size: str) -> str:
        """Copy a string by a helper: it takes distances that the verifier only knows bounds of, which loads and stores
        to the stack don't before Linux 5.12, and no path depends on what it finds."""
        return self.text.let(f"add i64 {call(self.text, 'copy_string', to, size, source)}, -1")

    def integer_room(self) -> str:
        """Return working memory for an integer, which is loaded and stored each time."""
        place = self.room(8)
        self.text.volatile.add(place)
        return place

    def keep_fault_flag(self) -> None:
        """Keep the fault flag in working memory: LLVM would keep what each read gave, to or it together at the end."""
        self._fault = self.integer_room()
        self.text.store(64, "0", self._fault)

    def bind(self, value: Value, operand: str) -> None:
        """Let *value* be *operand* from here on."""
        if value.number in self.distant and operand.startswith("%"):
            self._kept[value.number] = self.integer_room()
            self.text.store(value.type.bits, operand, self._kept[value.number])
        else:
            super().bind(value, operand)

    def value(self, value: Value) -> str:
        """Return the operand of *value*."""
        place = self._kept.get(value.number)
        return super().value(value) if place is None else self.text.load(value.type.bits, place)

    # Maps and sites

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

    def unsupported(self, what: str, place: Place, hint: str) -> CompileError:
        """Return the error that *what* can't be done by this way in."""
        return self.error(f"{what} can't be had through a {self.way}", place, hint)
