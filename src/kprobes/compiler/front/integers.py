"""Integer arithmetic and comparison: what the operators of Python mean on i64 and u64.

- Mixed i64 and u64 give u64; a literal takes the type of the other side. Results wrap at 64 bits.
- `//` and `%` round as Python's do, also between i64 and u64; `//` has the type of its left side, `%` of its right one.
- Comparisons are those of mathematics: an i64 of -1 is less than any u64.
"""

from __future__ import annotations

import ast

from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.division import divide
from kprobes.compiler.front.terms import (
    I64_MAX,
    I64_MIN,
    U64_MAX,
    Constant,
    Nothing,
    Number,
    Pointer,
    Term,
    describe,
    integer,
    limits,
    ranged,
)
from kprobes.compiler.ir.nodes import BOOL, I64, U64, IntType, Place, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.front.context import Context

OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.FloorDiv: "div",
    ast.Mod: "mod",
    ast.LShift: "shl",
    ast.RShift: "shr",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Is: "eq",
    ast.IsNot: "ne",
}
SWAPPED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le", "eq": "eq", "ne": "ne"}


# From terms to values.


def number(ctx: Context, node: ast.AST, term: Term, what: str = "this") -> Number:
    """Return *term* as an i64 or u64 number.

    Raises:
        CompileError: it is no integer, or a literal beyond 64 bits.
    """
    place = ctx.place(node)
    if isinstance(term, Constant):
        if not I64_MIN <= term.value <= U64_MAX:
            raise ctx.error(node, f"{term.value} does not fit into 64 bits", "integers go from -2**63 to 2**64 - 1")
        kind = I64 if term.value <= I64_MAX else U64
        value = ctx.build.const(place, term.value, kind)
        return Number(value, term.kind if kind == I64 else "uint", term.value, term.value)
    if isinstance(term, Number):
        if term.value.type == BOOL:
            return Number(ctx.build.convert(place, term.value, I64), term.kind, 0, 1)
        return term
    if isinstance(term, Pointer) and not term.embedded:
        return Number(address(ctx, node, term), "hex", 0, U64_MAX)
    raise ctx.error(node, f"{what} must be an integer, but it is {describe(term)}", _hint_for(term))


def _hint_for(term: Term) -> str:
    if isinstance(term, Pointer) and term.embedded:
        return "name one of its fields"
    return advice(term)


def address(ctx: Context, node: ast.AST, term: Term) -> Value:
    """Return *term* as an address (u64)."""
    place = ctx.place(node)
    if isinstance(term, Nothing):
        return ctx.build.const(place, 0, U64)
    if isinstance(term, Pointer):
        if not term.offset:
            return term.base
        return ctx.build.binary(place, "add", term.base, ctx.build.const(place, term.offset, U64))
    return wide(ctx, node, term, U64)


def wide(ctx: Context, node: ast.AST, term: Term, kind: IntType) -> Value:
    """Return *term* as an i64 or u64 value, wrapped where it doesn't fit."""
    if isinstance(term, Constant) and I64_MIN <= term.value <= U64_MAX:
        return ctx.build.const(ctx.place(node), term.value, kind)
    return ctx.build.convert(ctx.place(node), number(ctx, node, term).value, kind)


def narrow(ctx: Context, node: ast.AST, term: Term, kind: IntType) -> Value:
    """Return *term* as a value of *kind*, cut to its width."""
    if kind.bits == 64:
        return wide(ctx, node, term, kind)
    if isinstance(term, Constant):
        return ctx.build.const(ctx.place(node), term.value, kind)
    return ctx.build.convert(ctx.place(node), number(ctx, node, term).value, kind)


# Arithmetic.


