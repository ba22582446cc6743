"""Tracepoint records: a tracefs `format` file -> fields with C types and places.

    field:unsigned short common_type;	offset:0;	size:2;	signed:0;
    field:__data_loc char[] name;	offset:24;	size:4;	signed:0;

A `__data_loc` field holds, in 32 bits, where its data lies in the record (low half) and how long it is (high half);
with `__rel_loc` that place counts from the end of the field itself.
"""

from __future__ import annotations

import re

from kprobes.errors import FormatError, SymbolNotFoundError, UsageError
from kprobes.frozen import dataclass
from kprobes.model.cnames import CHAR, builtin_type
from kprobes.model.ctype import Array, CType, Enum, Int, Pointer, Void, sizeof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.ctype import Types
    from kprobes.model.facts import Facts

FIELD_LIMIT = 512
_FIELD = re.compile(
    r"^\s*field:(?P<text>[^;]{1,400});\s*offset:(?P<offset>\d{1,9});\s*size:(?P<size>\d{1,9});"
    r"(?:\s*signed:(?P<signed>-?\d);)?",
    re.MULTILINE,
)
_DECLARATION = re.compile(r"(?P<type>.*?[\s*])(?P<name>\w+)(?P<array>(?:\s*\[[^\]]*\])*)\Z", re.DOTALL)
_LOCATIONS = {"__data_loc": "data", "__rel_loc": "relative"}
_QUALIFIERS = re.compile(r"\b(?:volatile|__user|__rcu|restrict)\b")


@dataclass(frozen=True, slots=True)
class RecordField:
    """One field at *offset*, *size* bytes, of a tracepoint's record.

    *type* is the C type as far as it is known: an integer of that size otherwise. It may be narrower than *size*: an
    `int` argument of a system call lies in 8 bytes, of which the first 4 count. *location* is empty for a field that
    holds its value, `data` or `relative` for one that says where its array lies (see the module's text); *type* is then
    that array, of an unknown count (0).
    """

    name: str
    type: CType
    offset: int
    size: int
    signed: bool
    location: str = ""

    @property
    def is_common(self) -> bool:
        """Return whether every tracepoint has it (`common_pid` ...)."""
        return self.name.startswith("common_")

    @property
    def is_string(self) -> bool:
        """Return whether it is text, inside the record."""
        return isinstance(self.type, Array) and self.type.element == CHAR


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """A tracepoint as its `format` file tells: *id* for perf, and the *fields* of its record."""

    category: str
    name: str
    id: int
    fields: tuple[RecordField, ...]
    print_format: str = ""

    @property
    def size(self) -> int:
        """Return the size of the fixed part of its record."""
        return max((field.offset + field.size for field in self.fields), default=0)

    def field(self, name: str) -> RecordField | None:
        """Return the field *name*, or None."""
        return next((field for field in self.fields if field.name == name), None)


def load_tracepoint(text: str, facts: Facts, types: Types | None = None) -> Tracepoint:
    """Return the tracepoint spelled *text* (`category:name` or `category/name`).

    Raises:
        UsageError: the spelling is off.
        SymbolNotFoundError: the kernel has no such tracepoint.
        FormatError: its format file is malformed.
    """
    match = re.fullmatch(r"([\w.-]+)[:/]([\w.-]+)", text)
    if match is None or ".." in text:
        raise UsageError(f"{text!r} is no tracepoint", hint="write category:name, as in sched:sched_switch")
    content = facts.text(f"format:{match[1]}/{match[2]}")
    if content is None:
        raise SymbolNotFoundError(
            text,
            thing="tracepoint",
            where="this kernel",
            hint=f"`kprobes list 't:{match[1]}:*'` shows those of {match[1]}",
        )
    return parse_format(content, category=match[1], types=types)


def parse_format(content: str, *, category: str = "", types: Types | None = None) -> Tracepoint:
    """Return the tracepoint that the `format` file *content* describes; *types* give sense to struct names.

    Raises:
        FormatError: it isn't such a file.
    """
    name = re.search(r"^name:\s*(\S+)", content, re.MULTILINE)
    number = re.search(r"^ID:\s*(\d{1,9})\s*$", content, re.MULTILINE)
    matches = list(_FIELD.finditer(content))
    if name is None or not matches or len(matches) > FIELD_LIMIT:
        raise FormatError("this is no tracepoint format", hint="it should begin with `name:` and have `field:` lines")
    fields = tuple(_parse_field(match, types) for match in matches)
    shown = re.search(r"^print fmt:\s*(.*)", content, re.MULTILINE)
    return Tracepoint(category, name[1], int(number[1]) if number else 0, fields, shown[1] if shown else "")


def _parse_field(match: re.Match[str], types: Types | None) -> RecordField:
    declaration = _DECLARATION.match(match["text"].strip())
    if declaration is None:
        raise FormatError(f"malformed field in a tracepoint format: {match['text'][:80]!r}")
    offset, size, signed = int(match["offset"]), int(match["size"]), match["signed"] not in (None, "0")
    words = _QUALIFIERS.sub(" ", declaration["type"]).split()
    location = _LOCATIONS.get(words[0], "") if words else ""
    spelled = " ".join(words[1:] if location else words)
    name = declaration["name"]
    if location:
        element = _named(spelled.replace("[]", ""), types) or CHAR
        return RecordField(name, Array(element, 0), offset, size, signed, location)
    return RecordField(name, _plain_type(spelled, declaration["array"], size, (signed, types)), offset, size, signed)


def _plain_type(spelled: str, array: str, size: int, rest: tuple[bool, Types | None]) -> CType:
    """Return the type of a field that holds its value; the size the format gives has the last word."""
    signed, types = rest
    base = _named(spelled, types)
    if array or spelled.endswith("]"):
        element = _named(re.sub(r"\s*\[[^\]]*\]", "", spelled), types) or CHAR
        each = sizeof(element) or 1
        return Array(element, size // each)
    if base is not None and sizeof(base) == size:
        return base
    if isinstance(base, Int | Enum) and base.size < size:
        return base
    if size in (1, 2, 4, 8):
        return Int(f"{'s' if signed else 'u'}{size * 8}", size, signed)
    return Array(Int("unsigned char", 1, False), size)


def _named(spelled: str, types: Types | None) -> CType | None:
    plain = re.sub(r"\bconst\b", " ", spelled)
    constant = plain != spelled
    plain = plain.strip()
    if plain.endswith("*"):
        target = _named(plain[:-1], types) if plain.count("*") < 4 else None
        return Pointer(target if target is not None else Void(), const=constant)
    found = builtin_type(plain)
    return found if found is not None or types is None else types.typename(plain)
