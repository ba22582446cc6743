"""Per-call data: what the entry part keeps for the exit part of the same call.

Where the kernel has atomic operations that return a value (since 5.12) it is kept in a table of our own, the map
`.calls.*` of kind `frames`: one array entry that programs reach without any helper. The table is made of sets of
`WAYS` slots; a call's frame (see `context.frame`) picks the set, and a slot is taken by exchanging its key, 0 while
free, for the frame. A slot is the key and the value. Only the call that took it touches the value.

On older kernels the map `.calls.*` is a hash map of kind `calls`.

Either way a record may be there already when a call begins: the return of an earlier call with that frame was never
seen (the kernel had no free `maxactive` instance, or the task died in it). That call is counted as missed, and its
record must not be taken for this call's, also where the entry part returns without SaveCall: hence `forget`.
"""

from __future__ import annotations

from kprobes.compiler.back.arithmetic import opaque
from kprobes.compiler.back.bpf.context import frame
from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.scratch import release_scratch
from kprobes.compiler.back.bpf.target import STATS
from kprobes.compiler.back.fields import load_field, put_fields
from kprobes.compiler.back.memory import alignment, copy
from kprobes.errors import InternalError
from kprobes.model.layout import MapLayout, align_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.part import BpfPart
    from kprobes.compiler.back.bpf.target import BpfTarget
    from kprobes.compiler.ir.nodes import Handler, RestoreCall, SaveCall

WAYS = 4
_KEY = 8
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)  # 2**64 / golden ratio: spreads frames over the sets
_NOEXIST, _ANY = "1", "0"
_EEXIST = -17


def calls_layout(handler: Handler, target: BpfTarget) -> MapLayout:
    """Return the layout of the per-call data of *handler*."""
    size = _value_size(handler)
    name = f".calls.{handler.name}.{target.site if target.site is not None else f'x{size}'}"
    if target.compare_exchange:
        return MapLayout(name, "frames", 4, _sets(target) * WAYS * _slot_size(handler), 1, value=handler.call_fields)
    return MapLayout(name, "calls", 8, max(size, 8), target.calls, value=handler.call_fields)


def _value_size(handler: Handler) -> int:
    return align_up(max((field.offset + field.size for field in handler.call_fields), default=0), 8)


