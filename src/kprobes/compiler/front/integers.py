"""Integer arithmetic and comparison: what the operators of Python mean on i64 and u64.

- Mixed i64 and u64 give u64; a literal takes the type of the other side. Results wrap at 64 bits.
- `//` and `%` round as Python's do, also between i64 and u64.
- Comparisons are those of mathematics: an i64 of -1 is less than any u64.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

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
)
from kprobes.compiler.ir.nodes import BOOL, I64, U64, IntType, Place, Value

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
            raise ctx.error(node, f"{term.value} does not fit into 64 bits")
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
    return ""


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
            raise ctx.error(node, "this power does not fit into 64 bits")
        if isinstance(operator, ast.LShift) and right > 64:
            raise ctx.error(node, "this shift does not fit into 64 bits")
        return Constant(_FOLD[type(operator)](left, right))
    except ZeroDivisionError:
        raise ctx.error(node, "division by zero") from None
    except ValueError:
        raise ctx.error(node, "negative shift count") from None


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
    if op in ("div", "mod"):
        return _divide(ctx, node, op, one, other)
    kind = _common_type(left, right, one, other)
    place = ctx.place(node)
    first, second = ctx.build.convert(place, one.value, kind), ctx.build.convert(place, other.value, kind)
    return _ranged(ctx.build.binary(place, op, first, second), _range(op, one, other))


def _common_type(left: Term, right: Term, one: Number, other: Number) -> IntType:
    if isinstance(left, Constant) and left.value <= I64_MAX:
        return other.value.type
    if isinstance(right, Constant) and right.value <= I64_MAX:
        return one.value.type
    return U64 if U64 in (one.value.type, other.value.type) else I64


def _ranged(value: Value, known: tuple[int, int] | None) -> Number:
    low, high = limits(value.type)
    if known and low <= known[0] and known[1] <= high:
        low, high = known
    return Number(value, "int" if value.type.signed else "uint", low, high)


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
    return _ranged(result, known)


def _divide(ctx: Context, node: ast.AST, op: str, left: Number, right: Number) -> Number:
    """Divide; both sides get one type where that keeps their values."""
    if right.low == right.high == 0:
        raise ctx.error(node, "division by zero")
    if left.low >= 0 and right.low >= 0:
        return _divide_unsigned(ctx, ctx.place(node), op, left, right)
    if right.low == right.high and right.low > 0 and right.low & (right.low - 1) == 0:
        return _divide_by_power(ctx, ctx.place(node), op, left, right.low)
    for kind in (I64, U64):
        low, high = limits(kind)
        if low <= left.low and left.high <= high and low <= right.low and right.high <= high:
            return _divide_alike(ctx, ctx.place(node), op, left, right, kind)
    if left.value.type == I64:
        return _divide_signed_by_unsigned(ctx, ctx.place(node), op, left.value, right.value)
    return _divide_unsigned_by_signed(ctx, ctx.place(node), op, left.value, right.value)


def _divide_alike(ctx: Context, place: Place, op: str, left: Number, right: Number, kind: IntType) -> Number:
    build = ctx.build
    result = build.binary(place, op, build.convert(place, left.value, kind), build.convert(place, right.value, kind))
    known = None
    if right.low > 0:
        if op == "mod":
            known = (0, right.high - 1)
        else:
            known = (min(left.low, left.low // right.low), max(left.high // right.low, 0))
    return _ranged(result, known)


def _divide_unsigned(ctx: Context, place: Place, op: str, left: Number, right: Number) -> Number:
    """Divide where neither side is negative: unsigned division is the cheaper one, and the only one of old BPF."""
    quotient = _divide_alike(ctx, place, op, left, right, U64)
    if U64 in (left.value.type, right.value.type):
        return quotient
    return Number(ctx.build.convert(place, quotient.value, I64), "int", quotient.low, min(quotient.high, I64_MAX))


def _divide_by_power(ctx: Context, place: Place, op: str, left: Number, divisor: int) -> Number:
    """An arithmetic shift rounds down as Python does, and a mask gives the rest, also of negative numbers."""
    by = divisor.bit_length() - 1 if op == "div" else divisor - 1
    operator = "shr" if op == "div" else "and"
    value = ctx.build.binary(place, operator, left.value, ctx.build.const(place, by, left.value.type))
    known = (left.low // divisor, left.high // divisor) if op == "div" else (0, divisor - 1)
    return _ranged(value, known)


def _divide_signed_by_unsigned(ctx: Context, place: Place, op: str, left: Value, right: Value) -> Number:
    """floor(a / b) for a < 0 < b is ~(~a / b), so both signs are served by xor with the sign. By zero gives 0."""
    build = ctx.build
    sign = build.binary(place, "shr", left, build.const(place, 63, I64))
    flip = build.convert(place, sign, U64)
    dividend = build.binary(place, "xor", build.convert(place, left, U64), flip)
    divisible = build.convert(place, build.compare(place, "ne", right, build.const(place, 0, U64)), U64)
    mask = build.binary(place, "sub", build.const(place, 0, U64), divisible)
    quotient = build.binary(place, "xor", build.binary(place, "div", dividend, right), flip)
    quotient = build.binary(place, "and", quotient, mask)
    if op == "div":
        return integer(build.convert(place, quotient, I64))
    product = build.binary(place, "mul", quotient, right)
    rest = build.binary(place, "sub", build.convert(place, left, U64), product)
    return integer(build.binary(place, "and", rest, mask))


def _divide_unsigned_by_signed(ctx: Context, place: Place, op: str, left: Value, right: Value) -> Number:
    """Divide by the absolute value; with a negative divisor the quotient is that of the ceiling, negated."""
    build = ctx.build
    sign = build.convert(place, build.binary(place, "shr", right, build.const(place, 63, I64)), U64)
    flipped = build.binary(place, "xor", build.convert(place, right, U64), sign)
    absolute = build.binary(place, "sub", flipped, sign)
    quotient = build.binary(place, "div", left, absolute)
    rest = build.binary(place, "sub", left, build.binary(place, "mul", quotient, absolute))
    zero = build.const(place, 0, U64)
    uneven = build.convert(place, build.compare(place, "ne", rest, zero), U64)
    divisible = build.convert(place, build.compare(place, "ne", absolute, zero), U64)
    mask = build.binary(place, "sub", zero, divisible)
    ceiling = build.binary(place, "add", quotient, build.binary(place, "and", uneven, sign))
    quotient = build.binary(place, "sub", build.binary(place, "xor", ceiling, sign), sign)
    quotient = build.binary(place, "and", quotient, mask)
    if op == "div":
        return integer(build.convert(place, quotient, I64))
    product = build.binary(place, "mul", quotient, build.convert(place, right, U64))
    rest = build.binary(place, "and", build.binary(place, "sub", left, product), mask)
    return integer(build.convert(place, rest, I64))


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
