"""Nodes about integers, slots and the fault flag."""

from __future__ import annotations

from kprobes.compiler.ir.values import Place, Slot, Value
from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Const:
    """`to = value`, which fits the type."""

    place: Place
    to: Value
    value: int


@dataclass(frozen=True, slots=True)
class Binary:
    """`to = left op right`; all three of one type, not bool."""

    place: Place
    to: Value
    op: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Compare:
    """`to = left op right`; *to* is bool, the operands are of one type."""

    place: Place
    to: Value
    op: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Convert:
    """Change the type: truncate, extend by the sign of the *source's* type, or (to bool) compare with zero."""

    place: Place
    to: Value
    source: Value


@dataclass(frozen=True, slots=True)
class ReadSlot:
    """`to = slot` (an integer slot; zero before the first write)."""

    place: Place
    to: Value
    slot: Slot


@dataclass(frozen=True, slots=True)
class WriteSlot:
    """`slot = source` of the same type."""

    place: Place
    slot: Slot
    source: Value


@dataclass(frozen=True, slots=True)
class Fault:
    """Raise the hit's fault flag and go on: a `while` ran past its bound."""

    place: Place


@dataclass(frozen=True, slots=True)
class Faulted:
    """`to` (bool) = whether the hit's fault flag is up by now."""

    place: Place
    to: Value
