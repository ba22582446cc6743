"""Comparisons in C, which are those of mathematics: a negative number is less than any without sign."""

from __future__ import annotations

import ast

from kprobes.compiler.front import texts
from kprobes.compiler.front.terms import I64_MAX, I64_MIN, U64_MAX, Constant, Nothing, Pointer
from kprobes.export import constants, expressions, maps, strings
from kprobes.export.unit import AND, EQUALITY, OR, RELATION, SHIFT, UNARY, Expression, Unit

_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Is: "==",
    ast.IsNot: "!=",
}  # fmt: skip
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def comparison(unit: Unit, node: ast.Compare) -> Expression:
    """Return a comparison, also a chain of them."""
    operands = [node.left, *node.comparators]
    if len(node.ops) > 1 and not all(is_simple(unit, one) for one in operands[1:-1]):
        raise unit.refuse(node, "a chain with a computed value in its middle", "give the value a name first")
    links = []
    for index, operator in enumerate(node.ops):
        unit.conditional += index > 0
        links.append(_link(unit, node, operator, operands[index], operands[index + 1]))
        unit.conditional -= index > 0
    if len(links) == 1:
        return links[0]
    return Expression(" && ".join(one.within(EQUALITY) for one in links), AND)


def is_simple(unit: Unit, node: ast.expr) -> bool:
    """Return whether *node* may be written twice: a name or a constant."""
    return isinstance(node, ast.Name | ast.Constant) or constants.is_literal(unit, node)


def _link(unit: Unit, node: ast.AST, operator: ast.cmpop, left: ast.expr, right: ast.expr) -> Expression:
    if isinstance(operator, ast.In | ast.NotIn):
        return _contained(unit, node, left, right, negated=isinstance(operator, ast.NotIn))
    one, other = unit.seen.terms.get(left), unit.seen.terms.get(right)
    sign = _COMPARE[type(operator)]
    if (one is not None and texts.is_text(one)) or (other is not None and texts.is_text(other)):
        unit.include("linux/string.h")
        return Expression(f"strcmp({strings.text(unit, left)}, {strings.text(unit, right)}) {sign} 0", EQUALITY)
    if isinstance(one, Nothing) or isinstance(other, Nothing):
        found = expressions.value(unit, right if isinstance(one, Nothing) else left)
        return Expression(f"{found.within(RELATION)} {sign} NULL", EQUALITY)
    if isinstance(one, Pointer) or isinstance(other, Pointer):
        casted = [f"(void *){expressions.value(unit, side).within(UNARY)}" for side in (left, right)]
        return Expression(f"{casted[0]} {sign} {casted[1]}", EQUALITY)
    return _integers(unit, node, sign, left, right)


def _integers(unit: Unit, node: ast.AST, sign: str, left: ast.expr, right: ast.expr) -> Expression:
    """Compare as mathematics does: a negative number is less than any without sign."""
    binds = EQUALITY if sign in ("==", "!=") else RELATION
    mirrored = _MIRRORED.get(sign, sign)
    one, other = _beside(unit, left, right), _beside(unit, right, left)
    for where, value_, operator in ((right, one, sign), (left, other, mirrored)):
        term = unit.seen.terms.get(where)
        low, high = (I64_MIN, I64_MAX) if value_.signed else (0, U64_MAX)
        if isinstance(term, Constant) and constants.is_literal(unit, where) and not low <= term.value <= high:
            # beyond all that the other side can be
            return _beyond(unit, value_, operator, term.value)
    fixed = [constants.is_literal(unit, left), constants.is_literal(unit, right)]
    if (
        one.signed == other.signed
        or (fixed[0] and constants.lowest(unit, left) >= 0)
        or (fixed[1] and constants.lowest(unit, right) >= 0)
    ):
        return Expression(f"{one.within(SHIFT)} {sign} {other.within(SHIFT)}", binds)
    if not one.signed:
        return _integers(unit, node, mirrored, right, left)
    if constants.lowest(unit, left) >= 0:
        return Expression(f"(u64){one.within(UNARY)} {sign} {other.within(SHIFT)}", binds)
    if not (is_simple(unit, left) and is_simple(unit, right)):  # both sides are read, whatever the first one is
        unit.use("order")
        return Expression(f"order({one.text}, {other.text}) {sign} 0", binds)
    if sign in ("<", "<=", "!="):
        return Expression(f"{one.within(SHIFT)} < 0 || (u64){one.within(UNARY)} {sign} {other.within(SHIFT)}", OR)
    return Expression(f"{one.within(SHIFT)} >= 0 && (u64){one.within(UNARY)} {sign} {other.within(SHIFT)}", AND)


def _beyond(unit: Unit, found: Expression, operator: str, limit: int) -> Expression:
    """Compare *found* with what is beyond all that it can be; it is computed only where that can be a fault."""
    if "fault" not in found.text:
        holds = ("<", "<=", "!=") if limit > 0 else (">", ">=", "!=")
        return constants.literal(int(operator in holds))
    unit.use("order")
    fixed = constants.literal(limit).text
    if found.signed:
        return Expression(f"order({found.text}, {fixed}) {operator} 0", RELATION)
    return Expression(f"order({fixed}, {found.text}) {_MIRRORED.get(operator, operator)} 0", RELATION)


def _beside(unit: Unit, node: ast.expr, other: ast.expr) -> Expression:
    """Return *node* for a comparison with *other*; what is narrow may stay so beside a small literal."""
    found = expressions.value(unit, node)
    term = unit.seen.terms.get(other)
    small = isinstance(term, Constant) and 0 <= term.value <= constants.LARGEST_INT
    if small and constants.is_literal(unit, other) and not found.pointer:
        return found
    return expressions.widened(found)


def _contained(unit: Unit, node: ast.AST, left: ast.expr, right: ast.expr, *, negated: bool) -> Expression:
    found, map_ = unit.seen.terms.get(right), maps.named(unit, right)
    if map_ is not None:
        shown = maps.has(unit, node, map_, left)
    elif found is not None and texts.is_text(found):
        unit.include("linux/string.h")
        shown = Expression(f"strstr({strings.text(unit, right)}, {strings.text(unit, left)})")
    elif isinstance(right, ast.Tuple | ast.List | ast.Set) and is_simple(unit, left):
        links = [_link(unit, node, ast.Eq(), left, item) for item in right.elts]
        shown = Expression(" || ".join(one.within(EQUALITY) for one in links), OR if len(links) > 1 else EQUALITY)
    else:
        raise unit.refuse(node, "this `in`", "give the left side a name, and write the tuple out: x in (1, 2)")
    return Expression(f"!{shown.within(UNARY)}", UNARY) if negated else shown
