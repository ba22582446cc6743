"""Nodes over maps.

Aggregates without a key are added to in place: the program holds the address of the map's memory, and each CPU has its
share of it, so that no helper but the CPU's number and no shared cache line stands in the way. With a key there is one
look-up, then an atomic add; only a key's first hit inserts, and where two CPUs insert at once the second one adds.
"""

from __future__ import annotations

from kprobes.compiler.back.arithmetic import bucket, opaque
from kprobes.compiler.back.bpf.helpers import call
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
from kprobes.compiler.ir.nodes import I64, U64
from kprobes.errors import InternalError
from kprobes.model.layout import MapLayout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.back.bpf.part import BpfPart
    from kprobes.compiler.ir.nodes import (
        MapAdd,
        MapBump,
        MapDelete,
        MapFold,
        MapRead,
        MapSample,
        MapWrite,
        QueuePop,
        QueuePush,
    )

_ANY, _NOEXIST = "0", "1"
_TRIES = 8


def map_add(part: BpfPart, node: MapAdd) -> None:
    """Add to a Count."""
    layout = part.layout(node.map)
    amount = as_word(part, node.amount)
    if not layout.key:
        part.add(part.text.offset(part.map_value(node.map), part.shard(8)), amount)
        return
    _add_under(part, layout, key_of(part, layout, node.key), amount)


def map_bump(part: BpfPart, node: MapBump) -> None:
    """Add to the one integer of a HashMap's or an Array's value."""
    layout = part.layout(node.map)
    if layout.kind == "array":
        array_bump(part, node)
        return
    _add_under(part, layout, key_of(part, layout, node.key), as_word(part, node.amount))


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
    part.drop(layout)
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
    weight = as_word(part, node.weight)
    kind = I64 if node.sample.type.signed else U64
    sample = as_word(part, node.sample)

    def add(pointer: str) -> None:
        number = bucket(part.text, buckets, kind, sample)
        part.add(part.text.offset(pointer, part.text.let(f"shl i64 {number}, 3")), weight)

    if not layout.key:
        add(part.text.offset(part.map_value(node.map), part.shard(8 * buckets.total)))
        return
    key = key_of(part, layout, node.key)
    _upsert(part, layout, key, lambda part: _zeros(part, layout.value_size), add, whole=False)


def _zeros(part: BpfPart, size: int) -> str:
    """Return a pointer to *size* zero bytes, more than the stack should hold."""
    rounded = -(-size // 1024) * 1024
    name = f".zeros.{rounded}"
    part.need(MapLayout(name, "constants", 4, rounded, 1))  # an engine fills with zeros
    return part.map_value(name)


def map_fold(part: BpfPart, node: MapFold) -> None:
    """Take a value in: Min, Max, Avg."""
    layout = part.layout(node.map)
    is_average = layout.kind == "avg"
    word = as_word(part, node.sample) if is_average else rank(part, layout, node.sample)

    def fold(pointer: str) -> None:
        if is_average:
            part.add(pointer, "1")
            part.add(part.text.offset(pointer, 8), word)
        else:
            _improve(part, pointer, word)

    def first(_: BpfPart) -> str:
        room, mark = part.temporary("value", layout.value_size), "1"
        part.text.store(64, mark if is_average else word, room)
        part.text.store(64, word if is_average else mark, part.text.offset(room, 8))
        return room

    if not layout.key:
        fold(part.text.offset(part.map_value(node.map), part.shard(layout.value_size // layout.shards)))
        return
    _upsert(part, layout, key_of(part, layout, node.key), first, fold, whole=True)


def _improve(part: BpfPart, pointer: str, word: str) -> None:
    """Put *word* in the place of a lower one, and note that there is one.

    Each CPU has a value of its own, so that only a hit inside of another one can come between: an exchange that fails
    so often is a fault. Kernels without the exchange (before Linux 5.12) take the risk.
    """
    text = part.text
    before, again, swap, end = text.block, text.label("look"), text.label("better"), text.label("best")
    following = f"%next.{again}"
    text.start(again)
    turn = text.phi("i64", [("0", before), (following, f"turn.{again}")]) if part.target.compare_exchange else ""
    current = text.let(f"load volatile i64, ptr {pointer}, align 8")
    text.branch(text.let(f"icmp ugt i64 {word}, {current}"), swap, end)
    text.start(swap)
    if not turn:
        text.do(f"store volatile i64 {word}, ptr {pointer}, align 8")
        text.start(end)
    else:
        pair = text.let(f"cmpxchg volatile ptr {pointer}, i64 {current}, i64 {word} monotonic monotonic, align 8")
        old = opaque(text, text.let(f"extractvalue {{ i64, i1 }} {pair}, 0"))
        retry, lost = f"turn.{again}", text.label("contended")
        text.branch(text.let(f"icmp eq i64 {old}, {current}"), end, retry)
        text.start(retry)
        text.do(f"{following} = add i64 {turn}, 1")
        text.unlikely(text.let(f"icmp ugt i64 {following}, {_TRIES}"), lost, again)
        text.start(lost)
        part.fault("-1")
        text.start(end)
    text.do(f"store volatile i64 1, ptr {text.offset(pointer, 8)}, align 8")


def map_read(part: BpfPart, node: MapRead) -> None:
    """Look a key up; give zeros where it is missing."""
    text, layout = part.text, part.layout(node.map)
    if layout.kind == "array":
        array_read(part, node)
        return
    found = call(text, "map_lookup_elem", part.map(node.map), key_of(part, layout, node.key))
    clear_texts(part, node)
    give(part, node, text.let(f"icmp ne ptr {found}, null"), lambda: found)


def map_write(part: BpfPart, node: MapWrite) -> None:
    """Store under a key; a full map is a fault."""
    layout = part.layout(node.map)
    if layout.kind == "array":
        array_write(part, node)
        return
    key = key_of(part, layout, node.key)
    value = record(part, "value", layout.value, node.values, layout.value_size)
    _check_room(part, layout, call(part.text, "map_update_elem", part.map(node.map), key, value, _ANY))


def _check_room(part: BpfPart, layout: MapLayout, result: str) -> None:
    """Count a write as dropped where *result* is negative.

    Kernels before 6.4 call the map's own function, which returns an int: nothing is said about the upper half.
    """
    text = part.text
    full, end = text.label("full"), text.label("stored")
    text.unlikely(text.let(f"icmp slt i32 {text.let(f'trunc i64 {result} to i32')}, 0"), full, end)
    text.start(full)
    part.drop(layout)
    text.start(end)


def queue_push(part: BpfPart, node: QueuePush) -> None:
    """Append a value; a full queue is a fault."""
    layout = part.layout(node.map)
    value = record(part, "value", layout.value, node.values, layout.value_size)
    _check_room(part, layout, call(part.text, "map_push_elem", part.map(node.map), value, _ANY))


def queue_pop(part: BpfPart, node: QueuePop) -> None:
    """Take the oldest value; give zeros where there is none."""
    room = part.temporary("popped", part.layout(node.map).value_size)
    result = call(part.text, "map_pop_elem", part.map(node.map), room)
    clear_texts(part, node)
    give(part, node, part.text.let(f"icmp eq i64 {result}, 0"), lambda: room)


def map_delete(part: BpfPart, node: MapDelete) -> None:
    """Forget a key."""
    layout = part.layout(node.map)
    result = call(part.text, "map_delete_elem", part.map(node.map), key_of(part, layout, node.key))
    part.bind(node.found, part.text.let(f"icmp eq i64 {result}, 0"))
