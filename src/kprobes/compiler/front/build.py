"""Making the blocks and nodes of one function of the IR."""

from __future__ import annotations

from kprobes.compiler.front.flow import tidy
from kprobes.compiler.front.weight import Weights
from kprobes.compiler.ir.nodes import (
    BOOL,
    U64,
    Binary,
    Block,
    Branch,
    Builtin,
    Compare,
    Const,
    Convert,
    Function,
    IntType,
    Jump,
    Load,
    Node,
    Place,
    ReadContext,
    ReadSlot,
    Return,
    Slot,
    Terminator,
    Value,
    WriteSlot,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Nodes of one part: calls and loops over tuples are expanded, so a short text can become a long program.
MOST_NODES = 32768


class TooLargeError(Exception):
    """The handler grew beyond what is worth compiling; *place* is where it did."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


class OpenBlock:
    """A block under construction. *reached* is false while nothing live jumps to it."""

    __slots__ = ("bound", "end", "label", "nodes", "reached")

    def __init__(self, label: str) -> None:
        self.label = label
        self.nodes: list[Node] = []
        self.end: Terminator | None = None
        self.bound = 0
        self.reached = False


class Builder:
    """Grows one function: nodes go to the end of the *current* block; those of *prologue_block* come before all."""

    def __init__(self, name: str, part: str) -> None:
        self.name = name
        self.part = part
        self.prologue_block = OpenBlock("prologue")
        self.blocks: list[OpenBlock] = []
        self.weights = Weights()
        self._values = 0
        self._constants: dict[int, int] = {}
        self._widened: dict[int, Value] = {}
        self._labels = 0
        self._nodes = 0
        self.current = self.new_block("start")
        self.current.reached = True
        self.place_block(self.current)

    # Blocks.

    def new_block(self, label: str) -> OpenBlock:
        """Return a block that is not placed yet; all but the first get a number."""
        block = OpenBlock(f"{label}{self._labels or ''}")
        self._labels += 1
        return block

    def place_block(self, block: OpenBlock) -> None:
        """Continue in *block*."""
        self.blocks.append(block)
        self.current = block

    def jump(self, place: Place, target: OpenBlock) -> None:
        """End the current block by going to *target*."""
        self._end(Jump(place, target.label), target)

    def branch(self, place: Place, condition: Value, yes: OpenBlock, no: OpenBlock) -> None:
        """End the current block by a truth value."""
        self._end(Branch(place, condition, yes.label, no.label), yes, no)

    def leave(self, place: Place) -> None:
        """End the current block by returning, and go on in one that nothing reaches."""
        self._end(Return(place))
        self.place_block(self.new_block("dead"))

    def _end(self, end: Terminator, *targets: OpenBlock) -> None:
        self.current.end = end
        for target in targets:
            target.reached |= self.current.reached

    # Nodes.

    def add(self, node: Node) -> None:
        """Append *node*.

        Raises:
            TooLargeError: there are too many.
        """
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise TooLargeError(node.place)
        self.current.nodes.append(node)

    def value(self, kind: IntType) -> Value:
        """Return a new value."""
        self._values += 1
        return Value(self._values - 1, kind)

    def const(self, place: Place, number: int, kind: IntType) -> Value:
        """Return *number*, wrapped to the type."""
        number &= (1 << kind.bits) - 1
        if kind.signed and number >> (kind.bits - 1):
            number -= 1 << kind.bits
        to = self.value(kind)
        self.add(Const(place, to, number))
        self._constants[to.number] = number
        return to

    def binary(self, place: Place, op: str, left: Value, right: Value) -> Value:
        """Return `left op right`, of the type of *left*."""
        to = self.value(left.type)
        self.add(Binary(place, to, op, left, right))
        return to

    def compare(self, place: Place, op: str, left: Value, right: Value) -> Value:
        """Return the truth of `left op right`."""
        to = self.value(BOOL)
        self.add(Compare(place, to, op, left, right))
        return to

    def convert(self, place: Place, source: Value, kind: IntType) -> Value:
        """Return *source* as *kind*; itself where it already is."""
        if source.type == kind:
            return source
        if kind.bits > 1 and source.number in self._constants:
            return self.const(place, self._constants[source.number], kind)
        origin = self._widened.get(source.number)
        if origin is not None and kind.bits <= origin.type.bits:
            return self.convert(place, origin, kind)  # no way there and back
        to = self.value(kind)
        self.add(Convert(place, to, source))
        if kind.bits >= source.type.bits:
            self._widened[to.number] = source
        return to

    def negate(self, place: Place, truth: Value) -> Value:
        """Return the opposite of a truth value."""
        return self.compare(place, "eq", truth, self.const(place, 0, BOOL))

    def load(self, place: Place, kind: IntType, address: Value, offset: int, space: str) -> Value:
        """Return what lies at *address* + *offset*."""
        to = self.value(kind)
        self.add(Load(place, to, address, offset, space))
        return to

    def read_slot(self, place: Place, slot: Slot) -> Value:
        """Return the integer in *slot*."""
        assert slot.type is not None
        to = self.value(slot.type)
        self.add(ReadSlot(place, to, slot))
        return to

    def write_slot(self, place: Place, slot: Slot, source: Value) -> None:
        """Set the integer in *slot*."""
        self.add(WriteSlot(place, slot, source))

    def context(self, place: Place, what: str, index: int = 0, name: str = "", kind: IntType = U64) -> Value:
        """Return something that the hit brings along."""
        to = self.value(kind)
        self.add(ReadContext(place, to, what, index, name))
        return to

    def builtin(self, place: Place, name: str, kind: IntType) -> Value:
        """Return the integer builtin *name*."""
        to = self.value(kind)
        self.add(Builtin(place, to, name))
        return to

    def finish(self, place: Place, keep: Iterable[Slot] = ()) -> Function:
        """Return the function, without what can't be reached and what has no use; writes of *keep* stay."""
        if self.current.end is None:
            self.current.end = Return(place)
        self.blocks[0].nodes[:0] = self.prologue_block.nodes
        self.prologue_block.nodes = []
        blocks = tuple(
            Block(block.label, tuple(block.nodes), block.end or Return(place), block.bound)
            for block in self.blocks
            if block.reached
        )
        return tidy(Function(self.name, self.part, (), blocks), frozenset(keep))
