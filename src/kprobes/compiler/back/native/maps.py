"""Nodes over maps: shares of blocks without a key, tables with one (see `model.shared`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.arithmetic import bucket, convert
from kprobes.compiler.back.fields import load_field, record, take_text
from kprobes.compiler.back.memory import copy, zero
from kprobes.compiler.back.native import runtime
from kprobes.compiler.ir.nodes import I64, U64
from kprobes.errors import InternalError
from kprobes.model.shared import table_of

if TYPE_CHECKING:
    from kprobes.compiler.back.native.part import NativePart
    from kprobes.compiler.ir.nodes import (
        IntType,
        MapAdd,
        MapBump,
        MapDelete,
        MapRead,
        MapSample,
        MapWrite,
        Operand,
        Value,
    )
    from kprobes.model.layout import Buckets, MapLayout

_LINE = 64  # bytes between the shares of a Count


def _as_word(part: NativePart, value: Value) -> str:
    return convert(part.text, value.type, I64 if value.type.signed else U64, part.value(value))


def _call(part: NativePart, function: str, result: str, layout: MapLayout, key: str, *more: str) -> str:
    """Call one of the functions over tables."""
    table = table_of(layout)
    numbers = (table.key_size // 8, table.stride, table.capacity - 1)
    listed = ", ".join([f"ptr {part.map_value(layout.name)}", f"ptr {key}", *(f"i64 {n}" for n in numbers), *more])
    return part.text.let(f"call {result} {function}({listed})")


def _key(part: NativePart, layout: MapLayout, operands: tuple[Operand, ...]) -> str:
    return record(part, "key", layout.key, operands, layout.key_size)


def _claimed(part: NativePart, layout: MapLayout, key: str, value: str = "null") -> tuple[str, str]:
    """Go on with the address of the key's value, made if need be; a full table is a fault. Return it and the label
    where what follows it must end."""
    text = part.text
    function = runtime.claim(text.module)
    slot = _call(part, function, "ptr", layout, key, f"i64 {layout.max_entries}", f"ptr {value}")
    full, there, end = text.label("full"), text.label("there"), text.label("added")
    text.unlikely(text.let(f"icmp eq ptr {slot}, null"), full, there)
    text.start(full)
    part.fault("-1")
    text.jump(end)
    text.start(there)
    return text.offset(slot, table_of(layout).value_at), end


def map_add(part: NativePart, node: MapAdd) -> None:
    """Add to a Count."""
    layout = part.layout(node.map)
    amount = _as_word(part, node.amount)
    if not layout.key:
        part.add_own(part.text.offset(part.map_value(node.map), part.share(_LINE)), amount)
        return
    _add_under(part, layout, node.key, amount)


def map_bump(part: NativePart, node: MapBump) -> None:
    """Add to the one integer of a HashMap's value."""
    _add_under(part, part.layout(node.map), node.key, _as_word(part, node.amount))


def _add_under(part: NativePart, layout: MapLayout, key: tuple[Operand, ...], amount: str) -> None:
    value, end = _claimed(part, layout, _key(part, layout, key))
    part.add(value, amount)
    part.text.start(end)


def _bucket(part: NativePart, buckets: Buckets, kind: IntType, sample: str) -> str:
    """As `bucket`; the highest bit is one instruction here."""
    if buckets.scale != "log2":
        return bucket(part.text, buckets, kind, sample)
    text = part.text
    count = text.module.declare("llvm.ctlz.i64", "i64 {}(i64, i1)")
    above = text.let(f"sub i64 65, {text.let(f'call i64 {count}(i64 {sample}, i1 true)')}")
    low = text.let(f"zext i1 {text.let(f'icmp eq i64 {sample}, 0')} to i64")
    positive = text.let(f"icmp {'sgt' if kind.signed else 'ne'} i64 {sample}, 0")
    return text.let(f"select i1 {positive}, i64 {above}, i64 {low}")


def map_sample(part: NativePart, node: MapSample) -> None:
    """Add to a Histogram."""
    layout = part.layout(node.map)
    if layout.buckets is None:
        raise InternalError(f"the map {node.map} has no buckets")
    weight = _as_word(part, node.weight)
    kind = I64 if node.sample.type.signed else U64
    sample = _as_word(part, node.sample)
    if layout.key:
        key = _key(part, layout, node.key)
        value, end = _claimed(part, layout, key)
        number = _bucket(part, layout.buckets, kind, sample)
        part.add(part.text.offset(value, part.text.let(f"shl i64 {number}, 3")), weight)
        part.text.start(end)
        return
    number = _bucket(part, layout.buckets, kind, sample)
    share = part.text.offset(part.map_value(node.map), part.share(8 * layout.buckets.total))
    part.add_own(part.text.offset(share, part.text.let(f"shl i64 {number}, 3")), weight)


def map_read(part: NativePart, node: MapRead) -> None:
    """Look a key up; give zeros where it is missing."""
    text, layout = part.text, part.layout(node.map)
    there, end = text.label("there"), text.label("looked")
    slot = _call(part, runtime.find(text.module), "ptr", layout, _key(part, layout, node.key))
    texts = [(field, to) for field, to in zip(layout.value, node.texts, strict=False) if to is not None]
    for _, to in texts:
        zero(text, part.buffer(to), to.size)
    is_there = text.let(f"icmp ne ptr {slot}, null")
    missing = text.block
    text.branch(is_there, there, end)
    text.start(there)
    found = text.offset(slot, table_of(layout).value_at)
    for field, to in texts:
        take_text(part, field, to, found)
    wanted = [(field, value) for field, value in zip(layout.value, node.to, strict=False) if value is not None]
    values = [(value, load_field(part, field, value.type, found)) for field, value in wanted]
    present = text.block
    text.start(end)
    for value, operand in values:
        nothing = "false" if value.type.bits == 1 else "0"
        part.bind(value, text.phi(f"i{value.type.bits}", [(nothing, missing), (operand, present)]))
    part.bind(node.found, text.phi("i1", [("false", missing), ("true", present)]))


def map_write(part: NativePart, node: MapWrite) -> None:
    """Store under a key; a full map is a fault."""
    layout = part.layout(node.map)
    key = _key(part, layout, node.key)
    value = record(part, "value", layout.value, node.values, layout.value_size)
    place, end = _claimed(part, layout, key, value)
    copy(part.text, (place, 8), (value, 8), layout.value_size)
    part.text.start(end)


def map_delete(part: NativePart, node: MapDelete) -> None:
    """Forget a key."""
    layout = part.layout(node.map)
    found = _call(part, runtime.forget(part.text.module), "i1", layout, _key(part, layout, node.key))
    part.bind(node.found, found)