def fold(ctx: Context, node: ast.AST, operator: ast.operator, left: int, right: int) -> Constant:
    """Compute with two literals as Python does."""
    try:
        if isinstance(operator, ast.Pow) and abs(left) > 1 and not 0 <= right <= 64:
            raise ctx.error(node, "this power does not fit into 64 bits", "integers go from -2**63 to 2**64 - 1")
        if isinstance(operator, ast.LShift) and right > 64:
            raise ctx.error(node, "this shift does not fit into 64 bits", "shift counts go from 0 to 63")
        return Constant(_FOLD[type(operator)](left, right))
    except ZeroDivisionError:
        raise ctx.error(node, "division by zero", "divide by something else") from None
    except ValueError:
        raise ctx.error(node, "negative shift count", "shift the other way") from None


_FOLD: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.LShift: lambda a, b: a << b,
    ast.RShift: lambda a, b: a >> b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.Pow: lambda a, b: int(a**b),
}


def arithmetic(ctx: Context, node: ast.AST, op: str, left: Term, right: Term) -> Number:
    """Return `left op right` for integers of which at least one is known at run time only."""
    if op in ("shl", "shr"):
        return _shift(ctx, node, op, left, right)
    one, other = number(ctx, node, left), number(ctx, node, right)
    place = ctx.place(node)
    if op in ("div", "mod"):
        if other.low == other.high == 0:
            raise ctx.error(node, "division by zero", "divide by something else")
        return divide(ctx, place, op, (one, other), _type_of_division(op, (left, one), (right, other)))
    kind = _common_type(left, right, one, other)
    first, second = ctx.build.convert(place, one.value, kind), ctx.build.convert(place, other.value, kind)
    return ranged(ctx.build.binary(place, op, first, second), _range(op, one, other))


def _common_type(left: Term, right: Term, one: Number, other: Number) -> IntType:
    if isinstance(left, Constant) and left.value <= I64_MAX:
        return other.value.type
    if isinstance(right, Constant) and right.value <= I64_MAX:
        return one.value.type
    return U64 if U64 in (one.value.type, other.value.type) else I64


def _type_of_division(op: str, left: tuple[Term, Number], right: tuple[Term, Number]) -> IntType:
    """Return the type of the left side for `//`, which is no larger, and of the right one for `%`, likewise."""
    (term, side), (_, other) = (left, right) if op == "div" else (right, left)
    adapts = isinstance(term, Constant) and 0 <= term.value <= I64_MAX
    return other.value.type if adapts else side.value.type


def _range(op: str, left: Number, right: Number) -> tuple[int, int] | None:
    """Return the range of the result as far as it is worth knowing, before it wraps."""
    if op == "add":
        return left.low + right.low, left.high + right.high
    if op == "sub":
        return left.low - right.high, left.high - right.low
    if op == "mul" and left.low >= 0 and right.low >= 0:
        return left.low * right.low, left.high * right.high
    if op == "and" and (left.low >= 0 or right.low >= 0):
        return 0, min(side.high for side in (left, right) if side.low >= 0)
    if op in ("or", "xor") and left.low >= 0 and right.low >= 0:
        return 0, (1 << max(left.high, right.high).bit_length()) - 1
    return None


