"""Nodes over maps: shares of blocks without a key, tables with one (see `model.shared`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.arithmetic import bucket
from kprobes.compiler.back.elements import (
    array_bump,
    array_read,
    array_write,
    as_word,
    clear_texts,
    give,
    key_of,
    rank,
)
from kprobes.compiler.back.fields import record
from kprobes.compiler.back.memory import copy, zero
from kprobes.compiler.back.native import tables
from kprobes.compiler.back.native.eviction import claim_stamped, time_stamp
from kprobes.compiler.back.native.queues import pop, push
from kprobes.compiler.ir.nodes import I64, U64
from kprobes.errors import InternalError
from kprobes.model.shared import SHARE_LINE, queue_of, table_of

if TYPE_CHECKING:
    from kprobes.compiler.back.native.part import NativePart
    from kprobes.compiler.ir.nodes import (
        IntType,
        MapAdd,
        MapBump,
        MapDelete,
        MapFold,
        MapRead,
        MapSample,
        MapWrite,
        Operand,
        QueuePop,
        QueuePush,
    )
    from kprobes.model.layout import Buckets, MapLayout


def _call(part: NativePart, function: str, result: str, layout: MapLayout, key: str, *more: str) -> str:
    """Call one of the functions over tables."""
    table = table_of(layout)
    numbers = (table.key_size // 8, table.stride, table.capacity - 1)
    listed = ", ".join([f"ptr {part.map_value(layout.name)}", f"ptr {key}", *(f"i64 {n}" for n in numbers), *more])
    return part.text.let(f"call {result} {function}({listed})")


def _claimed(part: NativePart, layout: MapLayout, key: str, value: str = "null") -> tuple[str, str]:
    """Go on with the address of the key's value, made if need be; a full table is a fault. Return it and the label
    where what follows it must end."""
    text = part.text
    is_stamped = layout.kind == "lru"
    claim = claim_stamped(text.module) if is_stamped else tables.claim(text.module)
    begins_with = _stamped(part, layout, value) if is_stamped else value
    slot = _call(part, claim, "ptr", layout, key, f"i64 {layout.max_entries}", f"ptr {begins_with}")
    full, there, end = text.label("full"), text.label("there"), text.label("added")
    text.unlikely(text.let(f"icmp eq ptr {slot}, null"), full, there)
    text.start(full)
    part.drop(layout)
    text.jump(end)
    text.start(there)
    if is_stamped:
        _stamp(part, layout, slot)
    return text.offset(slot, table_of(layout).value_at), end


def _stamped(part: NativePart, layout: MapLayout, value: str) -> str:
    """Return a pointer to *value* (null: zeros) with the time behind it: a new slot without it would be the oldest."""
    text, table = part.text, table_of(layout)
    room = part.temporary("stamped", table.value_size + 8)
    if value == "null":
        zero(text, room, table.value_size)
    else:
        copy(text, (room, 8), (value, 8), layout.value_size)
    text.store(64, text.let(time_stamp()), text.offset(room, table.value_size))
    return room


def _stamp(part: NativePart, layout: MapLayout, slot: str) -> None:
    """Note that the key in *slot* was used now."""
    text = part.text
    text.store(64, text.let(time_stamp()), text.offset(slot, table_of(layout).stamp_at))


def map_add(part: NativePart, node: MapAdd) -> None:
    """Add to a Count."""
    layout = part.layout(node.map)
    amount = as_word(part, node.amount)
    if not layout.key:
        part.add_own(part.text.offset(part.map_value(node.map), part.share(SHARE_LINE)), amount)
        return
    _add_under(part, layout, node.key, amount)


def map_bump(part: NativePart, node: MapBump) -> None:
    """Add to the one integer of a HashMap's or an Array's value."""
    layout = part.layout(node.map)
    if layout.kind == "array":
        array_bump(part, node)
    else:
        _add_under(part, layout, node.key, as_word(part, node.amount))


def _add_under(part: NativePart, layout: MapLayout, key: tuple[Operand, ...], amount: str) -> None:
    value, end = _claimed(part, layout, key_of(part, layout, key))
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
    weight = as_word(part, node.weight)
    kind = I64 if node.sample.type.signed else U64
    sample = as_word(part, node.sample)
    if layout.key:
        key = key_of(part, layout, node.key)
        value, end = _claimed(part, layout, key)
        number = _bucket(part, layout.buckets, kind, sample)
        part.add(part.text.offset(value, part.text.let(f"shl i64 {number}, 3")), weight)
        part.text.start(end)
        return
    number = _bucket(part, layout.buckets, kind, sample)
    share = part.text.offset(part.map_value(node.map), part.share(8 * layout.buckets.total))
    part.add_own(part.text.offset(share, part.text.let(f"shl i64 {number}, 3")), weight)


def map_fold(part: NativePart, node: MapFold) -> None:
    """Take a value in: Min, Max, Avg."""
    text, layout = part.text, part.layout(node.map)
    is_average = layout.kind == "avg"
    word = as_word(part, node.sample) if is_average else rank(part, layout, node.sample)
    if layout.key:
        value, end = _claimed(part, layout, key_of(part, layout, node.key))
        if is_average:
            part.add(value, "1")
            part.add(text.offset(value, 8), word)
        else:
            text.do(f"atomicrmw umax ptr {value}, i64 {word} monotonic, align 8")
            text.do(f"store volatile i64 1, ptr {text.offset(value, 8)}, align 8")
        text.start(end)
        return
    value = text.offset(part.map_value(node.map), part.share(SHARE_LINE))
    if is_average:
        part.add_own(value, "1")
        part.add_own(text.offset(value, 8), word)
    else:
        _improve_own(part, value, word)


def _improve_own(part: NativePart, pointer: str, word: str) -> None:
    """Put *word* in the place of a lower one that no other handler touches meanwhile, and note that there is one."""
    text = part.text
    better, end = text.label("better"), text.label("best")
    current = text.let(f"load volatile i64, ptr {pointer}, align 8")
    text.branch(text.let(f"icmp ugt i64 {word}, {current}"), better, end)
    text.start(better)
    text.do(f"store volatile i64 {word}, ptr {pointer}, align 8")
    text.start(end)
    text.do(f"store volatile i64 1, ptr {text.offset(pointer, 8)}, align 8")


def map_read(part: NativePart, node: MapRead) -> None:
    """Look a key up; give zeros where it is missing."""
    text, layout = part.text, part.layout(node.map)
    if layout.kind == "array":
        array_read(part, node)
        return
    slot = _call(part, tables.find(text.module), "ptr", layout, key_of(part, layout, node.key))
    clear_texts(part, node)

    def find() -> str:
        if layout.kind == "lru":
            _stamp(part, layout, slot)
        return text.offset(slot, table_of(layout).value_at)

    give(part, node, text.let(f"icmp ne ptr {slot}, null"), find)


def map_write(part: NativePart, node: MapWrite) -> None:
    """Store under a key; a full map is a fault."""
    layout = part.layout(node.map)
    if layout.kind == "array":
        array_write(part, node)
        return
    key = key_of(part, layout, node.key)
    value = record(part, "value", layout.value, node.values, layout.value_size)
    place, end = _claimed(part, layout, key, value)
    copy(part.text, (place, 8), (value, 8), layout.value_size)
    part.text.start(end)


def _queue(part: NativePart, layout: MapLayout, how: str, value: str) -> str:
    shape = queue_of(layout)
    numbers = f"i64 {shape.stride}, i64 {shape.bits}, i64 {layout.max_entries}"
    return part.text.let(f"call i64 {how}(ptr {part.map_value(layout.name)}, ptr {value}, {numbers})")


def queue_push(part: NativePart, node: QueuePush) -> None:
    """Append a value; a full queue is a fault."""
    text, layout = part.text, part.layout(node.map)
    value = record(part, "value", layout.value, node.values, layout.value_size)
    full, end = text.label("full"), text.label("pushed")
    result = _queue(part, layout, push(text.module), value)
    text.unlikely(text.let(f"icmp slt i64 {result}, 0"), full, end)
    text.start(full)
    part.drop(layout)
    text.start(end)


def queue_pop(part: NativePart, node: QueuePop) -> None:
    """Take the oldest value; give zeros where there is none."""
    layout = part.layout(node.map)
    room = part.temporary("popped", layout.value_size)
    result = _queue(part, layout, pop(part.text.module), room)
    clear_texts(part, node)
    give(part, node, part.text.let(f"icmp eq i64 {result}, 0"), lambda: room)


def map_delete(part: NativePart, node: MapDelete) -> None:
    """Forget a key."""
    layout = part.layout(node.map)
    found = _call(part, tables.forget(part.text.module), "i1", layout, key_of(part, layout, node.key))
    part.bind(node.found, found)
