"""Parameters by name and their structures' fields: `count`, `file->f_pos`, `$retval->i_ino` (since 6.3).

Where no types are known, any name is taken for a parameter and any path for fields.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, EOPNOTSUPP

from kprobes.grammar.refusal import UNTOLD
from kprobes.grammar.scan import ENTRY_DATA, MEMORY
from kprobes.model.ctype import Array, Enum, Int, Pointer, Struct, Void
from kprobes.model.definition import Field, Parameter, ReturnValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.grammar.scan import Scan
    from kprobes.model.ctype import CType, Types
    from kprobes.model.definition import Term


def parse_variable(scan: Scan, text: str) -> Term:
    """Parse a parameter or `$retval`, with its fields.

    Raises:
        Refused: as the kernel does.
    """
    name, path, arrow = _split(scan, text)
    field_at = len(text) - len(path) if path is not None else 0
    if path is not None and not arrow:
        raise scan.refuse("NOSUP_DAT_ARG", field_at, EOPNOTSUPP)
    if scan.site.types is None:
        return _unknown(scan, name, path)
    base, ctype = _found(scan, name, field_at)
    scan.type, scan.bit_offset, scan.bit_size = ctype, 0, 0
    if path is None or ctype is None:
        return base
    scan.offset += field_at
    return _parse_path(scan, base, path, ctype)


def _split(scan: Scan, text: str) -> tuple[str, str | None, bool]:
    """Return the name that *text* begins with, what stands behind the first `->` or `.` (None: none), and if it was
    `->`."""
    for at, char in enumerate(text):
        if char == ".":
            return text[:at], text[at + 1 :], False
        if char == "-":
            if text[at + 1 : at + 2] != ">":
                raise scan.refuse("BAD_HYPHEN", at)
            return text[:at], text[at + 2 :], True
    return text, None, False


def _unknown(scan: Scan, name: str, path: str | None) -> Term:
    is_result = scan.site.returning and name == "$retval"
    if not is_result and not name.isidentifier():
        raise scan.refuse("NO_BTFARG", number=ENOENT)
    base: Term = ReturnValue() if is_result else Parameter(name)
    if scan.site.at_return and not is_result:
        scan.last = ENTRY_DATA
    scan.guessed = not is_result or path is not None
    if path is None:
        return base
    scan.last = MEMORY
    for part in path.split("->"):
        if not all(member.isidentifier() for member in part.split(".")):
            raise scan.refuse("BAD_HYPHEN" if "-" in part else "NO_BTF_FIELD", number=EINVAL if "-" in part else ENOENT)
        scan.step()
        base = Field(base, part)
    return base


def _found(scan: Scan, name: str, field_at: int) -> tuple[Term, CType | None]:
    """Return the term that *name* means, with its type; without one where the function's isn't known."""
    function = scan.site.function
    if scan.site.returning and name == "$retval":
        if function is None:
            if field_at:
                raise scan.refuse("NO_BTF_ENTRY", field_at, ENOENT)
            return ReturnValue(), None
        if isinstance(function.returns, Void):
            raise scan.refuse("NO_RETVAL", number=ENOENT)
        return ReturnValue(), function.returns
    if function is None or not function.parameters:
        raise scan.refuse("NO_BTF_ENTRY", number=ENOENT)
    for index, parameter in enumerate(function.parameters):
        if parameter.name == name:
            if scan.site.at_return:
                scan.last = ENTRY_DATA
            return Parameter(name, index), parameter.type
    raise scan.refuse("NO_BTFARG", number=ENOENT)


def _parse_path(scan: Scan, base: Term, path: str, ctype: CType) -> Term:
    types = scan.site.types
    assert types is not None
    rest: str | None = path
    while rest is not None:
        if not isinstance(ctype, Pointer):
            raise scan.refuse("NO_PTR_STRCT")
        ctype, arrow, bits, names = ctype.target, False, 0, []
        while rest is not None and not arrow:
            name, behind, arrow = _split(scan, rest)
            offset, width, ctype = _member(scan, types, ctype, name)
            bits += offset
            names.append(name)
            # the kernel adds the distance to the next field, of which the last has none
            scan.offset = UNTOLD if behind is None else scan.offset + len(rest) - len(behind)
            rest = behind
        scan.step()
        scan.last = MEMORY
        scan.type, scan.bit_offset, scan.bit_size = ctype, bits % 8, width
        base = Field(base, ".".join(names), bits, width)
    return base


def _member(scan: Scan, types: Types, ctype: CType, name: str) -> tuple[int, int, CType]:
    if not isinstance(ctype, Struct) or not ctype.size:
        raise scan.refuse("BAD_BTF_TID", number=EINVAL)
    member = types.member(ctype, name) if name else None
    if member is None:
        raise scan.refuse("NO_BTF_FIELD", number=ENOENT)
    return member.bit_offset, member.bit_size, member.type


def type_of(ctype: CType, word: str) -> str:
    """Return the fetch type that stands for *ctype*; empty where there is none (the default is taken).

    *word* is that of an address.
    """
    if isinstance(ctype, Enum):
        return "s64" if ctype.size == 8 else "s32"
    if isinstance(ctype, Pointer):
        return word
    if isinstance(ctype, Int):
        if ctype.size > 8:
            return "" if ctype.signed else "u64"
        return f"{'s' if ctype.signed else 'u'}{8 * ctype.size}"
    return ""


def is_characters(ctype: CType) -> bool:
    """Return whether *ctype* is an array of (unsigned) characters."""
    return isinstance(ctype, Array) and _is_character(ctype.element)


def points_at_characters(ctype: CType, character_ids: frozenset[int]) -> bool:
    """Return whether the kernel takes *ctype* for a pointer to (unsigned) characters: see `World.character_ids`."""
    if isinstance(ctype, Pointer):
        return _is_character(ctype.target)
    return isinstance(ctype, Int | Enum | Struct) and ctype.size in character_ids


def _is_character(ctype: CType) -> bool:
    return isinstance(ctype, Int) and ctype.size == 1 and not ctype.signed
