"""BTF back to C: a prototype as the source has it, typedefs and qualifiers kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.errors import FormatError
from kprobes.model.cnames import canonical_int_name
from kprobes.symbols.btf import Kind

if TYPE_CHECKING:
    from kprobes.symbols.btf import Btf, Record

DEPTH_LIMIT = 32
NESTING_LIMIT = 2
_TAGS = {Kind.STRUCT: "struct ", Kind.UNION: "union ", Kind.ENUM: "enum ", Kind.ENUM64: "enum "}
_QUALIFIERS = {Kind.CONST: "const", Kind.VOLATILE: "volatile", Kind.RESTRICT: "restrict"}


def declare_function(btf: Btf, function: Record) -> str:
    """Return `ssize_t vfs_read(struct file *file, char *buf, ...)` for a FUNC record.

    Raises:
        FormatError: the BTF is malformed.
    """
    proto = btf.record(function.value)
    return _declare(btf, proto.value, f"{btf.string(function.name_offset)}({_parameters(btf, proto, 0)})", 0)


def _parameters(btf: Btf, proto: Record, nesting: int) -> str:
    if nesting == NESTING_LIMIT:
        return "..."
    pairs = [(proto.words[2 * i], proto.words[2 * i + 1]) for i in range(min(proto.vlen, len(proto.words) // 2))]
    texts = [
        "..." if pair == (0, 0) else _declare(btf, pair[1], btf.string(pair[0]), nesting + 1) for pair in pairs[:64]
    ]
    return ", ".join(texts) or "void"


def _declare(btf: Btf, type_id: int, inside: str, nesting: int) -> str:
    """Return the declaration of *inside* (a name with its own stars and brackets) as type *type_id*."""
    qualifiers: list[str] = []
    tags: list[str] = []
    for _ in range(DEPTH_LIMIT):
        if type_id == 0:
            return _join([*qualifiers, "void", *tags], inside)
        record = btf.record(type_id)
        if record.kind in _QUALIFIERS:
            qualifiers.append(_QUALIFIERS[record.kind])
        elif record.kind == Kind.TYPE_TAG:
            tags.append(f"__{btf.string(record.name_offset)}")
        elif record.kind == Kind.PTR:
            inside = _join([f"*{' '.join(qualifiers)}"], inside) if qualifiers else f"*{inside}"
            qualifiers = []
        elif record.kind == Kind.ARRAY:
            inside = f"{_bracket(inside)}[{record.words[2]}]"
        elif record.kind == Kind.FUNC_PROTO:
            inside = f"{_bracket(inside)}({_parameters(btf, record, nesting)})"
        else:
            return _join([*qualifiers, _base_name(btf, record), *tags], inside)
        type_id = record.words[0] if record.kind == Kind.ARRAY else record.value
    raise FormatError(f"a BTF type is nested more than {DEPTH_LIMIT} deep")


def _bracket(inside: str) -> str:
    return f"({inside})" if inside.startswith("*") else inside


def _base_name(btf: Btf, record: Record) -> str:
    name = btf.string(record.name_offset)
    if record.kind == Kind.FWD:
        return f"{'union' if record.flag else 'struct'} {name}"
    if record.kind == Kind.INT:
        return canonical_int_name(name)
    return f"{_TAGS.get(record.kind, '')}{name or '(anonymous)'}"


def _join(words: list[str], inside: str) -> str:
    return " ".join([*words, inside]) if inside else " ".join(words)
