"""`//` and `%` of i64 and u64 in any mixture, rounded down as Python does. Division by zero gives 0.

The IR divides values of one type; old BPF knows unsigned division only. So the cheapest of several ways is taken, by
what is known of both sides.
"""

from __future__ import annotations

from kprobes.compiler.front.terms import Number, ranged
from kprobes.compiler.ir.nodes import I64, U64, IntType, Place, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.front.context import Context


def divide(ctx: Context, place: Place, op: str, sides: tuple[Number, Number], kind: IntType) -> Number:
    """Return the quotient (*op* `div`) or the rest (`mod`) of *sides* as a value of type *kind*."""
    left, right = sides
    known = _range(op, left, right)
    if left.low >= 0 and right.low >= 0:
        value = _alike(ctx, place, op, sides, U64)
    elif right.low == right.high and right.low & (right.low - 1) == 0 and right.low > 0:
        value = _by_power(ctx, place, op, left.value, right.low)
    elif left.value.type == right.value.type:
        value = _alike(ctx, place, op, sides, left.value.type)
    elif left.value.type == I64:
        value = _signed_by_unsigned(ctx, place, op, left.value, right.value)
    else:
        value = _unsigned_by_signed(ctx, place, op, left.value, right.value)
    return ranged(ctx.build.convert(place, value, kind), known)


def _range(op: str, left: Number, right: Number) -> tuple[int, int] | None:
    if right.low <= 0:
        return None
    if op == "mod":
        return 0, right.high - 1
    return min(left.low, left.low // right.low), max(left.high // right.low, 0)


def _alike(ctx: Context, place: Place, op: str, sides: tuple[Number, Number], kind: IntType) -> Value:
    left, right = (ctx.build.convert(place, side.value, kind) for side in sides)
    return ctx.build.binary(place, op, left, right)


def _by_power(ctx: Context, place: Place, op: str, left: Value, divisor: int) -> Value:
    """An arithmetic shift rounds down as Python does, and a mask gives the rest, also of negative numbers."""
    by = divisor.bit_length() - 1 if op == "div" else divisor - 1
    return ctx.build.binary(place, "shr" if op == "div" else "and", left, ctx.build.const(place, by, left.type))


def _signed_by_unsigned(ctx: Context, place: Place, op: str, left: Value, right: Value) -> Value:
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
        return build.convert(place, quotient, I64)
    product = build.binary(place, "mul", quotient, right)
    rest = build.binary(place, "sub", build.convert(place, left, U64), product)
    return build.binary(place, "and", rest, mask)


def _unsigned_by_signed(ctx: Context, place: Place, op: str, left: Value, right: Value) -> Value:
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
        return build.convert(place, quotient, I64)
    product = build.binary(place, "mul", quotient, build.convert(place, right, U64))
    rest = build.binary(place, "and", build.binary(place, "sub", left, product), mask)
    return build.convert(place, rest, I64)
