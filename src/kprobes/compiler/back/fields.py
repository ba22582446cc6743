"""Records of fields, as events, maps and calls have them: laid out, and read again."""

from __future__ import annotations

from kprobes.compiler.back.arithmetic import convert
from kprobes.compiler.back.memory import alignment, copy, zero
from kprobes.compiler.ir.nodes import IntType, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.back.part import Part
    from kprobes.compiler.ir.nodes import Operand
    from kprobes.model.layout import Field


def gaps(fields: Sequence[Field], size: int, start: int = 0) -> list[tuple[int, int]]:
    """Return the (start, end) of the bytes from *start* to *size* that no field covers."""
    found = []
    for field in sorted(fields, key=lambda field: field.offset):
        if field.offset > start:
            found.append((start, field.offset))
        start = max(start, field.offset + field.size)
    if start < size:
        found.append((start, size))
    return found


def put_text(part: Part, slot: Slot, to: str, offset: int, size: int) -> None:
    """Copy the string in *slot* to *to* + *offset*, cut to *size* bytes with the NUL, zeros behind."""
    text = part.text
    shared = min(slot.size, size)
    copy(text, (text.offset(to, offset), alignment(offset)), (part.buffer(slot), 8), shared)
    if slot.size > size:
        text.store(8, "0", text.offset(to, offset + size - 1))
    else:
        zero(text, text.offset(to, offset + shared), size - shared, alignment(offset + shared))


def put_integer(part: Part, operand: Operand, field: Field, to: str) -> None:
    """Store an integer in *field* of the record at *to*, cut or extended to the field's size."""
    value = part.integer(operand)
    kind = IntType(8 * field.size, value.type.signed)
    cut = convert(part.text, value.type, kind, part.value(value))
    part.text.store(kind.bits, cut, part.text.offset(to, field.offset), alignment(field.offset))


def put_fields(part: Part, fields: Sequence[Field], operands: Sequence[Operand], size: int, to: str) -> None:
    """Lay *operands* out as *fields* in *size* bytes at *to*, the gaps filled with zeros."""
    for start, end in gaps(fields, size):
        zero(part.text, part.text.offset(to, start), end - start, alignment(start))
    for field, operand in zip(fields, operands, strict=True):
        if isinstance(operand, Slot):
            put_text(part, operand, to, field.offset, field.size)
        else:
            put_integer(part, operand, field, to)


def record(part: Part, role: str, fields: Sequence[Field], operands: Sequence[Operand], size: int) -> str:
    """Return a pointer to *operands* laid out as *fields*, on the stack unless they are there already."""
    if len(operands) == 1 and isinstance(operands[0], Slot):
        slot = operands[0]
        if slot.size == fields[0].size == size:
            return part.buffer(slot)
    to = part.temporary(role, size)
    put_fields(part, fields, operands, size, to)
    return to


def take_text(part: Part, field: Field, slot: Slot, pointer: str) -> None:
    """Copy a text field of the value at *pointer* to *slot*, cut to its size."""
    text, to = part.text, part.buffer(slot)
    source = (text.offset(pointer, field.offset), alignment(field.offset))
    copy(text, (to, 8), source, min(field.size, slot.size))
    if field.size > slot.size:
        text.store(8, "0", text.offset(to, slot.size - 1))


def load_field(part: Part, field: Field, kind: IntType, pointer: str) -> str:
    """Return an integer field of a record as *kind*, extended by the field's own sign."""
    text = part.text
    stored = IntType(8 * field.size, field.kind == "int")
    value = text.load(stored.bits, text.offset(pointer, field.offset), alignment(field.offset))
    return convert(text, stored, kind, value)
