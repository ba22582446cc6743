"""Makes a handler tell what it sees: at each hit an event of the context, and one for each piece of memory it reads.

The records go the way of all events, so each engine can record. Their names begin with a period:

- `.entry` and `.exit`: arguments (`a0` ...), registers (`r.di` ...), the return value (`result`), the probed address
  where it is asked for (`function`), fields of a tracepoint's record (`f16.4`: offset and size) and the world (`w.pid`,
  `w.comm`).
- `.read` and `.text`: an address, what was there, and whether a read of this hit had failed by then.
- `.field`: a string of a tracepoint's record.
- `.word.NAME`: a builtin that is asked for where the handler asks, such as `stack`.

Each carries `hit`, which tells the records of one hit from those of others: the time and the thread of its entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kprobes.arch.registers import registers
from kprobes.compiler.ir.nodes import (
    BOOL,
    U32,
    U64,
    Binary,
    Block,
    Builtin,
    BuiltinText,
    Const,
    Convert,
    Emit,
    Faulted,
    Function,
    Handler,
    IntType,
    Load,
    Node,
    Operand,
    Place,
    ReadBytes,
    ReadContext,
    ReadSlot,
    ReadText,
    RecordText,
    RestoreCall,
    SaveCall,
    Slot,
    Value,
    WriteSlot,
)
from kprobes.compiler.ir.operands import made
from kprobes.frozen import replace
from kprobes.model.layout import RECORD_HEADER, EventLayout, Field, pack_fields
from kprobes.model.mapspec import COMM_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

U8 = IntType(8, signed=False)
HIT = Slot(".hit", U64)
_COMM = Slot(".recorded.comm", None, COMM_SIZE)
_THREAD_SHIFT = 42


@dataclass(frozen=True, slots=True)
class Context:
    """What can be recorded at a hit: how many *arguments*, whether *registers*, the *words* of the world, and the
    integer *fields* of a tracepoint's record as (offset, size). *returns*: the exit is that of a function, which has a
    value."""

    arguments: int = 0
    registers: bool = False
    words: tuple[str, ...] = ()
    fields: tuple[tuple[int, int], ...] = ()
    returns: bool = False


def recording(handler: Handler, context: Context, first_event: int) -> Handler:
    """Return *handler* with what it sees sent besides; its further events are numbered from *first_event*."""
    sender = _Sender(handler.name, first_event)
    exit_ = handler.exit
    saved = handler.entry is not None and exit_ is not None
    fields = handler.call_fields
    if saved:
        end = max((one.offset + one.size for one in fields), default=0)
        fields = (*fields, Field("hit", "uint", -(-end // 8) * 8, 8))
    return replace(
        handler,
        entry=_Part(handler.entry, handler.arch, context, sender, saved=saved).function() if handler.entry else None,
        exit=_Part(exit_, handler.arch, context, sender, saved=saved).function() if exit_ else None,
        events=(*handler.events, *sender.events.values()),
        call_fields=fields,
    )


@dataclass
class _Sender:
    """The events that were made so far, by name and shape."""

    handler: str
    next_event: int
    events: dict[object, EventLayout] = field(default_factory=dict)

    def event(self, name: str, fields: Sequence[tuple[str, str, int]]) -> int:
        key = (name, tuple(fields))
        if key not in self.events:
            placed, size = pack_fields(list(fields), RECORD_HEADER)
            self.events[key] = EventLayout(self.next_event, name, size, placed)
            self.next_event += 1
        return self.events[key].id


class _Part:
    """One part of the handler, with nodes put in."""

    def __init__(self, function: Function, arch: str, context: Context, sender: _Sender, *, saved: bool) -> None:
        self._function = function
        self._arch = arch
        self._context = context
        self._sender = sender
        self._saved = saved
        numbers = (value.number for block in function.blocks for node in block.nodes for value in made(node))
        self._next = max(numbers, default=-1) + 1
        self._is_exit = function.part == "exit"
        nodes = (node for block in function.blocks for node in block.nodes)
        self._asks_where = any(isinstance(node, ReadContext) and node.what == "function" for node in nodes)

    def function(self) -> Function:
        """Return the part."""
        blocks = []
        for index, block in enumerate(self._function.blocks):
            nodes = [new for node in block.nodes for new in self._with_records(node)]
            if not index:
                nodes = self._begun(nodes, block)
            blocks.append(replace(block, nodes=tuple(nodes)))
        slots = dict.fromkeys((*self._function.slots, HIT, _COMM))
        return replace(self._function, slots=tuple(slots), blocks=tuple(blocks))

    def _begun(self, nodes: list[Node], block: Block) -> list[Node]:
        """Return the nodes of the first block, with the record of the context in front."""
        place = block.nodes[0].place if block.nodes else block.end.place
        head: list[Node] = []
        if nodes and isinstance(nodes[0], RestoreCall):
            head.append(nodes.pop(0))
        else:
            head += self._new_hit(place)
        head += self._context_record(place)
        return head + nodes

    def _value(self, kind: IntType) -> Value:
        self._next += 1
        return Value(self._next - 1, kind)

    def _new_hit(self, place: Place) -> Iterator[Node]:
        now, thread, wide, shift, high, hit = (self._value(U64 if n != 1 else U32) for n in range(6))
        yield Builtin(place, now, "now")
        yield Builtin(place, thread, "tid")
        yield Convert(place, wide, thread)
        yield Const(place, shift, _THREAD_SHIFT)
        yield Binary(place, high, "shl", wide, shift)
        yield Binary(place, hit, "xor", now, high)
        yield WriteSlot(place, HIT, hit)

    def _context_record(self, place: Place) -> Iterator[Node]:
        shapes: list[tuple[str, str, int]] = []
        operands: list[Operand] = []

        def add(name: str, node_of: type[Builtin] | type[ReadContext], *details: object, size: int = 8) -> Node:
            value = self._value(IntType(8 * size, signed=False))
            shapes.append((name, "uint", size))
            operands.append(value)
            return node_of(place, value, *details)  # type: ignore[arg-type]

        context = self._context
        if self._is_exit and context.returns:
            yield add("result", ReadContext, "return")
        if not self._is_exit:
            for index in range(context.arguments):
                yield add(f"a{index}", ReadContext, "argument", index)
        if context.registers:
            for name in registers(self._arch).names:
                yield add(f"r.{name}", ReadContext, "register", 0, name)
        if self._asks_where:
            yield add("function", ReadContext, "function")
        for offset, size in context.fields:
            yield add(f"f{offset}.{size}", ReadContext, "record", offset, size=size)
        for word in context.words:
            yield add(f"w.{word}", Builtin, word)
        yield BuiltinText(place, _COMM, "comm")
        shapes.append(("w.comm", "str", COMM_SIZE))
        operands.append(_COMM)
        yield from self._send(place, ".exit" if self._is_exit else ".entry", shapes, operands)

    def _send(
        self, place: Place, name: str, shapes: Sequence[tuple[str, str, int]], operands: Sequence[Operand]
    ) -> Iterator[Node]:
        hit = self._value(U64)
        yield ReadSlot(place, hit, HIT)
        event = self._sender.event(name, [("hit", "uint", 8), *shapes])
        yield Emit(place, event, (hit, *operands))

    # What the handler reads.

    def _with_records(self, node: Node) -> Iterator[Node]:
        if isinstance(node, SaveCall) and self._saved:
            hit = self._value(U64)
            yield ReadSlot(node.place, hit, HIT)
            yield replace(node, operands=(*node.operands, hit))
            return
        if isinstance(node, RestoreCall) and self._saved:
            yield replace(node, slots=(*node.slots, HIT))
            return
        yield node
        if isinstance(node, Load):
            yield from self._memory(node, self._widened(node.place, node.to), max(node.to.type.bits, 8) // 8)
        elif isinstance(node, ReadText | ReadBytes):
            yield from self._text(node)
        elif isinstance(node, RecordText):
            shapes = [("offset", "uint", 8), ("length", "uint", 8), ("text", "str", node.slot.size)]
            offset, length = self._value(U64), self._value(U64)
            yield Const(node.place, offset, node.offset)
            yield Const(node.place, length, node.size)
            yield from self._send(node.place, ".field", shapes, (offset, length, node.slot))
        elif isinstance(node, Builtin) and node.name not in self._context.words:
            bits = node.to.type.bits
            yield from self._send(node.place, f".word.{node.name}", [("value", "uint", bits // 8)], (node.to,))

    def _widened(self, place: Place, value: Value) -> tuple[list[Node], Value]:
        if value.type == U64:
            return [], value
        wide = self._value(U64)
        return [Convert(place, wide, value)], wide

    def _address(self, node: Load | ReadText | ReadBytes) -> tuple[list[Node], Value]:
        nodes, base = self._widened(node.place, node.address)
        if not node.offset:
            return nodes, base
        offset, address = self._value(U64), self._value(U64)
        nodes.append(Const(node.place, offset, node.offset & (1 << 64) - 1))
        nodes.append(Binary(node.place, address, "add", base, offset))
        return nodes, address

    def _failed(self, place: Place) -> tuple[list[Node], Value]:
        flag, byte = self._value(BOOL), self._value(U8)
        return [Faulted(place, flag), Convert(place, byte, flag)], byte

    def _memory(self, node: Load, content: tuple[list[Node], Value], size: int) -> Iterator[Node]:
        place = node.place
        before, value = content
        at, address = self._address(node)
        asked, failed = self._failed(place)
        length = self._value(U8)
        yield from (*before, *at, *asked, Const(place, length, size))
        shapes = [("address", "uint", 8), ("value", "uint", 8), ("size", "uint", 1), ("failed", "uint", 1)]
        yield from self._send(place, ".read", shapes, (address, value, length, failed))

    def _text(self, node: ReadText | ReadBytes) -> Iterator[Node]:
        at, address = self._address(node)
        asked, failed = self._failed(node.place)
        yield from (*at, *asked)
        shapes = [("address", "uint", 8), ("text", "str", node.slot.size), ("failed", "uint", 1)]
        yield from self._send(node.place, ".text", shapes, (address, node.slot, failed))
