"""Events: a record is reserved in the ring and filled where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.memory import gaps, put_integer, put_text, zero
from kprobes.compiler.back.bpf.target import RING, ring_layout
from kprobes.compiler.back.bpf.texts import FILLS, Fill, fill
from kprobes.compiler.ir.nodes import Emit, Slot
from kprobes.compiler.ir.operands import slots_read
from kprobes.errors import InternalError
from kprobes.model.layout import RECORD_HEADER

if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.part import Part
    from kprobes.compiler.ir.nodes import Function
    from kprobes.model.layout import EventLayout


# Records may be written by whole words wherever: only on its stack a program has to keep to their boundaries.
_ALIGNED = 8


def event_of(part: Part, number: int) -> EventLayout:
    """Return the layout of the event *number*."""
    for layout in part.handler.events:
        if layout.id == number:
            return layout
    raise InternalError(f"{part.handler.name} has no event {number}")


def emit(part: Part, node: Emit) -> None:
    """Send one record; where the ring is full, count it as lost."""
    text, layout = part.text, event_of(part, node.event)
    part.need(ring_layout(part.target))
    lost, room, end = text.label("lost"), text.label("room"), text.label("sent")
    record = call(text, "ringbuf_reserve", part.map(RING), str(layout.size), "0")
    text.unlikely(text.let(f"icmp eq ptr {record}, null"), lost, room)
    text.start(lost)
    part.count("lost")
    text.jump(end)
    text.start(room)
    text.store(32, str(layout.id), record)
    text.store(32, text.let(f"trunc i64 {part.site} to i32"), text.offset(record, 4))
    for start, stop in gaps(layout.fields, layout.size, RECORD_HEADER):
        zero(text, text.offset(record, start), stop - start)
    for field, operand in zip(layout.fields, node.operands, strict=True):
        if not isinstance(operand, Slot):
            put_integer(part, operand, field, record)
        elif operand in part.sunk:
            fill(part, part.sunk[operand], text.offset(record, field.offset), _ALIGNED)
        else:
            put_text(part, operand, record, field.offset, field.size)
    call(text, "ringbuf_submit", record, "0")
    text.start(end)


def sunk_texts(function: Function, events: dict[int, EventLayout]) -> dict[Slot, Fill]:
    """Return the buffers that are filled once and used once, by an Emit of the same block as a field of their size.

    Such a text is read straight into the record, which spares a copy and the stack it would need.
    """
    uses: dict[Slot, int] = {}
    fills: dict[Slot, list[Fill]] = {}
    candidates: dict[Slot, Fill] = {}
    for block in function.blocks:
        here: dict[Slot, Fill] = {}
        for node in block.nodes:
            for slot in slots_read(node):
                uses[slot] = uses.get(slot, 0) + 1
            if isinstance(node, FILLS):
                fills.setdefault(node.slot, []).append(node)
                here[node.slot] = node
            elif isinstance(node, Emit):
                fields = events[node.event].fields
                for field, operand in zip(fields, node.operands, strict=True):
                    if isinstance(operand, Slot) and operand in here and operand.size == field.size:
                        candidates[operand] = here[operand]
    return {slot: fill for slot, fill in candidates.items() if uses[slot] == 1 and len(fills[slot]) == 1}
