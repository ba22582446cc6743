"""What the verifier asks of each kind of node: one row, one rule."""

from __future__ import annotations

from kprobes.arch.registers import registers
from kprobes.compiler.ir import nodes as ir
from kprobes.model.builtins import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from kprobes.model.layout import EventLayout, Field, MapLayout
else:
    Protocol = object  # `typing` is 5 ms of every command that compiles

BUILTINS = frozenset(row.name for row in TABLE if row.world)
MOST_ELEMENTS = 62
TEXT_BUILTINS = frozenset({"comm"})


class Checker(Protocol):
    """What a rule can ask; see `verify`."""

    part: str
    handler: ir.Handler
    events: dict[int, EventLayout]

    def fail(self, what: str) -> object:
        """Raise."""

    def require(self, condition: bool, what: str) -> None:
        """Raise unless *condition*."""

    def buffer(self, slot: object) -> ir.Slot:
        """Return *slot* if it is a byte buffer."""

    def layout(self, name: str, *kinds: str) -> MapLayout:
        """Return the layout of a map of one of *kinds*."""


def _const(check: Checker, node: ir.Const) -> None:
    kind = node.to.type
    low, high = (-(1 << kind.bits - 1), 1 << kind.bits - 1) if kind.signed else (0, 1 << kind.bits)
    check.require(low <= node.value < high, f"{node.value} doesn't fit {kind}")


def _binary(check: Checker, node: ir.Binary) -> None:
    kind = node.to.type
    check.require(node.op in ir.BINARY, f"no operator is called {node.op!r}")
    check.require(kind == node.left.type == node.right.type, "the types differ")
    check.require(kind.bits > 1, "arithmetic on truth values")


def _compare(check: Checker, node: ir.Compare) -> None:
    kind = node.left.type
    check.require(node.op in ir.COMPARE, f"no operator is called {node.op!r}")
    check.require(kind == node.right.type, "the types differ")
    check.require(node.to.type == ir.BOOL, "the result is no bool")
    check.require(kind.bits > 1 or node.op in ("eq", "ne"), "truth values have no order")


def _convert(check: Checker, node: ir.Convert) -> None:
    check.require(node.to.type.bits in (1, 8, 16, 32, 64), f"there is no type {node.to.type}")


def _read_slot(check: Checker, node: ir.ReadSlot) -> None:
    check.require(node.slot.type == node.to.type, f"the slot {node.slot.name} is of another type")


def _write_slot(check: Checker, node: ir.WriteSlot) -> None:
    check.require(node.slot.type == node.source.type, f"the slot {node.slot.name} is of another type")


def _read_context(check: Checker, node: ir.ReadContext) -> None:
    check.require(node.what in ir.CONTEXTS, f"a hit has no {node.what!r}")
    check.require(
        node.what != "register" or node.name in registers(check.handler.arch).offsets,
        f"no register is called {node.name!r}",
    )
    check.require(node.what != "return" or check.part == "exit", "the return value is not there yet")
    check.require(node.what != "argument" or check.part == "entry", "the arguments are gone")
    check.require(node.index >= 0, "a negative index")


def _write_context(check: Checker, node: ir.WriteContext) -> None:
    check.require(node.what in ("register", "skip", "return"), f"nothing is called {node.what!r}")
    check.require(
        node.what != "register" or node.name in registers(check.handler.arch).offsets,
        f"no register is called {node.name!r}",
    )
    check.require((node.source is None) == (node.what == "skip"), "value and kind don't go together")


def _address(check: Checker, address: ir.Value, space: str) -> None:
    check.require(space in ir.SPACES, f"no address space is called {space!r}")
    check.require(address.type.bits == 64, "an address of less than 64 bits")


def _failure(check: Checker, node: ir.Load | ir.ReadText) -> None:
    check.require(node.failed is None or node.failed.type == ir.BOOL, "`failed` is no bool")


def _load(check: Checker, node: ir.Load) -> None:
    _address(check, node.address, node.space)
    _failure(check, node)


def _read_text(check: Checker, node: ir.ReadText) -> None:
    _read_bytes(check, node)
    _failure(check, node)


def _read_bytes(check: Checker, node: ir.ReadText | ir.ReadBytes) -> None:
    check.buffer(node.slot)
    _address(check, node.address, node.space)


def _record_text(check: Checker, node: ir.RecordText) -> None:
    check.buffer(node.slot)
    check.require(node.offset >= 0 and node.size >= 0, "a negative offset or size")


def _const_text(check: Checker, node: ir.ConstText) -> None:
    check.require(len(node.text) < check.buffer(node.slot).size, "the text is too long")
    check.require(b"\0" not in node.text, "a NUL in the text")


def _copy_text(check: Checker, node: ir.CopyText) -> None:
    check.buffer(node.slot)
    check.buffer(node.source)


def _builtin_text(check: Checker, node: ir.BuiltinText) -> None:
    check.buffer(node.slot)
    check.require(node.name in TEXT_BUILTINS, f"no text is called {node.name!r}")


