"""Nodes over maps.

Aggregates without a key are added to in place: the program holds the address of the map's memory, and each CPU has its
share of it, so that no helper but the CPU's number and no shared cache line stands in the way. With a key there is one
look-up, then an atomic add; only a key's first hit inserts, and where two CPUs insert at once the second one adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.arithmetic import bucket, convert
from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.fields import load_field, record, take_text
from kprobes.compiler.back.memory import zero
from kprobes.compiler.ir.nodes import I64, U64
from kprobes.errors import InternalError
from kprobes.model.layout import MapLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.back.bpf.part import BpfPart
    from kprobes.compiler.ir.nodes import (
        MapAdd,
        MapBump,
        MapDelete,
        MapRead,
        MapSample,
        MapWrite,
        Operand,
        Value,
    )

_ANY, _NOEXIST = "0", "1"


def _as_word(part: BpfPart, value: Value) -> str:
    return convert(part.text, value.type, I64 if value.type.signed else U64, part.value(value))


def _key(part: BpfPart, layout: MapLayout, operands: tuple[Operand, ...]) -> str:
    return record(part, "key", layout.key, operands, layout.key_size)


def map_add(part: BpfPart, node: MapAdd) -> None:
    """Add to a Count."""
    layout = part.layout(node.map)
    amount = _as_word(part, node.amount)
    if not layout.key:
        part.add(part.text.offset(part.map_value(node.map), part.shard(8)), amount)
        return
    _add_under(part, layout, _key(part, layout, node.key), amount)


def map_bump(part: BpfPart, node: MapBump) -> None:
    """Add to the one integer of a HashMap's value."""
    layout = part.layout(node.map)
    _add_under(part, layout, _key(part, layout, node.key), _as_word(part, node.amount))


def _add_under(part: BpfPart, layout: MapLayout, key: str, amount: str) -> None:
    def first(_: BpfPart) -> str:
        room = part.temporary("value", layout.value_size)
        part.text.store(64, amount, room)
        return room

    def add(pointer: str) -> None:
        part.add(pointer, amount)

    _upsert(part, layout, key, first, add, whole=True)


def _upsert(
    part: BpfPart,
    layout: MapLayout,
    key: str,
    first: Callable[[BpfPart], str],
    add: Callable[[str], None],
    *,
    whole: bool,
) -> None:
    """Look *key* up and *add* to its value; where it is missing insert what *first* gives.

    *whole*: what was inserted has the amount in it. Otherwise, and where another CPU was faster, look up again and add.
    """
    text, handle = part.text, part.map(layout.name)
    present, missing, end = text.label("present"), text.label("missing"), text.label("added")
    again, full = text.label("again"), text.label("full")
    found = call(text, "map_lookup_elem", handle, key)
    ways = [(found, text.block)]
    text.unlikely(text.let(f"icmp eq ptr {found}, null"), missing, present)
    text.start(missing)
    result = call(text, "map_update_elem", handle, key, first(part), _NOEXIST)
    if whole:
        text.branch(text.let(f"icmp eq i64 {result}, 0"), end, again)
        text.start(again)
    second = call(text, "map_lookup_elem", handle, key)
    ways.append((second, text.block))
    text.unlikely(text.let(f"icmp eq ptr {second}, null"), full, present)
    text.start(full)
    part.fault("-1")
    text.jump(end)
    text.start(present)
    add(text.phi("ptr", ways))
    text.start(end)


def map_sample(part: BpfPart, node: MapSample) -> None:
    """Add to a Histogram."""
    layout = part.layout(node.map)
    buckets = layout.buckets
    if buckets is None:
        raise InternalError(f"the map {node.map} has no buckets")
    weight = _as_word(part, node.weight)
    kind = I64 if node.sample.type.signed else U64
    sample = _as_word(part, node.sample)

    def add(pointer: str) -> None:
        number = bucket(part.text, buckets, kind, sample)
        part.add(part.text.offset(pointer, part.text.let(f"shl i64 {number}, 3")), weight)

    if not layout.key:
        add(part.text.offset(part.map_value(node.map), part.shard(8 * buckets.total)))
        return
    key = _key(part, layout, node.key)
    _upsert(part, layout, key, lambda part: _zeros(part, layout.value_size), add, whole=False)


def _zeros(part: BpfPart, size: int) -> str:
    """Return a pointer to *size* zero bytes, more than the stack should hold."""
    rounded = -(-size // 1024) * 1024
    name = f".zeros.{rounded}"
    part.need(MapLayout(name, "constants", 4, rounded, 1))  # an engine fills with zeros
    return part.map_value(name)


def map_read(part: BpfPart, node: MapRead) -> None:
    """Look a key up; give zeros where it is missing."""
    text, layout = part.text, part.layout(node.map)
    there, end = text.label("there"), text.label("looked")
    found = call(text, "map_lookup_elem", part.map(node.map), _key(part, layout, node.key))
    texts = [(field, slot) for field, slot in zip(layout.value, node.texts, strict=False) if slot is not None]
    for _, slot in texts:
        zero(text, part.buffer(slot), slot.size)
    is_there = text.let(f"icmp ne ptr {found}, null")
    missing = text.block
    text.branch(is_there, there, end)
    text.start(there)
    for field, slot in texts:
        take_text(part, field, slot, found)
    wanted = [(field, value) for field, value in zip(layout.value, node.to, strict=False) if value is not None]
    values = [(value, load_field(part, field, value.type, found)) for field, value in wanted]
    present = text.block
    text.start(end)
    for value, operand in values:
        nothing = "false" if value.type.bits == 1 else "0"
        part.bind(value, text.phi(f"i{value.type.bits}", [(nothing, missing), (operand, present)]))
    part.bind(node.found, text.phi("i1", [("false", missing), ("true", present)]))


def map_write(part: BpfPart, node: MapWrite) -> None:
    """Store under a key; a full map is a fault."""
    layout = part.layout(node.map)
    key = _key(part, layout, node.key)
    value = record(part, "value", layout.value, node.values, layout.value_size)
    part.fault(call(part.text, "map_update_elem", part.map(node.map), key, value, _ANY))


def map_delete(part: BpfPart, node: MapDelete) -> None:
    """Forget a key."""
    layout = part.layout(node.map)
    result = call(part.text, "map_delete_elem", part.map(node.map), _key(part, layout, node.key))
    part.bind(node.found, part.text.let(f"icmp eq i64 {result}, 0"))
