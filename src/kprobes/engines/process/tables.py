"""Reading what handlers keep in shared memory. The target can scribble over it: sizes are ours, bytes only copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.engines.process.layout import (
    SLOT_FULL,
    SLOT_HEADER,
    TABLE_HEADER,
    is_keyed,
    slot_size,
    slots_of,
)
from kprobes.model.layout import align_up

if TYPE_CHECKING:
    import mmap

    from kprobes.model.layout import MapLayout


def read_region(view: mmap.mmap, start: int, layout: MapLayout) -> list[tuple[bytes, bytes]]:
    """Return the (key, value) pairs of the map whose region begins at *start*; one pair with the key `b""` for a map
    without keys."""
    if not is_keyed(layout):
        return [(b"", view[start : start + layout.value_size])]
    size, count = slot_size(layout), slots_of(layout)
    raw = view[start + TABLE_HEADER : start + TABLE_HEADER + count * size]
    value_at = SLOT_HEADER + align_up(layout.key_size, 8)
    found = []
    for place in range(0, len(raw), size):
        if raw[place] == SLOT_FULL:
            key = raw[place + SLOT_HEADER : place + SLOT_HEADER + layout.key_size]
            found.append((key, raw[place + value_at : place + value_at + layout.value_size]))
    return found
