"""What fills a byte buffer, and which buffers are filled straight in the record that wants them."""

from __future__ import annotations

from kprobes.compiler.ir.nodes import BuiltinText, ConstText, Emit, ReadBytes, ReadText, RecordText, Slot
from kprobes.compiler.ir.operands import slots_read, slots_written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.ir.nodes import Function
    from kprobes.model.layout import EventLayout

Fill = ReadText | ReadBytes | RecordText | ConstText | BuiltinText
_FILLS = (ReadText, ReadBytes, RecordText, ConstText, BuiltinText)


def sunk_texts(function: Function, events: dict[int, EventLayout]) -> dict[Slot, Fill]:
    """Return the buffers that are filled once and used once, by an Emit of the same block as a field of their size.

    Such a text is read straight into the record, which spares a copy and the stack it would need.
    """
    uses: dict[Slot, int] = {}
    writers: dict[Slot, int] = {}
    candidates: dict[Slot, Fill] = {}
    for block in function.blocks:
        here: dict[Slot, Fill] = {}
        for node in block.nodes:
            for slot in slots_read(node):
                uses[slot] = uses.get(slot, 0) + 1
            for slot in slots_written(node):
                writers[slot] = writers.get(slot, 0) + 1
            if isinstance(node, _FILLS) and getattr(node, "failed", None) is None:
                here[node.slot] = node
            elif isinstance(node, Emit):
                fields = events[node.event].fields
                for field, operand in zip(fields, node.operands, strict=True):
                    if isinstance(operand, Slot) and operand in here and operand.size == field.size:
                        candidates[operand] = here[operand]
    return {slot: fill for slot, fill in candidates.items() if uses[slot] == 1 and writers[slot] == 1}
