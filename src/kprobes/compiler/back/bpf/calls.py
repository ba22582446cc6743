"""Per-call data: what the entry part keeps for the exit part of the same call.

Where the kernel has atomic operations that return a value (since 5.12) it is kept in a table of our own, the map
`calls.*` of kind `frames`: one array entry that programs reach without any helper. The table is made of sets of
`WAYS` slots; a call's frame (see `context.frame`) picks the set, and a slot is taken by exchanging its key, 0 while
free, for the frame. Each set holds its keys first, then the values. Only the call that took a slot touches its value.

On older kernels the map `calls.*` is a hash map of kind `calls`.

Either way a record may be there already when a call begins: the return of an earlier call with that frame was never
seen (the kernel had no free `maxactive` instance, or the task died in it). That call is counted as missed, and its
record must not be taken for this call's, also where the entry part returns without SaveCall: hence `forget`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.bpf.context import frame
from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.maps import load_field
from kprobes.compiler.back.bpf.memory import alignment, copy, put_fields
from kprobes.errors import InternalError
from kprobes.model.layout import MapLayout, align_up

if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.part import Part
    from kprobes.compiler.back.bpf.target import BpfTarget
    from kprobes.compiler.ir.nodes import Handler, RestoreCall, SaveCall

WAYS = 4
_KEYS = 8 * WAYS
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)  # 2**64 / golden ratio: spreads frames over the sets
_NOEXIST, _ANY = "1", "0"
_EEXIST = -17


def calls_layout(handler: Handler, target: BpfTarget) -> MapLayout:
    """Return the layout of the per-call data of *handler*."""
    size = _value_size(handler)
    name = f"calls.{handler.name}.{target.site if target.site is not None else f'x{size}'}"
    if target.compare_exchange:
        return MapLayout(name, "frames", 4, _sets(target) * _set_size(size), 1, value=handler.call_fields)
    return MapLayout(name, "calls", 8, max(size, 8), target.calls, value=handler.call_fields)


def _value_size(handler: Handler) -> int:
    return align_up(max((field.offset + field.size for field in handler.call_fields), default=0), 8)


def _sets(target: BpfTarget) -> int:
    return 1 << max(1, (target.calls // WAYS - 1).bit_length())


def _set_size(value_size: int) -> int:
    return _KEYS + WAYS * value_size


def save_call(part: Part, node: SaveCall) -> None:
    """Keep the operands; where there is no room the hit counts as missed."""
    layout = calls_layout(part.handler, part.target)
    part.need(layout)
    if layout.kind == "frames":
        _save_in_table(part, node, layout)
    else:
        _save_in_hash(part, node, layout)


def restore_call(part: Part, node: RestoreCall) -> None:
    """Take the record of this call back, and forget it; without one the program ends."""
    layout = calls_layout(part.handler, part.target)
    part.need(layout)
    if layout.kind == "frames":
        _restore_from_table(part, node, layout)
    else:
        _restore_from_hash(part, node, layout)


def forget_call(part: Part) -> None:
    """Drop what an earlier call with this frame left behind; it counts as missed."""
    layout = calls_layout(part.handler, part.target)
    part.need(layout)
    text = part.text
    stale, end = text.label("stale"), text.label("fresh")
    if layout.kind == "frames":
        number, pointer = _set_of(part, layout)
        found = text.phi("ptr", _find(part, number, pointer, stale, end))
        text.do(f"store volatile i64 0, ptr {found}, align 8")
    else:
        result = call(text, "map_delete_elem", part.map(layout.name), _frame_key(part))
        text.unlikely(text.let(f"icmp eq i64 {result}, 0"), stale, end)
        text.start(stale)
    part.count("missed")
    text.start(end)


# The table


def _set_of(part: Part, layout: MapLayout) -> tuple[str, str]:
    """Return this call's frame and the address of its set."""
    text = part.text
    base = part.map_value(layout.name)
    number = frame(part, base)
    sets = _sets(part.target)
    spread = text.let(f"lshr i64 {text.let(f'mul i64 {number}, {_MIX}')}, {64 - (sets - 1).bit_length()}")
    distance = text.let(f"mul i64 {spread}, {_set_size(_value_size(part.handler))}")
    return number, text.offset(base, distance)


def _find(part: Part, number: str, pointer: str, found: str, missing: str) -> list[tuple[str, str]]:
    """Look for the key *number*; go to *found*, or to *missing*. Leave the text in *found*, where a phi of what is
    returned gives the key's address."""
    text = part.text
    ways = []
    for way in range(WAYS):
        key = text.offset(pointer, 8 * way)
        following = text.label("way") if way < WAYS - 1 else missing
        is_own = text.let(f"icmp eq i64 {text.let(f'load volatile i64, ptr {key}, align 8')}, {number}")
        ways.append((key, text.block))
        text.branch(is_own, found, following)
        if way < WAYS - 1:
            text.start(following)
    text.start(found)
    return ways


