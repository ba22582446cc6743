"""`stack()`: the frames of the thread, found by unwind tables, kept once each in a table of the process's stacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.native.tables import claim
from kprobes.compiler.back.native.walk import walk
from kprobes.model.layout import MapLayout
from kprobes.model.shared import (
    BLOCK_NUMBER,
    PAGE,
    SCRATCH_SIZE,
    STACK_DEPTH,
    TABLE_HEADER,
    UNWIND_ROWS,
    UNWIND_SCRATCH,
    table_of,
)

if TYPE_CHECKING:
    from kprobes.compiler.back.native.part import NativePart

UNWIND, STACKS = ".unwind", ".stacks"
MOST_STACKS = 16384
NO_ROOM = -28  # ENOSPC


def stacks_layout() -> MapLayout:
    """Return the layout of the table of stacks: the addresses are the key."""
    return MapLayout(STACKS, "traces", 8 * STACK_DEPTH, 8, MOST_STACKS)


def unwind_layout() -> MapLayout:
    """Return the layout of the unwind region, without rows."""
    return MapLayout(UNWIND, "unwind", 4, UNWIND_ROWS, 1)


def stack(part: NativePart) -> str:
    """Return the id of the thread's stack: the number of its slot."""
    text, layout = part.text, stacks_layout()
    part.need(layout)
    part.need(unwind_layout())
    part.world(0)
    table, unwind = part.map_value(STACKS), part.map_value(UNWIND)
    number = text.load(64, text.offset("%block", BLOCK_NUMBER))
    at = text.let(f"add i64 {text.let(f'mul i64 {number}, {SCRATCH_SIZE}')}, {UNWIND_SCRATCH}")
    scratch = text.offset(unwind, at)
    registers = ", ".join(f"i64 {part.register(name)}" for name in ("ip", "sp", "bp"))
    text.do(f"call void {walk(text.module)}(ptr {scratch}, ptr {unwind}, ptr %block, {registers})")
    shape = table_of(layout)
    key = text.offset(scratch, PAGE)
    slot = text.let(
        f"call ptr {claim(text.module)}(ptr {table}, ptr {key}, i64 {STACK_DEPTH}, i64 {shape.stride}, "
        f"i64 {shape.capacity - 1}, i64 {MOST_STACKS}, ptr null)"
    )
    full = text.let(f"icmp eq ptr {slot}, null")
    part.fault(text.let(f"sext i1 {full} to i64"))
    ends = [text.let(f"ptrtoint ptr {one} to i64") for one in (slot, table)]
    distance = text.let(f"sub i64 {text.let(f'sub i64 {ends[0]}, {ends[1]}')}, {TABLE_HEADER}")
    found = text.let(f"udiv i64 {distance}, {shape.stride}")
    return text.let(f"select i1 {full}, i64 {NO_ROOM}, i64 {found}")