def _compare_text(check: Checker, node: ir.CompareText) -> None:
    check.require(node.to.type == ir.BOOL, "the result is no bool")
    check.require(len(node.text) < check.buffer(node.slot).size, "the text is too long")
    check.require(b"\0" not in node.text, "a NUL in the text")


def _compare_texts(check: Checker, node: ir.CompareTexts) -> None:
    check.require(node.to.type == ir.BOOL, "the result is no bool")
    check.buffer(node.left)
    check.buffer(node.right)


def _find_text(check: Checker, node: ir.FindText) -> None:
    check.require(node.to.type == ir.BOOL, "the result is no bool")
    check.require(0 < len(node.text) < check.buffer(node.slot).size, "the text is empty or too long")
    check.require(b"\0" not in node.text, "a NUL in the text")


def _match_text(check: Checker, node: ir.MatchText) -> None:
    check.require(node.to.type == ir.BOOL, "the result is no bool")
    check.buffer(node.slot)
    check.require(sum(map(bool, node.elements)) <= MOST_ELEMENTS, "too many elements")
    check.require(not any(b"\0" in one for one in node.elements), "a NUL in an element")


def _text_length(check: Checker, node: ir.TextLength) -> None:
    check.buffer(node.slot)
    check.require(node.to.type == ir.I64, "the length is no i64")


def _cut_text(check: Checker, node: ir.CutText) -> None:
    check.require(check.buffer(node.slot) is not check.buffer(node.source), "a buffer is cut into itself")
    check.require(node.start.type == node.length.type == ir.U64, "start and length are no u64")


def _format_text(check: Checker, node: ir.FormatText) -> None:
    takers = [piece for piece in node.pieces if piece.takes]
    if len(takers) != len(node.operands):
        check.fail(f"{len(takers)} pieces take an operand, and {len(node.operands)} are given")
    room = sum(len(piece.text) for piece in node.pieces)
    for piece, operand in zip(takers, node.operands, strict=True):
        room += check.buffer(operand).size - 1 if isinstance(operand, ir.Slot) else _number_room(check, piece, operand)
    check.require(room < check.buffer(node.slot).size, "the pieces have no room")
    check.require(node.slot not in node.operands, "a buffer is put into itself")
    check.require(not any(b"\0" in piece.text + piece.prefix for piece in node.pieces), "a NUL in a piece")


def _number_room(check: Checker, piece: ir.Piece, operand: ir.Value) -> int:
    check.require(operand.type in (ir.I64, ir.U64), "a piece takes integers of 64 bits")
    check.require(piece.base in (10, 16), f"no number is written in base {piece.base}")
    check.require(1 <= piece.least <= piece.most <= 20, "a piece of impossible digits")
    return piece.most + len(piece.prefix) + operand.type.signed


def _builtin(check: Checker, node: ir.Builtin) -> None:
    check.require(node.name in BUILTINS, f"no builtin is called {node.name!r}")
    check.require(not node.arguments, "builtins take no arguments")
    check.require(node.to.type.bits >= 32, "a builtin of less than 32 bits")


def _fit(check: Checker, fields: Sequence[Field], operands: Sequence[ir.Operand], what: str) -> None:
    if len(fields) != len(operands):
        check.fail(f"{what} has {len(fields)} fields, and {len(operands)} operands are given")
    for field, operand in zip(fields, operands, strict=True):
        if field.kind == "str":
            check.buffer(operand)
        else:
            _fits(check, field, operand, what)


def _fits(check: Checker, field: Field, operand: ir.Operand | None, what: str) -> None:
    check.require(isinstance(operand, ir.Value), f"{what}: the field {field.name} is a number, the operand is none")
    assert isinstance(operand, ir.Value)
    check.require(field.size in (1, 2, 4, 8), f"{what}: the field {field.name} has {field.size} bytes")
    check.require(operand.type.bits >= 8, f"{what}: the field {field.name} is given a truth value")


def _word(check: Checker, value: ir.Value, what: str) -> None:
    check.require(value.type.bits == 64, f"the {what} has not 64 bits")


def _map_add(check: Checker, node: ir.MapAdd) -> None:
    _fit(check, check.layout(node.map, "count").key, node.key, "the key")
    _word(check, node.amount, "amount")


def _map_sample(check: Checker, node: ir.MapSample) -> None:
    layout = check.layout(node.map, "histogram")
    check.require(layout.buckets is not None, f"the map {node.map} has no buckets")
    _fit(check, layout.key, node.key, "the key")
    _word(check, node.sample, "sample")
    _word(check, node.weight, "weight")


def _map_fold(check: Checker, node: ir.MapFold) -> None:
    _fit(check, check.layout(node.map, "min", "max", "avg").key, node.key, "the key")
    _word(check, node.sample, "sample")


_LOOKED_INTO = ("hash", "lru", "array")


