"""What the language says an expression is worth, by Python's own integers: the other side of a differential test.

A value is `(kind, number)`, where *kind* is `lit` (a literal, of any size), `i64`, `u64` or `bool`.
"""

from __future__ import annotations

import ast
import itertools
import operator

Value = tuple[str, int]

_EXACT = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.LShift: operator.lshift, ast.RShift: operator.rshift,
}  # fmt: skip
_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
I64_MAX, U64_MAX = (1 << 63) - 1, (1 << 64) - 1


class RefusedError(Exception):
    """The compiler refuses this expression."""


def wrap(kind: str, number: int) -> Value:
    number &= U64_MAX
    if kind == "i64" and number > I64_MAX:
        number -= 1 << 64
    return kind, number


def settle(value: Value) -> Value:
    """Give a literal or a truth value its type where it stands alone."""
    kind, number = value
    if kind == "lit":
        if not -(1 << 63) <= number <= U64_MAX:
            raise RefusedError
        return ("i64" if number <= I64_MAX else "u64"), number
    return ("i64", number) if kind == "bool" else value


def evaluate(node: ast.expr, names: dict[str, Value]) -> Value:
    return _RULES[type(node)](node, names)


def _binary(node: ast.BinOp, names: dict[str, Value]) -> Value:
    left, right = evaluate(node.left, names), evaluate(node.right, names)
    op = type(node.op)
    exact = _EXACT[op]
    if left[0] == right[0] == "lit":
        if (op in (ast.FloorDiv, ast.Mod) and right[1] == 0) or (
            op in (ast.LShift, ast.RShift) and not 0 <= right[1] <= 64
        ):
            raise RefusedError
        return "lit", exact(left[1], right[1])
    if op in (ast.LShift, ast.RShift):
        if right[0] == "lit" and not 0 <= right[1] < 64:
            raise RefusedError
        kind, number = settle(left)
        settle(right)
        return wrap(kind, exact(number, right[1] & 63))
    if op in (ast.FloorDiv, ast.Mod):
        return _divide(op, left, right)
    return wrap(_common(left, right), exact(settle(left)[1], settle(right)[1]))


def _divide(op: type, left: Value, right: Value) -> Value:
    if right == ("lit", 0):
        raise RefusedError
    own, other = (left, right) if op is ast.FloorDiv else (right, left)
    adapts = own[0] == "lit" and 0 <= own[1] <= I64_MAX
    kind = settle(other if adapts else own)[0]
    dividend, divisor = settle(left)[1], settle(right)[1]
    return wrap(kind, _EXACT[op](dividend, divisor) if divisor else 0)


def _common(left: Value, right: Value) -> str:
    for side, other in ((left, right), (right, left)):
        if side[0] == "lit" and side[1] <= I64_MAX:
            settle(side)
            return settle(other)[0]
    return "u64" if "u64" in (settle(left)[0], settle(right)[0]) else "i64"


def _unary(node: ast.UnaryOp, names: dict[str, Value]) -> Value:
    value = evaluate(node.operand, names)
    kind, number = value
    if isinstance(node.op, ast.Not):
        return ("lit" if kind == "lit" else "bool"), int(not number)
    if kind == "lit":
        return "lit", {ast.USub: -number, ast.UAdd: number, ast.Invert: ~number}[type(node.op)]
    kind, number = settle(value)
    if isinstance(node.op, ast.UAdd):
        return kind, number
    return wrap("i64", -number) if isinstance(node.op, ast.USub) else wrap(kind, ~number)


def _compare(node: ast.Compare, names: dict[str, Value]) -> Value:
    sides = [evaluate(one, names) for one in (node.left, *node.comparators)]
    for side, other in itertools.pairwise(sides):
        if (side[0] == "lit") != (other[0] == "lit"):
            settle(side), settle(other)
    pairs = zip(node.ops, itertools.pairwise(sides), strict=True)
    result = all(_COMPARE[type(op)](one[1], other[1]) for op, (one, other) in pairs)
    literal = all(side[0] == "lit" for side in sides)
    return ("lit" if literal else "bool"), int(result)


def _choice(node: ast.IfExp, names: dict[str, Value]) -> Value:
    test = evaluate(node.test, names)
    if isinstance(node.test, ast.Constant):  # chosen when compiled
        return evaluate(node.body if test[1] else node.orelse, names)
    yes, no = settle(evaluate(node.body, names)), settle(evaluate(node.orelse, names))
    kind = "u64" if "u64" in (yes[0], no[0]) else "i64"
    return wrap(kind, (yes if test[1] else no)[1])


_RULES = {
    ast.Constant: lambda node, names: ("lit", int(node.value)),
    ast.Name: lambda node, names: names[node.id],
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.Compare: _compare,
    ast.IfExp: _choice,
}
