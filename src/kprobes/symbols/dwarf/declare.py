"""Entries back to C: a prototype as the source has it, typedefs and qualifiers kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.errors import FormatError
from kprobes.model.cnames import canonical_int_name
from kprobes.symbols.dwarf.numbers import At, Tag
from kprobes.symbols.dwarf.program import chain_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.symbols.dwarf.units import Entry

DEPTH_LIMIT = 32
NESTING_LIMIT = 2
SHOWN_PARAMETERS = 64
_SIGNS = {Tag.POINTER: "*", Tag.REFERENCE: "&", Tag.RVALUE_REFERENCE: "&&"}
_QUALIFIERS = {Tag.CONST: "const", Tag.VOLATILE: "volatile", Tag.RESTRICT: "restrict", Tag.ATOMIC: "_Atomic"}
_TAGS = {Tag.STRUCTURE: "struct ", Tag.CLASS: "class ", Tag.UNION: "union ", Tag.ENUMERATION: "enum "}


def declare_function(function: Entry, called: Callable[[Entry], str]) -> str:
    """Return `ssize_t read_all(int fd, void *buf)` for the function *function*; *called* tells the names of types.

    Raises:
        FormatError: the debug information is malformed.
    """
    chain = chain_of(function)
    owner = next((one for one in chain if At.ABSTRACT_ORIGIN not in one.values), chain[-1])
    typed = next((one for one in chain if At.TYPE in one.values), None)
    named = next((called(one) for one in chain[::-1] if At.NAME in one.values), "")
    inside = f"{named}({_parameters(owner, called, 0)})"
    return _declare(typed.entry(At.TYPE) if typed else None, inside, called, 0)


def _parameters(owner: Entry, called: Callable[[Entry], str], nesting: int) -> str:
    if nesting == NESTING_LIMIT:
        return "..."
    texts = []
    for child in owner.children():
        if child.tag == Tag.UNSPECIFIED_PARAMETERS:
            texts.append("...")
        if child.tag != Tag.PARAMETER or len(texts) > SHOWN_PARAMETERS:
            continue
        typed = next((one for one in chain_of(child) if At.TYPE in one.values), child)
        texts.append(_declare(typed.entry(At.TYPE), name_of(child), called, nesting + 1))
    return ", ".join(texts) or "void"


def _declare(entry: Entry | None, inside: str, called: Callable[[Entry], str], nesting: int) -> str:
    """Return the declaration of *inside* (a name with its own stars and brackets) as the type *entry*."""
    qualifiers: list[str] = []
    for _ in range(DEPTH_LIMIT):
        if entry is None:
            return _join([*qualifiers, "void"], inside)
        if entry.tag in _QUALIFIERS:
            qualifiers.append(_QUALIFIERS[Tag(entry.tag)])
        elif entry.tag in _SIGNS:
            sign = _SIGNS[Tag(entry.tag)]
            inside = _join([f"{sign}{' '.join(qualifiers)}"], inside) if qualifiers else f"{sign}{inside}"
            qualifiers = []
        elif entry.tag == Tag.ARRAY:
            inside = f"{_bracket(inside)}{_bounds(entry)}"
        elif entry.tag == Tag.SUBROUTINE_TYPE:
            inside = f"{_bracket(inside)}({_parameters(entry, called, nesting)})"
        else:
            return _join([*qualifiers, _base_name(entry, called)], inside)
        entry = entry.entry(At.TYPE)
    raise FormatError(f"a type of the debug information is nested more than {DEPTH_LIMIT} deep")


def _bounds(array: Entry) -> str:
    texts = []
    for child in array.children():
        if child.tag == Tag.SUBRANGE:
            count, bound = child.number(At.COUNT), child.number(At.UPPER_BOUND)
            texts.append(f"[{count if count is not None else '' if bound is None else bound + 1}]")
    return "".join(texts) or "[]"


def _bracket(inside: str) -> str:
    return f"({inside})" if inside.startswith(("*", "&")) else inside


def _base_name(entry: Entry, called: Callable[[Entry], str]) -> str:
    if entry.tag == Tag.BASE:
        return canonical_int_name(entry.name)
    name = called(entry)
    prefix = (
        "" if "::" in name or entry.tag == Tag.CLASS else _TAGS.get(Tag(entry.tag), "") if entry.tag in _TAGS else ""
    )
    return f"{prefix}{name or '(anonymous)'}"


def _join(words: list[str], inside: str) -> str:
    return " ".join([*words, inside]) if inside else " ".join(words)
