"""Nodes about maps."""

from __future__ import annotations

from kprobes.compiler.ir.values import Operand, Place, Slot, Value
from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class MapAdd:
    """Count: add *amount* under *key* (empty for a map without key), atomically."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    amount: Value


@dataclass(frozen=True, slots=True)
class MapSample:
    """Histogram: add *weight* to the bucket of *sample* (i64 or u64, by its type) under *key*, atomically."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    sample: Value
    weight: Value


@dataclass(frozen=True, slots=True)
class MapFold:
    """Min, Max, Avg: take *sample* (i64 or u64, by its type) in under *key*. To Min and Max what is above i64 is its
    highest value."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    sample: Value


@dataclass(frozen=True, slots=True)
class MapRead:
    """HashMap: look *key* up; *found* (bool) tells; integer results go to *to*, byte fields to *texts* (by field
    order, None in the other tuple's place). Missing: zeros. Array: the same, *key* is one index of 64 bits."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    found: Value
    to: tuple[Value | None, ...]
    texts: tuple[Slot | None, ...] = ()


@dataclass(frozen=True, slots=True)
class MapWrite:
    """HashMap and Array: store *values* (by field order) under *key*."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    values: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class MapBump:
    """HashMap and Array: add *amount* to the single integer field under *key*, starting from zero, atomically."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    amount: Value


@dataclass(frozen=True, slots=True)
class MapDelete:
    """HashMap: forget *key*; *found* (bool) tells whether it was there."""

    place: Place
    map: str
    key: tuple[Operand, ...]
    found: Value


@dataclass(frozen=True, slots=True)
class QueuePush:
    """Queue: append *values* (by field order)."""

    place: Place
    map: str
    values: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class QueuePop:
    """Queue: take the oldest value; *found*, *to* and *texts* as `MapRead` has them."""

    place: Place
    map: str
    found: Value
    to: tuple[Value | None, ...]
    texts: tuple[Slot | None, ...] = ()
