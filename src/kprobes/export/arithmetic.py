"""Operators on integers in C, with the results of the handler language: division rounds down, shifts are bounded."""

from __future__ import annotations

import ast

from kprobes.compiler.front import texts
from kprobes.compiler.front.terms import Number, Pointer
from kprobes.compiler.ir.nodes import U64
from kprobes.export import constants, expressions
from kprobes.export.unit import ATOM, BITS, PRODUCT, SHIFT, SUM, UNARY, Expression, Unit
from kprobes.frozen import replace

_BINARY: dict[type[ast.operator], tuple[str, int]] = {
    ast.Add: ("+", SUM), ast.Sub: ("-", SUM), ast.Mult: ("*", PRODUCT), ast.BitAnd: ("&", BITS),
    ast.BitOr: ("|", BITS), ast.BitXor: ("^", BITS),
}  # fmt: skip


def binary(unit: Unit, node: ast.BinOp) -> Expression:
    """Return an operator between integers, or a pointer and an integer."""
    term = unit.term(node)
    if texts.is_text(term):
        raise unit.refuse(node, "putting strings together", "emit them one by one")
    if isinstance(term, Pointer):
        operator = "+" if isinstance(node.op, ast.Add) else "-"
        left, right = expressions.value(unit, node.left), expressions.value(unit, node.right)
        return Expression(f"{left.within(SUM)} {operator} {right.within(PRODUCT)}", SUM, pointer=True, signed=False)
    left, right = expressions.number(unit, node.left), expressions.number(unit, node.right)
    found = arithmetic(unit, node, node.op, (left, node.left), (right, node.right))
    return replace(found, signed=term.value.type != U64) if isinstance(term, Number) else found


def arithmetic(
    unit: Unit,
    node: ast.AST,
    operator: ast.operator,
    left: tuple[Expression, ast.expr],
    right: tuple[Expression, ast.expr],
) -> Expression:
    """Return `left operator right` of integers."""
    one, other = left[0], right[0]
    fixed, known = (constants.is_literal(unit, side[1]) for side in (left, right))
    signed = (one.signed or fixed) and (other.signed or known) and (one.signed or other.signed)
    if isinstance(operator, ast.FloorDiv | ast.Mod):
        return _division(unit, operator, left, right)
    if isinstance(operator, ast.LShift | ast.RShift):
        sign = "<<" if isinstance(operator, ast.LShift) else ">>"
        narrow = one.signed and constants.is_literal(unit, left[1])
        shifted = Expression(f"(s64){one.within(UNARY)}", UNARY) if narrow else one
        count = other.within(SUM) if constants.is_literal(unit, right[1]) else f"({other.within(ATOM)} & 63)"
        return Expression(f"{shifted.within(SHIFT)} {sign} {count}", SHIFT, signed=shifted.signed)
    if type(operator) not in _BINARY:
        raise unit.refuse(node, "this operator", "integers take + - * // % & | ^ << >>")
    sign, binds = _BINARY[type(operator)]
    # compilers warn of what most readers don't know by heart: & and | get parentheses around all else
    tight = UNARY if binds == BITS else binds
    return Expression(
        f"{one.within(tight)} {sign} {other.within(tight if binds == BITS else binds - 1)}", binds, signed=signed
    )


def _division(
    unit: Unit,
    operator: ast.operator,
    left: tuple[Expression, ast.expr],
    right: tuple[Expression, ast.expr],
) -> Expression:
    """Return a division that rounds down; C's own where that is the same."""
    one, other = left[0], right[0]
    is_div = isinstance(operator, ast.FloorDiv)
    result = one.signed if is_div else other.signed
    positive = constants.lowest(unit, left[1]) >= 0 and constants.lowest(unit, right[1]) >= 0
    if positive and constants.is_literal(unit, right[1]):
        sign = "/" if is_div else "%"
        return Expression(f"{one.within(PRODUCT)} {sign} {other.within(UNARY)}", PRODUCT, signed=result)
    kind = "div" if is_div else "mod"
    if positive:
        helper = f"unsigned_{kind}"
    elif one.signed == other.signed:
        helper = f"floor_{kind}" if one.signed else f"unsigned_{kind}"
    else:
        helper = f"floor_{kind}_{'signed' if one.signed else 'unsigned'}"
    unit.use(helper)
    call = f"{helper}({one.text}, {other.text}, {unit.fault_address})"
    return Expression(f"(s64){call}", UNARY) if positive and result else Expression(call, signed=result)


def unary(unit: Unit, node: ast.UnaryOp) -> Expression:
    """Return a sign or `~` before an integer."""
    operand = expressions.number(unit, node.operand)
    sign = {ast.USub: "-", ast.Invert: "~", ast.UAdd: ""}[type(node.op)]
    if isinstance(node.op, ast.USub):
        inner = operand if operand.signed else Expression(f"(s64){operand.within(UNARY)}", UNARY)
        shown = inner.within(UNARY)
        return Expression(f"-{shown}" if not shown.startswith("-") else f"-({shown})", UNARY)
    return Expression(f"{sign}{operand.within(UNARY)}", UNARY, signed=operand.signed)
