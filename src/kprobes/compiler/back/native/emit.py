"""Events: room is taken in the thread's ring, filled where it lies, and published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.fields import gaps, put_integer, put_text
from kprobes.compiler.back.memory import alignment, zero
from kprobes.compiler.back.native.reads import fill
from kprobes.compiler.ir.nodes import Slot
from kprobes.model.layout import RECORD_HEADER, MapLayout

if TYPE_CHECKING:
    from kprobes.compiler.back.native.part import NativePart
    from kprobes.compiler.ir.nodes import Emit


def emit(part: NativePart, node: Emit) -> None:
    """Send one record. Where the ring is full, `reserve` counts it as lost."""
    text, layout = part.text, part.event(node.event)
    part.need(MapLayout("ring", "ring", 0, 0, part.native.ring_bytes))
    reserve, submit = text.module.external("helper:reserve"), text.module.external("helper:submit")
    room, end = text.label("room"), text.label("sent")
    record = text.let(f"call ptr {reserve}(ptr %block, i64 {layout.size}, i64 {part.site})")
    text.unlikely(text.let(f"icmp eq ptr {record}, null"), end, room)
    text.start(room)
    text.store(32, str(layout.id), record)
    text.store(32, text.let(f"trunc i64 {part.site} to i32"), text.offset(record, 4))
    for start, stop in gaps(layout.fields, layout.size, RECORD_HEADER):
        zero(text, text.offset(record, start), stop - start, alignment(start))
    for field, operand in zip(layout.fields, node.operands, strict=True):
        if not isinstance(operand, Slot):
            put_integer(part, operand, field, record)
        elif operand in part.sunk:
            fill(part, part.sunk[operand], text.offset(record, field.offset), alignment(field.offset))
        else:
            put_text(part, operand, record, field.offset, field.size)
    text.do(f"call void {submit}(ptr %block)")
    text.start(end)
