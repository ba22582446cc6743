"""What nodes work on: integer values, slots, and where in the source they come from."""

from __future__ import annotations

from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class IntType:
    """An integer of *bits* (1, 8, 16, 32 or 64); one bit is a truth value."""

    bits: int
    signed: bool

    def __str__(self) -> str:
        return "bool" if self.bits == 1 else f"{'i' if self.signed else 'u'}{self.bits}"


BOOL = IntType(1, False)
I64 = IntType(64, True)
U64 = IntType(64, False)
U32 = IntType(32, False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node comes from: *line* counts from 1, *column* from 0."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Value:
    """A single-assignment value; *number* is unique in its function."""

    number: int
    type: IntType

    def __str__(self) -> str:
        return f"%{self.number}"


@dataclass(frozen=True, slots=True)
class Slot:
    """A mutable local: an integer of *type*, or a byte buffer of *size* bytes where *type* is None.

    A byte buffer holds a NUL-terminated string, zero-filled behind its end.
    """

    name: str
    type: IntType | None
    size: int = 0


Operand = Value | Slot  # a Slot as operand is always a byte buffer

BINARY = frozenset(
    {"add", "sub", "mul", "div", "mod", "and", "or", "xor", "shl", "shr"}
)  # shr and div follow the type's sign
COMPARE = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})  # by the sign of the operands' type
SPACES = frozenset({"kernel", "user", "any"})  # any: decided at run time by the address
CONTEXTS = frozenset({"argument", "return", "register", "record", "function"})