def _value_ways(part: Part, keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    size = _value_size(part.handler)
    return [(str(_KEYS + way * size), block) for way, (_, block) in enumerate(keys)]


def _save_in_table(part: Part, node: SaveCall, layout: MapLayout) -> None:
    text = part.text
    number, pointer = _set_of(part, layout)
    stale, fresh, taken = text.label("stale"), text.label("fresh"), text.label("taken")
    full, end = text.label("full"), text.label("saved")
    ways = _value_ways(part, _find(part, number, pointer, stale, fresh))
    old = text.phi("i64", ways)
    part.count("missed")
    values = [(old, text.block)]
    text.jump(taken)
    text.start(fresh)
    for way in range(WAYS):
        key = text.offset(pointer, 8 * way)
        pair = text.let(f"cmpxchg volatile ptr {key}, i64 0, i64 {number} monotonic monotonic, align 8")
        is_free = text.let(f"icmp eq i64 {text.let(f'extractvalue {{ i64, i1 }} {pair}, 0')}, 0")
        values.append((str(_KEYS + way * _value_size(part.handler)), text.block))
        following = text.label("way") if way < WAYS - 1 else full
        text.branch(is_free, taken, following)
        text.start(following)
    part.count("missed")
    text.jump(end)
    text.start(taken)
    to = text.offset(pointer, text.phi("i64", values))
    put_fields(part, part.handler.call_fields, node.operands, _value_size(part.handler), to)
    text.start(end)


def _restore_from_table(part: Part, node: RestoreCall, layout: MapLayout) -> None:
    text = part.text
    number, pointer = _set_of(part, layout)
    found, missing = text.label("found"), text.label("nocall")
    keys = _find(part, number, pointer, found, missing)
    key = text.phi("ptr", keys)
    distance = text.phi("i64", _value_ways(part, keys))
    _take(part, node, text.offset(pointer, distance))
    text.do(f"store volatile i64 0, ptr {key}, align 8")
    _end_without_call(part, missing)


# The hash map


def _frame_key(part: Part) -> str:
    room = part.temporary("key", 8)
    part.text.store(64, frame(part, part.map_value("stats")), room)
    return room


def _save_in_hash(part: Part, node: SaveCall, layout: MapLayout) -> None:
    text, handle = part.text, part.map(layout.name)
    key = _frame_key(part)
    value = part.temporary("value", layout.value_size)
    put_fields(part, part.handler.call_fields, node.operands, layout.value_size, value)
    result = call(text, "map_update_elem", handle, key, value, _NOEXIST)
    missed, end = text.label("missed"), text.label("saved")
    text.unlikely(text.let(f"icmp ne i64 {result}, 0"), missed, end)
    text.start(missed)
    # The record was there (its call is the missed one), or there is no room (this one is): one of the two, once.
    part.count("missed")
    stale = text.label("stale")
    text.branch(text.let(f"icmp eq i64 {result}, {_EEXIST}"), stale, end)
    text.start(stale)
    call(text, "map_update_elem", handle, key, value, _ANY)
    text.start(end)


def _restore_from_hash(part: Part, node: RestoreCall, layout: MapLayout) -> None:
    text, handle = part.text, part.map(layout.name)
    key = _frame_key(part)
    pointer = call(text, "map_lookup_elem", handle, key)
    found, missing = text.label("found"), text.label("nocall")
    text.branch(text.let(f"icmp ne ptr {pointer}, null"), found, missing)
    text.start(found)
    _take(part, node, pointer)
    call(text, "map_delete_elem", handle, key)
    _end_without_call(part, missing)


# Both


def _end_without_call(part: Part, missing: str) -> None:
    text = part.text
    after = text.label("call")
    text.jump(after)
    text.start(missing)
    text.give_back("0")
    text.start(after)


def _take(part: Part, node: RestoreCall, pointer: str) -> None:
    text = part.text
    for field, slot in zip(part.handler.call_fields, node.slots, strict=True):
        if slot.type is None:
            source = (text.offset(pointer, field.offset), alignment(field.offset))
            if slot.size != field.size:
                raise InternalError(f"{part.handler.name}: {slot.name} crosses with another size")
            copy(text, (part.buffer(slot), 8), source, field.size)
        else:
            value = load_field(part, field, slot.type, pointer)
            text.store(slot.type.bits, value, part.integers[slot])
