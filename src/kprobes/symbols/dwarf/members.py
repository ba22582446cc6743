"""Members of structs, unions and classes."""

from __future__ import annotations

from kprobes.errors import FormatError
from kprobes.symbols.dwarf.abbreviations import uleb
from kprobes.symbols.dwarf.numbers import At, Tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.symbols.dwarf.units import Entry

NESTED_LIMIT = 4096
CHAIN_LIMIT = 64
_PLUS_CONSTANT = 0x23
_PASS_BY_REFERENCE, _PASS_BY_VALUE, _IN_CLASS = 4, 5, 1
_STRUCTS = frozenset({Tag.STRUCTURE, Tag.CLASS, Tag.UNION, Tag.INTERFACE})
_TRANSPARENT = frozenset({Tag.TYPEDEF, Tag.CONST, Tag.VOLATILE})


def each_member(struct: Entry) -> Iterator[tuple[Entry, int]]:
    """Return each member of *struct* with the bit offset of the struct it stands in: first its own, then those of
    anonymous members and base classes.

    Raises:
        FormatError: structs are nested without end.
    """
    pending = [(struct, 0)]
    for _ in range(NESTED_LIMIT):
        if not pending:
            return
        struct, outer = pending.pop()
        inner = []
        for child in struct.children():
            if child.tag == Tag.MEMBER and not child.flag(At.EXTERNAL) and not child.flag(At.DECLARATION):
                if At.NAME in child.values:
                    yield child, outer
                    continue
            elif child.tag != Tag.INHERITANCE:
                continue
            offset, _ = member_place(child)
            held = _struct_of(child)
            if offset >= 0 and held is not None:
                inner.append((held, outer + offset))
        pending += reversed(inner)
    raise FormatError(f"a struct of the debug information holds more than {NESTED_LIMIT} anonymous members")


def member_place(member: Entry) -> tuple[int, int]:
    """Return the bit offset of *member* in its struct, and its size in bits where it is a bit-field, else 0.

    The offset is -1 where it has to be computed when the program runs, as that of a virtual base class.
    """
    start = _byte_offset(member)
    if start < 0:
        return -1, 0
    size = member.number(At.BIT_SIZE) or 0
    if not 0 <= size <= 64 or start >= 1 << 40:
        raise FormatError("a member of the debug information lies outside of its struct")
    bit = member.number(At.DATA_BIT_OFFSET)
    if bit is not None:
        return 8 * start + bit, size
    from_top = member.number(At.BIT_OFFSET)
    if from_top is None:
        return 8 * start, size
    # DWARF 2 and 3 count from the most significant bit of the integer that holds it
    storage = member.number(At.BYTE_SIZE) or _size_of_type(member)
    return 8 * (start + storage) - from_top - size, size


def is_by_reference(struct: Entry) -> bool:
    """Return whether values of the class *struct* are passed by address: copying or destroying one runs code.

    Some compilers say so, else it follows from what the class and those it is made of declare.

    Source: Itanium C++ ABI, 3.1.2.3.
    """
    pending = [struct]
    for _ in range(NESTED_LIMIT):
        if not pending:
            return False
        struct = pending.pop()
        said = struct.number(At.CALLING_CONVENTION)
        if said in (_PASS_BY_REFERENCE, _PASS_BY_VALUE):
            if said == _PASS_BY_REFERENCE:
                return True
            continue
        name = struct.name.partition("<")[0]
        for child in struct.children():
            if child.tag == Tag.SUBPROGRAM and name and _runs_code(child, name, struct.offset):
                return True
            if child.tag in (Tag.MEMBER, Tag.INHERITANCE) and not child.flag(At.EXTERNAL):
                held = _struct_of(child)
                pending += [held] if held is not None else []
    return False


def _runs_code(method: Entry, name: str, struct: int) -> bool:
    """Return whether *method* of the class *name* is what makes copies: a destructor, a virtual function, or a
    constructor from another one; those that are `= default` in the class are none."""
    if method.flag(At.VIRTUALITY):
        return True
    if method.number(At.DEFAULTED) == _IN_CLASS:
        return False
    called = method.name.partition("<")[0]
    if called == f"~{name}":
        return True
    if called != name:
        return False
    parameters = [one for one in method.children() if one.tag == Tag.PARAMETER and not one.flag(At.ARTIFICIAL)]
    reference = parameters[0].entry(At.TYPE) if len(parameters) == 1 else None
    if reference is None or reference.tag not in (Tag.REFERENCE, Tag.RVALUE_REFERENCE):
        return False
    other = _type_of(reference)
    return other is not None and other.offset == struct


def _byte_offset(member: Entry) -> int:
    place = member.block(At.MEMBER_LOCATION)
    if place is None:
        return member.number(At.MEMBER_LOCATION) or 0
    if place[:1] != bytes([_PLUS_CONSTANT]):
        return -1
    value, end = uleb(place, 1)
    return value if end == len(place) else -1


def _type_of(entry: Entry) -> Entry | None:
    found = entry.entry(At.TYPE)
    for _ in range(CHAIN_LIMIT):
        if found is None or found.tag not in _TRANSPARENT:
            return found
        found = found.entry(At.TYPE)
    return None


def _struct_of(member: Entry) -> Entry | None:
    found = _type_of(member)
    return found if found is not None and found.tag in _STRUCTS else None


def _size_of_type(member: Entry) -> int:
    found = _type_of(member)
    return (found.number(At.BYTE_SIZE) or 0) if found is not None else 0