def _shift(ctx: Context, node: ast.AST, op: str, left: Term, right: Term) -> Number:
    one = number(ctx, node, left)
    if isinstance(right, Constant) and not 0 <= right.value < 64:
        raise ctx.error(node, f"a shift by {right.value} bits", "shift counts go from 0 to 63")
    place = ctx.place(node)
    count = wide(ctx, node, right, one.value.type)
    result = ctx.build.binary(place, op, one.value, count)
    known = None
    if isinstance(right, Constant):
        scale = 1 << right.value
        known = (one.low * scale, one.high * scale) if op == "shl" else (one.low // scale, one.high // scale)
    elif op == "shr" and one.low >= 0:
        known = (0, one.high)
    return ranged(result, known)


def negative(ctx: Context, node: ast.AST, term: Term) -> Term:
    """Return `-term`, an i64."""
    if isinstance(term, Constant):
        return Constant(-term.value)
    place = ctx.place(node)
    value = wide(ctx, node, term, I64)
    return integer(ctx.build.binary(place, "sub", ctx.build.const(place, 0, I64), value))


def inverted(ctx: Context, node: ast.AST, term: Term) -> Term:
    """Return `~term`."""
    if isinstance(term, Constant):
        return Constant(~term.value)
    one = number(ctx, node, term)
    place = ctx.place(node)
    return integer(ctx.build.binary(place, "xor", one.value, ctx.build.const(place, -1, one.value.type)))


# Comparison and truth.


def compare(ctx: Context, node: ast.AST, op: str, left: Term, right: Term) -> Term:
    """Return the truth of `left op right` for integers, by their mathematical values."""
    if isinstance(left, Constant) and isinstance(right, Constant):
        return Constant(int(_FOLD_COMPARE[op](left.value, right.value)), "bool")
    if isinstance(left, Constant):
        return compare(ctx, node, SWAPPED[op], right, left)
    one = number(ctx, node, left)
    place = ctx.place(node)
    if isinstance(right, Constant):
        low, high = limits(one.value.type)
        if not low <= right.value <= high:
            return Constant(int(_FOLD_COMPARE[op](0, right.value)), "bool")
        literal = ctx.build.const(place, right.value, one.value.type)
        return _truth(ctx.build.compare(place, op, one.value, literal))
    other = number(ctx, node, right)
    return _truth(_compare_values(ctx, place, op, one, other))


_FOLD_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def _compare_values(ctx: Context, place: Place, op: str, left: Number, right: Number) -> Value:
    build = ctx.build
    if left.value.type == right.value.type:
        return build.compare(place, op, left.value, right.value)
    if left.value.type == U64:
        return _compare_values(ctx, place, SWAPPED[op], right, left)
    plain = build.compare(place, op, build.convert(place, left.value, U64), right.value)
    if left.low >= 0:
        return plain
    # A negative i64 on the left: less than any u64.
    if op in ("lt", "le", "ne"):
        sign = build.compare(place, "lt", left.value, build.const(place, 0, I64))
        return _both(ctx, place, "or", sign, plain)
    sign = build.compare(place, "ge", left.value, build.const(place, 0, I64))
    return _both(ctx, place, "and", sign, plain)


def _both(ctx: Context, place: Place, op: str, left: Value, right: Value) -> Value:
    one, other = ctx.build.convert(place, left, I64), ctx.build.convert(place, right, I64)
    return ctx.build.convert(place, ctx.build.binary(place, op, one, other), BOOL)


def _truth(value: Value) -> Number:
    return Number(value, "bool", 0, 1)


def compare_addresses(ctx: Context, node: ast.AST, op: str, left: Term, right: Term) -> Term:
    """Return the truth of `left op right` where at least one side is a pointer; None is the null pointer."""
    for side, other in ((left, right), (right, left)):
        if isinstance(side, Pointer) and side.embedded and isinstance(other, Nothing):
            return Constant(int(op == "ne"), "bool")
    if isinstance(left, Nothing) and isinstance(right, Nothing):
        return Constant(int(op in ("eq", "le", "ge")), "bool")
    first, second = address(ctx, node, left), address(ctx, node, right)
    return _truth(ctx.build.compare(ctx.place(node), op, first, second))


def truth(ctx: Context, node: ast.AST, term: Term) -> Value:
    """Return the truth of an integer or pointer: whether it is other than zero."""
    place = ctx.place(node)
    if isinstance(term, Constant):
        return ctx.build.const(place, int(term.value != 0), BOOL)
    if isinstance(term, Pointer | Nothing):
        if isinstance(term, Pointer) and term.embedded:
            return ctx.build.const(place, 1, BOOL)
        return ctx.build.convert(place, address(ctx, node, term), BOOL)
    if isinstance(term, Number) and term.value.type == BOOL:
        return term.value
    return ctx.build.convert(place, number(ctx, node, term).value, BOOL)
