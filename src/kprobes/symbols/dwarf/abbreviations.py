"""Abbreviations: what the entries of a unit look like, made ready to be skipped quickly.

Most questions are about a few entries of thousands, so the time goes into stepping over the others. Each abbreviation
therefore holds *steps*: so many bytes, or one of the kinds of value whose length must be read.
"""

from __future__ import annotations

from kprobes.errors import FormatError
from kprobes.frozen import dataclass
from kprobes.symbols.dwarf.numbers import At, Form

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Kinds of values whose length stands in the data; a step of 0 and more is a number of bytes.
ULEB, BLOCK, STRING, BLOCK1, BLOCK2, BLOCK4, INDIRECT = -1, -2, -3, -4, -5, -6, -7
# Compilers make some hundred abbreviations a unit, of some ten values each.
MOST_ABBREVIATIONS = 1 << 16
MOST_VALUES = 1 << 8

_SIZES: dict[int, int] = {
    Form.ADDR: 8, Form.DATA1: 1, Form.DATA2: 2, Form.DATA4: 4, Form.DATA8: 8, Form.DATA16: 16, Form.FLAG: 1,
    Form.REF1: 1, Form.REF2: 2, Form.REF4: 4, Form.REF8: 8, Form.REF_SIG8: 8, Form.FLAG_PRESENT: 0,
    Form.IMPLICIT_CONST: 0, Form.STRX1: 1, Form.STRX2: 2, Form.STRX3: 3, Form.STRX4: 4, Form.ADDRX1: 1,
    Form.ADDRX2: 2, Form.ADDRX3: 3, Form.ADDRX4: 4, Form.REF_SUP4: 4, Form.REF_SUP8: 8, Form.STRING: STRING,
    Form.BLOCK: BLOCK, Form.EXPRLOC: BLOCK, Form.BLOCK1: BLOCK1, Form.BLOCK2: BLOCK2, Form.BLOCK4: BLOCK4,
    Form.SDATA: ULEB, Form.UDATA: ULEB, Form.REF_UDATA: ULEB, Form.STRX: ULEB, Form.ADDRX: ULEB, Form.LOCLISTX: ULEB,
    Form.RNGLISTX: ULEB, Form.GNU_ADDR_INDEX: ULEB, Form.GNU_STR_INDEX: ULEB, Form.INDIRECT: INDIRECT,
}  # fmt: skip
# As wide as offsets are in the unit: 4 bytes, or 8 in the 64-bit format.
_OFFSETS = (
    Form.STRP, Form.LINE_STRP, Form.SEC_OFFSET, Form.REF_ADDR, Form.STRP_SUP, Form.GNU_REF_ALT, Form.GNU_STRP_ALT,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Abbreviation:
    """One shape of entries: *attributes* are (what, form, value where the form says that it stands here).

    *size* is that of the values in bytes, -1 where it must be found by *steps*. *sibling* are the steps to the offset
    of the next entry, None where the shape has none or writes it otherwise than in four bytes. *name* are (the steps to
    the name, its form), None where it has none. *whats* are all that it says.
    """

    tag: int
    has_children: bool
    attributes: tuple[tuple[int, int, int], ...]
    size: int
    steps: tuple[int, ...]
    sibling: tuple[int, ...] | None
    name: tuple[tuple[int, ...], int] | None
    whats: frozenset[int]


def uleb(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned LEB128 number at *at*, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 70:
            raise FormatError("a number of the debug information is too long")


def sleb(data: bytes, at: int) -> tuple[int, int]:
    """Return the signed LEB128 number at *at*, and where it ends."""
    value, end = uleb(data, at)
    bits = 7 * (end - at)
    return (value - (1 << bits) if value >> (bits - 1) else value), end


def parse_abbreviations(data: bytes, at: int, *, version: int, width: int) -> dict[int, Abbreviation]:
    """Return the abbreviations at *at* by their code, for units of DWARF *version* whose offsets have *width* bytes.

    Raises:
        FormatError, IndexError: they are malformed, or cut short.
    """
    sizes: dict[int, int] = {**_SIZES, **dict.fromkeys(_OFFSETS, width)}
    if version == 2:
        sizes[Form.REF_ADDR] = 8
    found: dict[int, Abbreviation] = {}
    while True:
        code, at = uleb(data, at)
        if not code:
            return found
        if len(found) >= MOST_ABBREVIATIONS:
            raise FormatError("a unit of the debug information has too many abbreviations")
        tag, at = uleb(data, at)
        has_children = data[at] != 0
        attributes, at = _parse_attributes(data, at + 1)
        found[code] = _abbreviation(tag, has_children, attributes, sizes)


def _parse_attributes(data: bytes, at: int) -> tuple[tuple[tuple[int, int, int], ...], int]:
    attributes: list[tuple[int, int, int]] = []
    while True:
        what, at = uleb(data, at)
        form, at = uleb(data, at)
        value = 0
        if form == Form.IMPLICIT_CONST:
            value, at = sleb(data, at)
        if not what and not form:
            return tuple(attributes), at
        attributes.append((what, form, value))
        if len(attributes) > MOST_VALUES:
            raise FormatError("an abbreviation of the debug information has too many values")


def _abbreviation(
    tag: int, has_children: bool, attributes: tuple[tuple[int, int, int], ...], sizes: dict[int, int]
) -> Abbreviation:
    kinds: list[int] = []
    sibling = name = None
    for what, form, _ in attributes:
        if what == At.SIBLING and form == Form.REF4:
            sibling = _merged(kinds)
        elif what == At.NAME:
            name = _merged(kinds), form
        size = sizes.get(form)
        if size is None:
            raise FormatError(f"the debug information has values of the unknown form {form:#x}")
        kinds.append(size)
    steps = _merged(kinds)
    fixed = sum(steps) if all(step >= 0 for step in steps) else -1
    return Abbreviation(tag, has_children, attributes, fixed, steps, sibling, name, frozenset(a[0] for a in attributes))


def _merged(kinds: Sequence[int]) -> tuple[int, ...]:
    """Return *kinds* with neighbouring numbers of bytes added up."""
    steps: list[int] = []
    for kind in kinds:
        if kind >= 0 and steps and steps[-1] >= 0:
            steps[-1] += kind
        elif kind:
            steps.append(kind)
    return tuple(steps)


def skip(data: bytes, at: int, steps: Sequence[int]) -> int:
    """Return where the values end that begin at *at*.

    Raises:
        FormatError, IndexError: they are malformed, or cut short.
    """
    for step in steps:
        if step >= 0:
            at += step
        elif step == ULEB:
            while data[at] >= 0x80:
                at += 1
            at += 1
        elif step == BLOCK:
            size, at = uleb(data, at)
            at += size
        elif step == STRING:
            at = data.index(b"\0", at) + 1
        elif step == INDIRECT:
            raise FormatError("the debug information has values of indirect form")
        else:
            width = {BLOCK1: 1, BLOCK2: 2, BLOCK4: 4}[step]
            at += width + int.from_bytes(data[at : at + width], "little")
    return at
