"""Moving bytes: zeroing, copying, safe reads, and records of fields."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from kprobes.compiler.back.arithmetic import convert
from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.ir.nodes import IntType, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.compiler.back.bpf.part import Part
    from kprobes.compiler.back.text import FunctionText
    from kprobes.compiler.ir.nodes import Load, Operand
    from kprobes.model.layout import Field


def alignment(offset: int) -> int:
    """Return the alignment of what lies *offset* bytes behind an 8-byte boundary."""
    return gcd(offset, 8) if offset else 8


def zero(text: FunctionText, pointer: str, size: int, align: int = 8) -> None:
    """Fill *size* bytes with zeros."""
    if size <= text.module.unrolled:
        if size:
            memset = text.module.declare("llvm.memset.p0.i64", "void {}(ptr, i8, i64, i1)")
            text.do(f"call void {memset}(ptr align {align} {pointer}, i8 0, i64 {size}, i1 false)")
        return
    words = size // 8

    def store(at: str) -> None:
        text.do(f"store volatile i64 0, ptr {text.offset(pointer, at)}, align {align}")

    _each_word(text, words, store)
    zero(text, text.offset(pointer, 8 * words), size % 8, align)


def copy(text: FunctionText, to: tuple[str, int], source: tuple[str, int], size: int) -> None:
    """Copy *size* bytes between two (pointer, alignment)."""
    if size <= text.module.unrolled:
        if size:
            memcpy = text.module.declare("llvm.memcpy.p0.p0.i64", "void {}(ptr, ptr, i64, i1)")
            pointers = f"ptr align {to[1]} {to[0]}, ptr align {source[1]} {source[0]}"
            text.do(f"call void {memcpy}({pointers}, i64 {size}, i1 false)")
        return
    words = size // 8

    def move(at: str) -> None:
        word = text.let(f"load volatile i64, ptr {text.offset(source[0], at)}, align {source[1]}")
        text.do(f"store volatile i64 {word}, ptr {text.offset(to[0], at)}, align {to[1]}")

    _each_word(text, words, move)
    rest = (text.offset(to[0], 8 * words), to[1]), (text.offset(source[0], 8 * words), source[1])
    copy(text, *rest, size % 8)


def _each_word(text: FunctionText, words: int, do: Callable[[str], None]) -> None:
    """Write a loop over *words* words; *do* gets the distance of each. Volatile accesses keep it a loop."""
    before, loop, after = text.block, text.label("words"), text.label("done")
    following = f"%next.{loop}"
    text.start(loop)
    name = text.phi("i64", [("0", before), (following, loop)])
    do(name)
    text.do(f"{following} = add i64 {name}, 8")
    text.branch(text.let(f"icmp ult i64 {following}, {8 * words}"), loop, after)
    text.start(after)


def read(part: Part, helper: str, to: str, size: int, address: tuple[str, int, str]) -> None:
    """Call *helper* (`probe_read_{}` or `probe_read_{}_str`) for *address* (operand, offset, space); note a fault.

    The helpers fill the target with zeros where they fail (since Linux 5.5, which brought them).
    """
    text = part.text
    base, offset, space = address
    if offset:
        base = text.let(f"add i64 {base}, {offset}")
    if space != "any":
        part.fault(call(text, helper.format(space), to, str(size), base))
        return
    kernel, user, after = text.label("kernel"), text.label("user"), text.label("read")
    text.branch(text.let(f"icmp slt i64 {base}, 0"), kernel, user)
    ways = []
    for label, kind in ((kernel, "kernel"), (user, "user")):
        text.start(label)
        ways.append((call(text, helper.format(kind), to, str(size), base), text.block))
        text.jump(after)
    text.start(after)
    part.fault(text.phi("i64", ways))


def load(part: Part, node: Load) -> None:
    """Read an integer safely."""
    size = max(node.to.type.bits, 8) // 8
    room = part.temporary("load", 8)
    read(part, "probe_read_{}", room, size, (part.value(node.address), node.offset, node.space))
    if node.to.type.bits == 1:
        byte = part.text.load(8, room)
        part.bind(node.to, part.text.let(f"icmp ne i8 {byte}, 0"))
    else:
        part.bind(node.to, part.text.load(node.to.type.bits, room))


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


def record(part: Part, role: str, fields: Sequence[Field], operands: Sequence[Operand], size: int) -> str:
    """Return a pointer to *operands* laid out as *fields*, on the stack unless they are there already."""
    if len(operands) == 1 and isinstance(operands[0], Slot):
        slot = operands[0]
        if slot.size == fields[0].size == size:
            return part.buffer(slot)
    to = part.temporary(role, size)
    put_fields(part, fields, operands, size, to)
    return to
