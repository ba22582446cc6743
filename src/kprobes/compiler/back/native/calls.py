"""Per-call data: what the entry part keeps for the exit part of the same call.

A call is known by its frame, the stack pointer at its entry, which is the same at each of its exits; where a handler
has several sites the site is mixed in, since after a tail call two functions leave from one frame. A handler of one
instruction is kept the same way from before it to behind it. Frames are even numbers.

The map `calls.*` is memory that is the process's own: slots of u64 key and value. First come `OWN_SLOTS` slots for each
block, in which only the block's thread puts calls, by a plain store; then the sets of `CALL_WAYS` slots that all
threads share, for calls whose own slot is taken. There a slot is taken by exchanging its key, which costs 7 ns more.
A key is 0 while its slot is free; an own slot is free with an odd key too, which is the frame + 1 of a call that is
known not to be kept. A call that is left by another thread than the one that entered it, as a coroutine may be, is
looked for in the slots of all blocks, if nowhere else.

No return address is touched: an exception, longjmp or a switch of stacks just leaves a record behind. It is recognised
when the same frame is entered again; then that earlier call, which was counted as a hit when it began, becomes a missed
one. So hits + missed is the number of calls at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.compiler.back.fields import load_field, put_fields
from kprobes.compiler.back.memory import alignment, copy
from kprobes.compiler.back.native.runtime import find_word
from kprobes.compiler.back.native.target import CALL_WAYS
from kprobes.errors import InternalError
from kprobes.model.layout import MapLayout, align_up
from kprobes.model.shared import MAX_BLOCKS

if TYPE_CHECKING:
    from kprobes.compiler.back.native.part import NativePart
    from kprobes.compiler.ir.nodes import RestoreCall, SaveCall

_KEY = 8
_OWN_BITS = 3
OWN_SLOTS = 1 << _OWN_BITS
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)  # 2**64 / golden ratio


def _value_size(part: NativePart) -> int:
    return align_up(max((field.offset + field.size for field in part.handler.call_fields), default=0), 8)


def _slot_size(part: NativePart) -> int:
    return _KEY + _value_size(part)


def _sets(part: NativePart) -> int:
    return 1 << max(1, (part.native.calls // CALL_WAYS - 1).bit_length())


def _own_size(part: NativePart) -> int:
    """Return the bytes of one block's own slots."""
    return OWN_SLOTS * _slot_size(part)


def _table(part: NativePart) -> str:
    name = f"calls.{part.handler.name}.{part.native.number}"
    size = MAX_BLOCKS * _own_size(part) + _sets(part) * CALL_WAYS * _slot_size(part)
    part.need(MapLayout(name, "frames", 4, size, 1, value=part.handler.call_fields))
    return part.map_value(name)


@dataclass(frozen=True, slots=True)
class _Call:
    """This call: its frame, its own slot at *own* (*place* bytes into the block's), and its set at *shared*."""

    frame: str
    own: str
    place: str
    shared: str

    def ways(self, part: NativePart) -> list[str]:
        """Return the slots of the set."""
        return [part.text.offset(self.shared, way * _slot_size(part)) for way in range(CALL_WAYS)]


def _call_of(part: NativePart) -> _Call:
    text, slot, table = part.text, _slot_size(part), _table(part)
    frame = part.register("sp")
    if part.is_after:  # what the instruction itself did to it
        frame = text.let(f"sub i64 {frame}, %moved")
    if part.native.sites > 1:
        frame = text.let(f"add i64 {frame}, {text.let(f'mul i64 {part.site}, {_MIX}')}")
    frame = text.let(f"and i64 {frame}, -2")
    spread = text.let(f"mul i64 {frame}, {_MIX}")
    place = text.let(f"mul i64 {text.let(f'lshr i64 {spread}, {64 - _OWN_BITS}')}, {slot}")
    own = text.offset(text.offset(table, part.share(_own_size(part))), place)
    number = text.let(f"lshr i64 {spread}, {64 - (_sets(part) - 1).bit_length()}")
    shared = text.offset(table, MAX_BLOCKS * _own_size(part))
    return _Call(frame, own, place, text.offset(shared, text.let(f"mul i64 {number}, {CALL_WAYS * slot}")))


def _key_of(part: NativePart, slot: str) -> str:
    return part.text.let(f"load volatile i64, ptr {slot}, align 8")


def _set_key(part: NativePart, slot: str, key: str) -> None:
    part.text.do(f"store atomic volatile i64 {key}, ptr {slot} release, align 8")


