"""Per-call data: what the entry part keeps for the exit part of the same call.

The map `calls.*` is a table in memory that is the process's own: sets of `CALL_WAYS` slots of u64 key and value. A call
is known by its frame, the stack pointer at its entry, which is the same at each of its exits; where a handler has
several sites the site is mixed in, since after a tail call two functions leave from one frame. A slot is taken by
exchanging its key, 0 while free. A handler of one instruction is kept the same way from before it to behind it.

No return address is touched: an exception, longjmp or a switch of stacks just leaves a record behind. It is recognised
when the same frame is entered again; then that earlier call, which was counted as a hit when it began, becomes a missed
one. So hits + missed is the number of calls at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.bpf.maps import load_field
from kprobes.compiler.back.bpf.memory import alignment, copy, put_fields
from kprobes.compiler.back.native.target import CALL_WAYS
from kprobes.errors import InternalError
from kprobes.model.layout import MapLayout, align_up

if TYPE_CHECKING:
    from kprobes.compiler.back.native.part import NativePart
    from kprobes.compiler.ir.nodes import RestoreCall, SaveCall

_KEY = 8
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)  # 2**64 / golden ratio


def _value_size(part: NativePart) -> int:
    return align_up(max((field.offset + field.size for field in part.handler.call_fields), default=0), 8)


def _slot_size(part: NativePart) -> int:
    return _KEY + _value_size(part)


def _sets(part: NativePart) -> int:
    return 1 << max(1, (part.native.calls // CALL_WAYS - 1).bit_length())


def _table(part: NativePart) -> str:
    name = f"calls.{part.handler.name}.{part.native.number}"
    size = _sets(part) * CALL_WAYS * _slot_size(part)
    part.need(MapLayout(name, "frames", 4, size, 1, value=part.handler.call_fields))
    return part.map_value(name)


def _set_of(part: NativePart) -> tuple[str, str]:
    """Return this call's frame and the address of its set."""
    text = part.text
    frame = part.register("sp")
    if part.is_after:  # what the instruction itself did to it
        frame = text.let(f"sub i64 {frame}, %moved")
    if part.native.sites > 1:
        frame = text.let(f"add i64 {frame}, {text.let(f'mul i64 {part.site}, {_MIX}')}")
    sets = _sets(part)
    spread = text.let(f"lshr i64 {text.let(f'mul i64 {frame}, {_MIX}')}, {64 - (sets - 1).bit_length()}")
    return frame, text.offset(_table(part), text.let(f"mul i64 {spread}, {CALL_WAYS * _slot_size(part)}"))


def _find(part: NativePart, frame: str, pointer: str, missing: str) -> str:
    """Look for the key *frame* in the set; go to *missing*, or go on with the address of its slot."""
    text = part.text
    found, ways = text.label("found"), []
    for way in range(CALL_WAYS):
        slot = text.offset(pointer, way * _slot_size(part))
        key = text.let(f"load volatile i64, ptr {slot}, align 8")
        following = missing if way == CALL_WAYS - 1 else text.label("way")
        ways.append((slot, text.block))
        text.branch(text.let(f"icmp eq i64 {key}, {frame}"), found, following)
        if way < CALL_WAYS - 1:
            text.start(following)
    text.start(found)
    return text.phi("ptr", ways)


def _count_missed(part: NativePart) -> None:
    part.count("hits", "-1")
    part.count("missed")


def save_call(part: NativePart, node: SaveCall) -> None:
    """Keep the operands; a call for which there is no room is missed."""
    text = part.text
    frame, pointer = _set_of(part)
    fresh, taken, full, end = (text.label(word) for word in ("fresh", "taken", "full", "saved"))
    stale = _find(part, frame, pointer, fresh)
    _count_missed(part)
    ways = [(stale, text.block)]
    text.jump(taken)
    text.start(fresh)
    for way in range(CALL_WAYS):
        slot = text.offset(pointer, way * _slot_size(part))
        pair = text.let(f"cmpxchg volatile ptr {slot}, i64 0, i64 {frame} acq_rel monotonic, align 8")
        ways.append((slot, text.block))
        following = text.label("way") if way < CALL_WAYS - 1 else full
        text.branch(text.let(f"extractvalue {{ i64, i1 }} {pair}, 1"), taken, following)
        text.start(following)
    _count_missed(part)
    text.jump(end)
    text.start(taken)
    to = text.offset(text.phi("ptr", ways), _KEY)
    put_fields(part, part.handler.call_fields, node.operands, _value_size(part), to)
    text.start(end)


def forget_call(part: NativePart) -> None:
    """Drop what an earlier call with this frame left behind; it counts as missed."""
    text = part.text
    frame, pointer = _set_of(part)
    end = text.label("fresh")
    slot = _find(part, frame, pointer, end)
    text.do(f"store volatile i64 0, ptr {slot}, align 8")
    _count_missed(part)
    text.start(end)


def restore_call(part: NativePart, node: RestoreCall) -> None:
    """Take the record of this call back, and forget it; without one the handler ends."""
    text = part.text
    frame, pointer = _set_of(part)
    missing, after = text.label("nocall"), text.label("call")
    slot = _find(part, frame, pointer, missing)
    value = text.offset(slot, _KEY)
    for field, to in zip(part.handler.call_fields, node.slots, strict=True):
        if to.type is None:
            if to.size != field.size:
                raise InternalError(f"{part.handler.name}: {to.name} crosses with another size")
            copy(text, (part.buffer(to), 8), (text.offset(value, field.offset), alignment(field.offset)), field.size)
        else:
            text.store(to.type.bits, load_field(part, field, to.type, value), part.integers[to])
    text.do(f"store atomic volatile i64 0, ptr {slot} release, align 8")
    text.jump(after)
    text.start(missing)
    part.end()
    text.start(after)
