"""Event filters: `count > 100 && comm ~ "cat*"` becomes branches over the fields of the event.

Source: Documentation/trace/events.rst. Numbers are compared in the width and the sign of the field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.ir.nodes import BOOL, CompareText, FindText, IntType, MatchText, Place, Slot, Value
from kprobes.compiler.ir.rules import MOST_ELEMENTS
from kprobes.errors import UnsupportedError
from kprobes.grammar.filter import Both, Comparison, Either, Not
from kprobes.grammar.glob import elements_of, plain_parts

if TYPE_CHECKING:
    from kprobes.compiler.front.build import Builder, OpenBlock
    from kprobes.compiler.ir.nodes import Operand
    from kprobes.grammar.filter import Expression

# What every event has, by the names of our records; the others of the kernel's are of its own making.
OWN = {
    "common_pid": "_tid",
    "cpu": "_cpu",
    "CPU": "_cpu",
    "comm": "_comm",
    "COMM": "_comm",
    "__probe_ip": "_ip",
    "__probe_func": "_func",
    "__probe_ret_ip": "_ret",
}
_OPERATORS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_HERE = Place(1, 0)
_ANY = bytes(range(1, 256))


def names_of(condition: Expression | None) -> frozenset[str]:
    """Return the names of the fields that *condition* asks about."""
    if condition is None:
        return frozenset()
    if isinstance(condition, Comparison):
        return frozenset({condition.field.name})
    parts = (condition.inner,) if isinstance(condition, Not) else condition.parts
    return frozenset().union(*map(names_of, parts))


def judge(build: Builder, condition: Expression, fields: dict[str, Operand], ways: tuple[OpenBlock, OpenBlock]) -> None:
    """End the current block by *condition*: to the first of *ways* where it holds, else to the second. *fields* are
    known by the names that a filter has for them.

    Raises:
        UnsupportedError: it asks about what only the kernel's own events have.
    """
    yes, no = ways
    if isinstance(condition, Not):
        judge(build, condition.inner, fields, (no, yes))
        return
    if isinstance(condition, Comparison):
        build.branch(_HERE, _compared(build, condition, fields), yes, no)
        return
    for part in condition.parts[:-1]:
        following = build.new_block("next")
        judge(build, part, fields, (following, no) if isinstance(condition, Both) else (yes, following))
        build.place_block(following)
    assert isinstance(condition, Both | Either)
    judge(build, condition.parts[-1], fields, ways)


def _compared(build: Builder, one: Comparison, fields: dict[str, Operand]) -> Value:
    operand = fields.get(one.field.name)
    if operand is None:
        raise UnsupportedError(
            f"the field {one.field.name} can't be filtered by here", hint="--engine tracefs lets the kernel do it"
        )
    if isinstance(one.value, str):
        return _compared_text(build, one, operand)
    assert isinstance(operand, Value)
    kind = IntType(8 * one.field.size, one.field.signed)
    left, right = build.convert(_HERE, operand, kind), build.const(_HERE, one.value, kind)
    if one.operator == "&":
        return build.compare(_HERE, "ne", build.binary(_HERE, "and", left, right), build.const(_HERE, 0, kind))
    return build.compare(_HERE, _OPERATORS[one.operator], left, right)


def _compared_text(build: Builder, one: Comparison, operand: Operand) -> Value:
    assert isinstance(one.value, str)
    if not isinstance(operand, Slot):
        raise UnsupportedError(
            f"{one.field.name} is an address here, of which the kernel makes a name",
            hint="compare it as `symbol`, or let the kernel filter: --engine tracefs",
        )
    pattern = one.value
    if one.operator != "~":
        found = _equal(build, operand, pattern.encode("latin-1", "replace"))
        return build.negate(_HERE, found) if one.operator == "!=" else found
    inverted = pattern[:1] == "!"
    found = _matched(build, operand, pattern[inverted:], one.field.size if one.field.fixed else 0)
    return build.negate(_HERE, found) if inverted else found


def _matched(build: Builder, slot: Slot, pattern: str, size: int) -> Value:
    """Compare by *pattern*; *size* is that of the kernel's array of bytes, where that is fixed."""
    parts = plain_parts(pattern)
    if parts is None:
        return _matched_by_elements(build, slot, pattern)
    front, body, end = parts
    text = body.encode("latin-1", "replace")
    if not front and not end:
        return _equal(build, slot, text)
    if not text:
        return build.const(_HERE, 1, BOOL)
    if len(text) >= slot.size:
        return build.const(_HERE, 0, BOOL)
    to = build.value(BOOL)
    if front and size and not end:  # a text that fills all but the last byte
        build.add(MatchText(_HERE, to, slot, (_ANY,) * (size - 1 - len(text)) + tuple(bytes([one]) for one in text)))
    elif front:
        build.add(FindText(_HERE, to, slot, text, at_end=not end))
    else:
        build.add(CompareText(_HERE, to, slot, text, prefix=True))
    return to


def _matched_by_elements(build: Builder, slot: Slot, pattern: str) -> Value:
    elements = elements_of(pattern)
    if sum(map(bool, elements)) > MOST_ELEMENTS:
        raise UnsupportedError(
            f"the pattern {pattern!r} has more than {MOST_ELEMENTS} characters",
            hint="compare with less, or let the kernel filter: --engine tracefs",
        )
    to = build.value(BOOL)
    build.add(MatchText(_HERE, to, slot, elements))
    return to


def _equal(build: Builder, slot: Slot, text: bytes) -> Value:
    if len(text) >= slot.size:
        return build.const(_HERE, 0, BOOL)
    to = build.value(BOOL)
    build.add(CompareText(_HERE, to, slot, text))
    return to