def _find(part: NativePart, frame: str, slots: list[str], missing: str) -> str:
    """Look for the key *frame* in *slots*; go to *missing*, or go on with the address of its slot."""
    text = part.text
    found, ways = text.label("found"), []
    for way, slot in enumerate(slots):
        last = way == len(slots) - 1
        following = missing if last else text.label("way")
        key = _key_of(part, slot)
        ways.append((slot, text.block))
        text.branch(text.let(f"icmp eq i64 {key}, {frame}"), found, following)
        if not last:
            text.start(following)
    text.start(found)
    return text.phi("ptr", ways)


def _count_missed(part: NativePart) -> None:
    part.count("hits", "-1")
    part.count("missed")


def save_call(part: NativePart, node: SaveCall) -> None:
    """Keep the operands; a call for which there is no room is missed."""
    text = part.text
    call = _call_of(part)
    shared = call.ways(part)
    fresh, free, crowded, taken, full, end = (
        text.label(word) for word in ("fresh", "free", "crowded", "taken", "full", "saved")
    )
    stale = _find(part, call.frame, [call.own, *shared], fresh)
    _count_missed(part)
    ways = [(stale, text.block)]
    text.jump(taken)
    text.start(fresh)
    text.branch(_is_free(part, _key_of(part, call.own)), free, crowded)
    text.start(free)
    _set_key(part, call.own, call.frame)
    ways.append((call.own, text.block))
    text.jump(taken)
    text.start(crowded)
    for way, slot in enumerate(shared):
        pair = text.let(f"cmpxchg volatile ptr {slot}, i64 0, i64 {call.frame} acq_rel monotonic, align 8")
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


def _is_free(part: NativePart, key: str) -> str:
    """Tell of the key of an own slot whether the slot may be taken."""
    text = part.text
    is_odd = text.let(f"icmp ne i64 {text.let(f'and i64 {key}, 1')}, 0")
    return text.let(f"or i1 {text.let(f'icmp eq i64 {key}, 0')}, {is_odd}")


def forget_call(part: NativePart) -> None:
    """Drop what an earlier call with this frame left behind; it counts as missed. Let the exit know, where there is
    room, that this call isn't kept."""
    text = part.text
    call = _call_of(part)
    fresh, note, end = text.label("fresh"), text.label("note"), text.label("forgotten")
    slot = _find(part, call.frame, [call.own, *call.ways(part)], fresh)
    _set_key(part, slot, "0")
    _count_missed(part)
    text.jump(fresh)
    text.start(fresh)
    text.branch(_is_free(part, _key_of(part, call.own)), note, end)
    text.start(note)
    _set_key(part, call.own, text.let(f"or i64 {call.frame}, 1"))
    text.start(end)


def restore_call(part: NativePart, node: RestoreCall) -> None:
    """Take the record of this call back, and forget it; without one the handler ends."""
    text = part.text
    call = _call_of(part)
    kept, unkept, seek, missing, after = (text.label(word) for word in ("kept", "unkept", "seek", "nocall", "call"))
    look, unknown = text.label("look"), text.label("unknown")
    key, ways = _key_of(part, call.own), [(call.own, text.block)]
    text.branch(text.let(f"icmp eq i64 {key}, {call.frame}"), kept, unkept)
    text.start(unkept)
    text.branch(text.let(f"icmp eq i64 {key}, {text.let(f'or i64 {call.frame}, 1')}"), missing, look)
    text.start(look)
    shared = _find(part, call.frame, call.ways(part), seek)
    ways.append((shared, text.block))
    text.jump(kept)
    text.start(seek)
    first = text.offset(_table(part), call.place)
    other = text.let(f"call ptr {find_word(text.module)}(ptr {first}, i64 {call.frame}, i64 {_own_size(part)})")
    ways.append((other, text.block))
    text.branch(text.let(f"icmp eq ptr {other}, null"), unknown, kept)
    text.start(unknown)
    part.count_return("missed")  # its call is none of the hits: it began before the attach
    text.jump(missing)
    text.start(kept)
    slot = text.phi("ptr", ways)
    value = text.offset(slot, _KEY)
    for field, to in zip(part.handler.call_fields, node.slots, strict=True):
        if to.type is None:
            if to.size != field.size:
                raise InternalError(f"{part.handler.name}: {to.name} crosses with another size")
            copy(text, (part.buffer(to), 8), (text.offset(value, field.offset), alignment(field.offset)), field.size)
        else:
            text.store(to.type.bits, load_field(part, field, to.type, value), part.integers[to])
    _set_key(part, slot, "0")
    text.jump(after)
    text.start(missing)
    part.end()
    text.start(after)
