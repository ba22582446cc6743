"""Events: a record is reserved in the ring and filled where it lies."""

from __future__ import annotations

from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.reads import fill
from kprobes.compiler.back.bpf.target import RING, ring_layout
from kprobes.compiler.back.fields import gaps, put_integer, put_text
from kprobes.compiler.back.memory import zero
from kprobes.compiler.ir.nodes import Slot
from kprobes.model.layout import RECORD_HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.part import BpfPart
    from kprobes.compiler.ir.nodes import Emit


# Records may be written by whole words wherever: only on its stack a program has to keep to their boundaries.
_ALIGNED = 8


def emit(part: BpfPart, node: Emit) -> None:
    """Send one record; where the ring is full, count it as lost."""
    text, layout = part.text, part.event(node.event)
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
