"""The integers of handlers in plain Python: `i64` and `u64`, with the rules of docs/language.md.

A plain int is a literal: it takes the type of the other side. Results wrap at 64 bits, comparisons are mathematical,
`//` and `%` round down, and division by zero gives 0 and counts as a fault.
"""

from __future__ import annotations

import operator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.testing.world import World

# The world of the handler that runs, for what an operator alone can't know: where faults are counted.
RUNNING: ContextVar[World | None] = ContextVar("kprobes.testing", default=None)
_WORD = (1 << 64) - 1
_I64_MAX = (1 << 63) - 1


def fault() -> None:
    """Raise the fault flag of the hit that runs."""
    world = RUNNING.get()
    if world is not None:
        world.fault = True


class Word(int):
    """An integer of 64 bits."""

    signed: ClassVar[bool] = True

    def __new__(cls, value: int = 0) -> Self:
        """Return *value* wrapped to 64 bits."""
        value = int.__index__(value) & _WORD
        return super().__new__(cls, value - (1 << 64) if cls.signed and value >> 63 else value)

    def __neg__(self) -> Word:
        return i64(-int(self))

    def __pos__(self) -> Word:
        return self

    def __abs__(self) -> Word:
        return type_of(self)(abs(int(self)))

    def __invert__(self) -> Word:
        return type_of(self)(~int(self))

    def __floordiv__(self, other: Any) -> Any:
        return _divide("div", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _divide("div", other, self)

    def __mod__(self, other: Any) -> Any:
        return _divide("mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return _divide("mod", other, self)

    def __lshift__(self, other: Any) -> Any:
        return _shift(operator.lshift, self, other)

    def __rlshift__(self, other: Any) -> Any:
        return _shift(operator.lshift, other, self)

    def __rshift__(self, other: Any) -> Any:
        return _shift(operator.rshift, self, other)

    def __rrshift__(self, other: Any) -> Any:
        return _shift(operator.rshift, other, self)


class i64(Word):  # noqa: N801 - as handlers and C call it
    """A signed integer of 64 bits."""


class u64(Word):  # noqa: N801
    """An unsigned integer of 64 bits."""

    signed = False


class Truth(i64):
    """A truth value that a comparison gave: a number where one is wanted."""

    def __str__(self) -> str:
        return str(bool(self))

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(bool(self), spec)


class Shown(u64):
    """An integer that is shown in hexadecimal."""

    def __str__(self) -> str:
        return f"{int(self):#x}"

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)


def type_of(value: int) -> type[Word]:
    """Return the type in which *value* is computed with; a literal beyond i64 is a u64."""
    if isinstance(value, Word):
        return i64 if value.signed else u64
    return i64 if value <= _I64_MAX else u64


def keep(value: Any) -> Any:
    """Return *value* as a local holds it: integers have 64 bits."""
    if type(value) is int:
        return type_of(value)(value)
    if isinstance(value, tuple):
        return tuple(map(keep, value))
    return value


def _is_literal(value: object) -> bool:
    return type(value) is int and value <= _I64_MAX


def common(left: int, right: int) -> type[Word]:
    """Return the type of a result of both: that of the other side of a literal, u64 if one is."""
    if _is_literal(left):
        return type_of(right)
    if _is_literal(right):
        return type_of(left)
    return u64 if u64 in (type_of(left), type_of(right)) else i64


def _divide(op: str, left: Any, right: Any) -> Any:
    if not isinstance(left, int) or not isinstance(right, int):
        return NotImplemented
    side, other = (left, right) if op == "div" else (right, left)
    kind = type_of(other) if _is_literal(side) and side >= 0 else type_of(side)
    if right == 0:
        fault()
        return kind(0)
    return kind(int(left) // int(right) if op == "div" else int(left) % int(right))


def _shift(shift: Callable[[int, int], int], left: Any, right: Any) -> Any:
    if not isinstance(left, int) or not isinstance(right, int):
        return NotImplemented
    return type_of(left)(shift(int(left), int(right) % 64))


def _define(name: str, compute: Callable[[int, int], int]) -> None:
    def forward(self: Word, other: Any) -> Any:
        return common(self, other)(compute(int(self), int(other))) if isinstance(other, int) else NotImplemented

    def backward(self: Word, other: Any) -> Any:
        return common(other, self)(compute(int(other), int(self))) if isinstance(other, int) else NotImplemented

    setattr(Word, f"__{name}__", forward)
    setattr(Word, f"__r{name}__", backward)


def _define_comparison(name: str) -> None:
    compare = getattr(int, f"__{name}__")

    def compared(self: Word, other: Any) -> Any:
        found = compare(self, other)
        return found if found is NotImplemented else Truth(found)

    setattr(Word, f"__{name}__", compared)


Word.__hash__ = int.__hash__  # type: ignore[method-assign]
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _define_comparison(_name)
for _name in ("add", "sub", "mul", "and", "or", "xor"):
    _define(_name, getattr(operator, f"__{_name}__"))


def least(*values: Any) -> Any:
    """Return `min(...)` as handlers have it."""
    return _extreme(min, values)


def most(*values: Any) -> Any:
    """Return `max(...)` as handlers have it."""
    return _extreme(max, values)


def _extreme(choose: Callable[..., Any], values: tuple[Any, ...]) -> Any:
    found = values[0] if len(values) == 1 and isinstance(values[0], tuple) else values
    best = found[0]
    for value in found[1:]:
        mixed = isinstance(best, Word) and isinstance(value, Word) and type_of(best) != type_of(value)
        kind = i64 if mixed and choose is min else common(best, value)
        chosen = choose(best, value)
        best = chosen if _is_literal(best) and _is_literal(value) else kind(chosen)
    return best
