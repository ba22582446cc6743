"""The unwind region of the shared memory: the tables of a plan, for where its objects are mapped."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kprobes.engines.process.layout import SLOT_FULL, SLOT_HEADER, TABLE_HEADER, slot_size, slots_of
from kprobes.model.shared import (
    MAX_UNWIND_OBJECTS,
    STACK_DEPTH,
    UNWIND_OBJECT,
    UNWIND_OBJECTS,
    UNWIND_ROWS,
)

if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence

    from kprobes.engines.process.arming import Objects
    from kprobes.model.layout import MapLayout
    from kprobes.model.plan import Unwinding

_OBJECT = struct.Struct("<5Q")
ROW = 8


def fill_unwinding(view: mmap.mmap, at: int, size: int, tables: Sequence[Unwinding], objects: Objects) -> None:
    """Write the tables into the region of *size* bytes at *at*; objects beyond what it has room for are left out."""
    count, place = 0, UNWIND_ROWS
    for one in tables:
        mappings = objects.mappings_of(one.path)
        if not mappings or place + len(one.rows) > size:
            continue
        view[at + place : at + place + len(one.rows)] = one.rows
        for mapping in mappings[: MAX_UNWIND_OBJECTS - count]:
            entry = _OBJECT.pack(
                mapping.start, mapping.end, mapping.start - mapping.offset, place, len(one.rows) // ROW
            )
            begin = at + UNWIND_OBJECTS + count * UNWIND_OBJECT
            view[begin : begin + len(entry)] = entry
            count += 1
        place += len(one.rows)
    struct.pack_into("<Q", view, at, count)


def read_trace(view: mmap.mmap, at: int, layout: MapLayout, number: int) -> tuple[int, ...]:
    """Return the addresses of stack *number* in the table at *at*, innermost first; none if there is no such stack."""
    if not 0 <= number < slots_of(layout):
        return ()
    begin = at + TABLE_HEADER + number * slot_size(layout)
    if view[begin] != SLOT_FULL:
        return ()
    words = struct.unpack_from(f"<{STACK_DEPTH}Q", view, begin + SLOT_HEADER)
    return words[: words.index(0)] if 0 in words else words
