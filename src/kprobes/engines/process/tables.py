"""Reading and taking what handlers keep in shared memory. The target can scribble over it: sizes are ours, bytes only
copied."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kprobes.engines.atomic import Words
from kprobes.engines.process.layout import (
    SLOT_CLAIMED,
    SLOT_DELETED,
    SLOT_FULL,
    SLOT_HEADER,
    TABLE_HEADER,
    is_keyed,
    slot_size,
    slots_of,
)
from kprobes.errors import InternalError
from kprobes.model.layout import align_up
from kprobes.model.shared import QUEUE_HEAD, QUEUE_SLOTS, TABLE_USED, queue_of

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator

    from kprobes.model.layout import MapLayout

    Pairs = list[tuple[bytes, bytes]]


def read_region(view: mmap.mmap, start: int, layout: MapLayout) -> Pairs:
    """Return the (key, value) pairs of the map whose region begins at *start*; one pair with the key `b""` for a map
    without keys."""
    if not is_keyed(layout):
        return [(b"", view[start : start + _memory_of(layout)])]
    raw = _slots(view, start, layout)
    return [_pair(raw, place, layout) for place in _full(raw, slot_size(layout))]


def _slots(view: mmap.mmap, start: int, layout: MapLayout) -> bytes:
    return view[start + TABLE_HEADER : start + TABLE_HEADER + slots_of(layout) * slot_size(layout)]


def _full(raw: bytes, size: int) -> Iterator[int]:
    """Yield where the slots begin that are full. Most are not, so they are looked for all at once."""
    states = raw[::size]
    number = states.find(SLOT_FULL)
    while number >= 0:
        yield number * size
        number = states.find(SLOT_FULL, number + 1)


def _memory_of(layout: MapLayout) -> int:
    return layout.value_size * (layout.max_entries if layout.kind == "array" else 1)


def _pair(raw: bytes | mmap.mmap, place: int, layout: MapLayout) -> tuple[bytes, bytes]:
    """Return key and value of the slot at *place*."""
    value_at = place + SLOT_HEADER + align_up(layout.key_size, 8)
    key = raw[place + SLOT_HEADER : place + SLOT_HEADER + layout.key_size]
    return key, raw[value_at : value_at + layout.value_size]


def take_region(view: mmap.mmap, start: int, layout: MapLayout) -> Pairs:
    """Return what `read_region` would, or the values of a queue, and leave nothing of it.

    Raises:
        InternalError: maps of this kind are not taken like that.
    """
    if layout.kind == "queue":
        return [(b"", value) for value in take_queue(view, start, layout)]
    if layout.kind in ("hash", "lru"):
        return _take_slots(view, start, layout, lambda _: True)
    if layout.key or layout.kind not in ("min", "max", "array"):
        raise InternalError(f"a {layout.kind} is not taken as a whole")
    with Words(view) as words:
        # The last word of a share first: that there is a value is said after the value.
        found = [words.exchange(start + at, 0) for at in reversed(range(0, _memory_of(layout), 8))]
    return [(b"", struct.pack(f"<{len(found)}Q", *reversed(found)))]


def take_old(view: mmap.mmap, start: int, layout: MapLayout, window: int) -> Pairs:
    """Return the pairs of a windowed map that belong to other windows than *window*, and take them out."""
    own = window.to_bytes(8, "little")
    return _take_slots(view, start, layout, lambda key: key[-8:] != own)


def _take_slots(view: mmap.mmap, start: int, layout: MapLayout, is_wanted: Callable[[bytes], bool]) -> Pairs:
    """Take the slots out whose key is wanted. While one is copied handlers find it being filled, and wait a little."""
    raw = _slots(view, start, layout)
    found = []
    with Words(view) as words:
        for at in _full(raw, slot_size(layout)):
            if not is_wanted(_pair(raw, at, layout)[0]):
                continue
            place = start + TABLE_HEADER + at
            head = int.from_bytes(view[place : place + 8], "little")
            state = head & 0xFFFFFFFF
            if state == SLOT_FULL and words.compare_exchange(place, head, head - SLOT_FULL + SLOT_CLAIMED):
                found.append(_pair(view, place, layout))
                words.add(start + TABLE_USED, -1)
                words.exchange(place, SLOT_DELETED)
    return found


def take_queue(view: mmap.mmap, start: int, layout: MapLayout) -> list[bytes]:
    """Return the values that wait, the oldest first, and take them out: not more than fit in."""
    shape = queue_of(layout)
    found: list[bytes] = []
    with Words(view) as words:
        for _ in range(layout.max_entries):
            while True:
                head = _word(view, start + QUEUE_HEAD)
                slot = start + QUEUE_SLOTS + (head & shape.mask) * shape.stride
                filled = 2 * (head >> shape.bits) + 1
                if _word(view, slot) != filled:
                    if _word(view, start + QUEUE_HEAD) == head:
                        return found  # nothing waits, or its handler has not finished it
                elif words.compare_exchange(start + QUEUE_HEAD, head, head + 1):
                    found.append(view[slot + 8 : slot + 8 + layout.value_size])
                    words.exchange(slot, filled + 1)
                    break
    return found


def _word(view: mmap.mmap, at: int) -> int:
    return int.from_bytes(view[at : at + 8], "little")
