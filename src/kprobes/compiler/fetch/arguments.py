"""Arguments: a term, its type, its bits and its array become the operands of a record.

A number that can't be read is 0, a string `(fault)`. Of an array each element is read by itself; where its address
can't be told, all of it has failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.fetch.terms import unknown_types
from kprobes.compiler.ir.nodes import (
    BOOL,
    U64,
    Builtin,
    BuiltinText,
    ConstText,
    IntType,
    Operand,
    ReadText,
    Slot,
    Value,
)
from kprobes.model.definition import AllParameters, Comm, Field, Immediate, Memory, Text
from kprobes.model.fetched import FAULT

if TYPE_CHECKING:
    from kprobes.compiler.fetch.terms import Terms
    from kprobes.model.definition import Argument

_POINTER = 8


def fetch(terms: Terms, argument: Argument, slots: list[Slot]) -> list[Operand]:
    """Return what *argument* fetches: an operand for each of its fields; strings go to *slots*.

    Raises:
        UnsupportedError: it depends on types that aren't known.
    """
    if isinstance(argument.term, AllParameters):
        raise unknown_types("$arg*")
    if argument.type.string and argument.type.name != "symstr":
        _strings(terms, argument, slots)
        return list(slots)
    return list(_numbers(terms, argument))


# Numbers


def _numbers(terms: Terms, argument: Argument) -> list[Value]:
    term, size = argument.term, 8 if argument.type.string else argument.type.size
    kind = IntType(8 * size, argument.type.signed and not argument.type.string)
    if not isinstance(term, Memory | Field) or (argument.type.string and not argument.count):
        value, failed = terms.value(term)
        whole = terms.build.convert(terms.place, terms.cleared(value, failed), kind)
        return [_cut(terms, argument, whole)]
    base, offset, failed = terms.address(term)
    found = []
    for index in range(argument.count or 1):
        value, _ = terms.load(kind, base, offset + index * size, terms.space(term), None)
        found.append(_cut(terms, argument, terms.cleared(value, failed)))
    return found


def _cut(terms: Terms, argument: Argument, value: Value) -> Value:
    """Return the bits of *value* that *argument* asks for, by itself or as the bit-field of a structure."""
    bits = argument.bits
    if bits is not None:
        return _extracted(terms, value, bits.offset, bits.width)
    term = argument.term
    if isinstance(term, Field) and ":" not in argument.body and (term.bit_size % 8 or term.bit_offset % 8):
        return _extracted(terms, value, term.bit_offset % 8, term.bit_size)
    return value


def _extracted(terms: Terms, value: Value, offset: int, width: int) -> Value:
    build, place, kind = terms.build, terms.place, value.type
    plain = IntType(kind.bits, signed=False)
    found = build.convert(place, value, plain)
    if offset:
        found = build.binary(place, "shr", found, build.const(place, offset, plain))
    if width < kind.bits:
        found = build.binary(place, "and", found, build.const(place, (1 << width) - 1, plain))
    return build.convert(place, found, kind)


# Strings


def _strings(terms: Terms, argument: Argument, slots: list[Slot]) -> None:
    term = argument.term
    if isinstance(term, Comm):
        terms.build.add(BuiltinText(terms.place, slots[0], "comm"))
    elif isinstance(term, Text):
        text = term.value.encode("latin-1", "replace")[: slots[0].size - 1]
        terms.build.add(ConstText(terms.place, slots[0], text))
    elif argument.count:
        _pointed_at(terms, argument, slots)
    elif isinstance(term, Immediate):
        address = terms.build.const(terms.place, term.value, U64)
        _read(terms, slots[0], address, 0, _space(terms, argument), None)
    else:
        assert isinstance(term, Memory | Field)
        base, offset, failed = terms.address(term)
        _read(terms, slots[0], base, offset, _space(terms, argument), failed)


def _pointed_at(terms: Terms, argument: Argument, slots: list[Slot]) -> None:
    """Read the strings that an array of pointers leads to; behind a pointer that can't be read the rest has failed."""
    term = argument.term
    if not isinstance(term, Memory | Field):
        value, failed = terms.value(term)
        pointers = [(value, failed), *[(value, terms.build.const(terms.place, 1, U64)) for _ in slots[1:]]]
    else:
        base, offset, failed = terms.address(term)
        pointers = []
        for index in range(len(slots)):
            value, failed = terms.load(U64, base, offset + _POINTER * index, terms.space(term), failed)
            pointers.append((value, failed))
    space = "user" if terms.around.user or argument.type.name == "ustring" else "any"
    for slot, (value, failed) in zip(slots, pointers, strict=True):
        _read(terms, slot, value, 0, space, failed)


def _space(terms: Terms, argument: Argument) -> str:
    """Return whose memory a string is in: it is the last of the dereferences that reads it."""
    if argument.type.name == "ustring":
        return "user"
    term = argument.term
    return terms.space(term) if isinstance(term, Memory | Field) else "user" if terms.around.user else "any"


def _read(terms: Terms, slot: Slot, base: Value, offset: int, space: str, failed: Value | None) -> None:
    """Read a string, or write down that it can't be read."""
    build, place = terms.build, terms.place
    wrong = build.value(BOOL)
    build.add(ReadText(place, slot, base, offset, space, wrong))
    if failed is not None:
        together = terms.either(failed, wrong)
        wrong = build.compare(place, "ne", together, build.const(place, 0, U64))
    faulty, after = build.new_block("faulty"), build.new_block("read")
    build.branch(place, wrong, faulty, after)
    build.place_block(faulty)
    build.add(ConstText(place, slot, FAULT[: slot.size - 1]))
    build.jump(place, after)
    build.place_block(after)


def head(terms: Terms) -> list[Operand]:
    """Return the operands of the fields that each event begins with (see `model.fetched`)."""
    build, place = terms.build, terms.place
    kinds = {"now": U64, "cpu": _U32, "pid": _U32, "tid": _U32}
    found: list[Operand] = []
    for name, kind in kinds.items():
        to = build.value(kind)
        build.add(Builtin(place, to, name))
        found.append(to)
    comm = Slot("._comm", None, 16)
    build.add(BuiltinText(place, comm, "comm"))
    found.append(comm)
    return [*found, terms.ip(), *([terms.returns_to()] if terms.around.returns else [])]


_U32 = IntType(32, signed=False)