def _look_up(check: Checker, name: str, key: tuple[ir.Operand, ...]) -> MapLayout:
    layout = check.layout(name, *_LOOKED_INTO)
    if layout.kind != "array":
        _fit(check, layout.key, key, "the key")
        return layout
    check.require(len(key) == 1 and isinstance(key[0], ir.Value), "an array wants one index")
    assert isinstance(key[0], ir.Value)
    _word(check, key[0], "index")
    return layout


def _map_read(check: Checker, node: ir.MapRead) -> None:
    _results(check, node, _look_up(check, node.map, node.key))


def _results(check: Checker, node: ir.MapRead | ir.QueuePop, layout: MapLayout) -> None:
    check.require(node.found.type == ir.BOOL, "`found` is no bool")
    check.require(len(node.to) <= len(layout.value) and len(node.texts) <= len(layout.value), "too many results")
    for field, value in zip(layout.value, node.to, strict=False):
        if value is not None:
            check.require(field.kind != "str", f"the field {field.name} is a text")
            _fits(check, field, value, "the value")
    for field, slot in zip(layout.value, node.texts, strict=False):
        if slot is not None:
            check.require(field.kind == "str", f"the field {field.name} is a number")
            check.buffer(slot)


def _map_write(check: Checker, node: ir.MapWrite) -> None:
    layout = _look_up(check, node.map, node.key)
    _fit(check, layout.value, node.values, "the value")


def _map_bump(check: Checker, node: ir.MapBump) -> None:
    layout = _look_up(check, node.map, node.key)
    is_one_word = len(layout.value) == 1 and layout.value_size == 8 and layout.value[0].kind != "str"
    check.require(is_one_word, f"the value of {node.map} is not one number of 8 bytes")
    _word(check, node.amount, "amount")


def _map_delete(check: Checker, node: ir.MapDelete) -> None:
    _fit(check, check.layout(node.map, "hash", "lru").key, node.key, "the key")
    check.require(node.found.type == ir.BOOL, "`found` is no bool")


def _queue_push(check: Checker, node: ir.QueuePush) -> None:
    _fit(check, check.layout(node.map, "queue").value, node.values, "the value")


def _queue_pop(check: Checker, node: ir.QueuePop) -> None:
    _results(check, node, check.layout(node.map, "queue"))


def _emit(check: Checker, node: ir.Emit) -> None:
    layout = check.events.get(node.event)
    if layout is None:
        check.fail(f"there is no event {node.event}")
        return
    _fit(check, layout.fields, node.operands, f"the event {layout.name}")
    for field, operand in zip(layout.fields, node.operands, strict=True):
        check.require(field.offset + field.size <= layout.size, f"the field {field.name} lies outside the record")
        if isinstance(operand, ir.Value):
            check.require(operand.type.bits == 8 * field.size, f"the field {field.name} has another size")


def _save_call(check: Checker, node: ir.SaveCall) -> None:
    _fit(check, check.handler.call_fields, node.operands, "the call")


def _restore_call(check: Checker, node: ir.RestoreCall) -> None:
    fields = check.handler.call_fields
    check.require(len(node.slots) == len(fields), "slots and fields of the call differ in number")
    for field, slot in zip(fields, node.slots, strict=True):
        if field.kind == "str":
            check.require(check.buffer(slot).size == field.size, f"{slot.name} crosses with another size")
        else:
            check.require(slot.type is not None, f"{slot.name} crosses as a number")


def _fault(_: Checker, __: ir.Fault) -> None:
    """Nothing to ask."""


def _faulted(check: Checker, node: ir.Faulted) -> None:
    check.require(node.to.type == ir.BOOL, "the result is no bool")


RULES: dict[type, Callable[..., None]] = {
    ir.Const: _const,
    ir.Binary: _binary,
    ir.Compare: _compare,
    ir.Convert: _convert,
    ir.ReadSlot: _read_slot,
    ir.WriteSlot: _write_slot,
    ir.ReadContext: _read_context,
    ir.WriteContext: _write_context,
    ir.Load: _load,
    ir.ReadText: _read_text,
    ir.ReadBytes: _read_bytes,
    ir.RecordText: _record_text,
    ir.ConstText: _const_text,
    ir.CopyText: _copy_text,
    ir.BuiltinText: _builtin_text,
    ir.CompareText: _compare_text,
    ir.CompareTexts: _compare_texts,
    ir.FindText: _find_text,
    ir.MatchText: _match_text,
    ir.TextLength: _text_length,
    ir.CutText: _cut_text,
    ir.FormatText: _format_text,
    ir.Builtin: _builtin,
    ir.MapAdd: _map_add,
    ir.MapSample: _map_sample,
    ir.MapFold: _map_fold,
    ir.MapRead: _map_read,
    ir.MapWrite: _map_write,
    ir.MapBump: _map_bump,
    ir.MapDelete: _map_delete,
    ir.QueuePush: _queue_push,
    ir.QueuePop: _queue_pop,
    ir.Emit: _emit,
    ir.SaveCall: _save_call,
    ir.RestoreCall: _restore_call,
    ir.Fault: _fault,
    ir.Faulted: _faulted,
}