def _sets(target: BpfTarget) -> int:
    return 1 << max(1, (target.calls // WAYS - 1).bit_length())


def _slot_size(handler: Handler) -> int:
    return _KEY + _value_size(handler)


def save_call(part: BpfPart, node: SaveCall) -> None:
    """Keep the operands; where there is no room the hit counts as missed."""
    layout = calls_layout(part.handler, part.target)
    part.need(layout)
    if layout.kind == "frames":
        _save_in_table(part, node, layout)
    else:
        _save_in_hash(part, node, layout)


def restore_call(part: BpfPart, node: RestoreCall) -> None:
    """Take the record of this call back, and forget it; without one the program ends."""
    layout = calls_layout(part.handler, part.target)
    part.need(layout)
    if layout.kind == "frames":
        _restore_from_table(part, node, layout)
    else:
        _restore_from_hash(part, node, layout)


def forget_call(part: BpfPart) -> None:
    """Drop what an earlier call with this frame left behind; it counts as missed."""
    layout = calls_layout(part.handler, part.target)
    part.need(layout)
    text = part.text
    end = text.label("fresh")
    if layout.kind == "frames":
        number, pointer = _set_of(part, layout)
        text.do(f"store volatile i64 0, ptr {_find(part, number, pointer, end)}, align 8")
    else:
        result = call(text, "map_delete_elem", part.map(layout.name), _frame_key(part))
        stale = text.label("stale")
        text.unlikely(text.let(f"icmp eq i64 {result}, 0"), stale, end)
        text.start(stale)
    part.count("missed")
    text.start(end)


# The table


def _set_of(part: BpfPart, layout: MapLayout) -> tuple[str, str]:
    """Return this call's frame and the address of its set."""
    text = part.text
    base = part.map_value(layout.name)
    number = frame(part, base)
    sets = _sets(part.target)
    spread = text.let(f"lshr i64 {text.let(f'mul i64 {number}, {_MIX}')}, {64 - (sets - 1).bit_length()}")
    distance = text.let(f"mul i64 {spread}, {WAYS * _slot_size(part.handler)}")
    return number, text.offset(base, distance)


def _find(part: BpfPart, number: str, pointer: str, missing: str) -> str:
    """Look for the key *number* in the set; go to *missing*, or go on with the address of its slot."""
    text = part.text
    found, ways = text.label("found"), []
    for way in range(WAYS):
        key = text.let(f"load volatile i64, ptr {pointer}, align 8")
        is_last = way == WAYS - 1
        following = missing if is_last else text.label("way")
        ways.append((pointer, text.block))
        text.branch(text.let(f"icmp eq i64 {key}, {number}"), found, following)
        if not is_last:
            text.start(following)
            pointer = _next_slot(part, pointer)
    text.start(found)
    return text.phi("ptr", ways)


def _next_slot(part: BpfPart, pointer: str) -> str:
    """Return the address of the following slot. Step by step, or LLVM would keep four addresses."""
    return part.text.offset(opaque(part.text, pointer, "ptr"), _slot_size(part.handler))


def _save_in_table(part: BpfPart, node: SaveCall, layout: MapLayout) -> None:
    text = part.text
    number, pointer = _set_of(part, layout)
    missed, fresh, taken, end = (text.label(hint) for hint in ("missed", "fresh", "taken", "saved"))
    stale = [(_find(part, number, pointer, fresh), text.block)]
    text.jump(missed)
    text.start(fresh)
    free = []
    for way in range(WAYS):
        pair = text.let(f"cmpxchg volatile ptr {pointer}, i64 0, i64 {number} monotonic monotonic, align 8")
        # Opaque, or LLVM would ask for the exchange's success instead, which on BPF takes five instructions.
        before = opaque(text, text.let(f"extractvalue {{ i64, i1 }} {pair}, 0"))
        free.append((pointer, text.block))
        is_last = way == WAYS - 1
        following = missed if is_last else text.label("way")
        text.branch(text.let(f"icmp eq i64 {before}, 0"), taken, following)
        if not is_last:
            text.start(following)
            pointer = _next_slot(part, pointer)
    # Either the call that left a record here is the missed one, or this one, for which there is no slot.
    text.start(missed)
    old = text.phi("ptr", [*stale, ("null", free[-1][1])])
    part.count("missed")
    free.append((old, text.block))
    text.branch(text.let(f"icmp ne ptr {old}, null"), taken, end)
    text.start(taken)
    to = text.offset(text.phi("ptr", free), _KEY)
    put_fields(part, part.handler.call_fields, node.operands, _value_size(part.handler), to)
    text.start(end)


def _restore_from_table(part: BpfPart, node: RestoreCall, layout: MapLayout) -> None:
    text = part.text
    number, pointer = _set_of(part, layout)
    missing = text.label("nocall")
    slot = _find(part, number, pointer, missing)
    _take(part, node, text.offset(slot, _KEY))
    text.barrier()  # the slot must not be free before its value is read
    text.do(f"store volatile i64 0, ptr {slot}, align 8")
    _end_without_call(part, missing)


# The hash map


def _frame_key(part: BpfPart) -> str:
    room = part.temporary("key", 8)
    part.text.store(64, frame(part, part.map_value(STATS)), room)
    return room


def _save_in_hash(part: BpfPart, node: SaveCall, layout: MapLayout) -> None:
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
    # Before Linux 6.4 the map's own function is called, which returns an int.
    low = text.let(f"trunc i64 {result} to i32")
    text.branch(text.let(f"icmp eq i32 {low}, {_EEXIST}"), stale, end)
    text.start(stale)
    call(text, "map_update_elem", handle, key, value, _ANY)
    text.start(end)


def _restore_from_hash(part: BpfPart, node: RestoreCall, layout: MapLayout) -> None:
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


def _end_without_call(part: BpfPart, missing: str) -> None:
    text = part.text
    after = text.label("call")
    text.jump(after)
    text.start(missing)
    release_scratch(part)
    text.give_back("0")
    text.start(after)


def _take(part: BpfPart, node: RestoreCall, pointer: str) -> None:
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
