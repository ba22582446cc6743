"""What a filter means: comparisons of an event's fields, joined, and how a record is judged by them."""

from __future__ import annotations

from kprobes.frozen import dataclass
from kprobes.grammar.glob import equals, matches_pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class FilterField:
    """A field of a record: *size* in bytes; *string* where it is text, *fixed* where that is in *size* bytes itself."""

    name: str
    size: int
    signed: bool = False
    string: bool = False
    fixed: bool = False


# What every event has, without a place in its record.
GENERIC = (
    FilterField("cpu", 4, signed=True),
    FilterField("CPU", 4, signed=True),
    FilterField("comm", 16, string=True, fixed=True),
    FilterField("COMM", 16, string=True, fixed=True),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`FIELD OPERATOR VALUE`. A string's *operator* is `==`, `!=` or `~`; *user* tells that the text is a process's."""

    field: FilterField
    operator: str
    value: int | str
    user: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    """`!(...)`."""

    inner: Expression


@dataclass(frozen=True, slots=True)
class Both:
    """`... && ...`."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """`... || ...`."""

    parts: tuple[Expression, ...]


Expression = Comparison | Not | Both | Either


def matches(expression: Expression | None, record: Mapping[str, int | str]) -> bool:
    """Return whether *record*, the values by field, passes; without an expression all do.

    A text in an array of fixed size may have with it what lies behind its NUL; else that is zeros.
    """
    if expression is None:
        return True
    if isinstance(expression, Not):
        return not matches(expression.inner, record)
    if isinstance(expression, Both):
        return all(matches(part, record) for part in expression.parts)
    if isinstance(expression, Either):
        return any(matches(part, record) for part in expression.parts)
    value = record[expression.field.name]
    if isinstance(expression.value, str):
        assert isinstance(value, str)
        return _compare_text(expression, value, expression.value)
    assert isinstance(value, int)
    field = expression.field
    left, right = _cut(value, field), _cut(expression.value, field)
    return _COMPARE[expression.operator](left, right)


_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "&": lambda left, right: left & right != 0,
}


def _compare_text(one: Comparison, value: str, wanted: str) -> bool:
    size = one.field.size if one.field.fixed else 0
    if one.operator == "~":
        return matches_pattern(wanted, value, size)
    return equals(value, wanted, size) == (one.operator == "==")


def _cut(value: int, field: FilterField) -> int:
    """Return *value* as the field's C type holds it."""
    bits = 8 * field.size
    value %= 1 << bits
    return value - (1 << bits) if field.signed and value >> (bits - 1) else value
