"""Expressions of a handler in C. What each one is, and which types it has, the compiler's front has found out before.

Integers are computed with in 64 bits, as in the handler language: what is narrower is widened where it is read.
Whatever has no counterpart is refused at its place.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kprobes.compiler.front import texts
from kprobes.compiler.front.terms import Constant, Nothing, Number, Pointer
from kprobes.compiler.ir.nodes import U64
from kprobes.export import arithmetic, calls, comparisons, constants, memory, strings
from kprobes.export.unit import AND, CHOICE, OR, UNARY, Expression, Unit
from kprobes.frozen import replace

if TYPE_CHECKING:
    from collections.abc import Callable


def value(unit: Unit, node: ast.expr) -> Expression:
    """Return *node* as an expression of C.

    Raises:
        CompileError: it has no counterpart.
    """
    if isinstance(node, ast.Compare):
        return comparisons.comparison(unit, node)
    if isinstance(node, ast.BoolOp):
        return _boolean(unit, node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return Expression(f"!{truth(unit, node.operand).within(UNARY)}", UNARY)
    if isinstance(node, ast.Name):
        return _name(unit, node)
    if isinstance(node, ast.Call):
        return calls.call(unit, node)
    term = unit.seen.terms.get(node)
    if isinstance(term, Nothing):
        return Expression("NULL", pointer=True)
    if isinstance(term, Constant) and not constants.is_open(unit, node):
        return constants.literal(term.value)
    make = _EXPRESSIONS.get(type(node))
    if make is None:
        raise unit.refuse(node, "this expression", "take it apart with statements")
    return make(unit, node)


def number(unit: Unit, node: ast.expr) -> Expression:
    """Return *node* as an integer of 64 bits."""
    found, term = value(unit, node), unit.seen.terms.get(node)
    if isinstance(term, Number) and term.kind == "bool" and not isinstance(node, ast.Name):
        return widened(replace(found, wide=False))  # C's comparisons are an int
    return widened(found)


def widened(found: Expression) -> Expression:
    """Return *found* in 64 bits."""
    if found.pointer:
        return Expression(f"(u64){found.within(UNARY)}", UNARY, signed=False)
    if found.wide:
        return found
    return Expression(f"(s64){found.within(UNARY)}", UNARY)


def truth(unit: Unit, node: ast.expr) -> Expression:
    """Return *node* as a condition."""
    term = unit.seen.terms.get(node)
    if term is not None and texts.is_text(term):
        return Expression(f"{strings.text(unit, node)}[0]")
    if isinstance(term, Nothing):
        return constants.literal(0)
    return value(unit, node)


def _name(unit: Unit, node: ast.Name) -> Expression:
    if node.id in unit.locals:
        return _local(unit, node, unit.locals[node.id])
    setting = constants.setting_in(unit, node)
    if setting is not None:
        name = unit.shared.setting_of(setting)
        return Expression(f"READ_ONCE({name})") if setting.kind == "int" else Expression(name)
    term = unit.term(node)
    if isinstance(term, Constant):
        return constants.literal(term.value)
    if isinstance(term, Nothing):
        return Expression("NULL", pointer=True)
    return calls.word(unit, node, node.id)


def _local(unit: Unit, node: ast.Name, name: str) -> Expression:
    term = unit.seen.terms.get(node)
    if isinstance(term, Pointer):
        return Expression(name, pointer=True, signed=False)
    if isinstance(term, Number):
        return Expression(name, signed=term.value.type != U64)
    return Expression(name)


def _choice(unit: Unit, node: ast.IfExp) -> Expression:
    term = unit.term(node)
    if not isinstance(term, Number | Pointer | Constant):
        raise unit.refuse(node, "a choice of strings", "write an if with a statement on each side")
    condition = truth(unit, node.test)
    unit.conditional += 1
    make = value if isinstance(term, Pointer) else number
    one, other = make(unit, node.body), make(unit, node.orelse)
    unit.conditional -= 1
    signed = not (isinstance(term, Number) and term.value.type == U64)
    first = one.within(OR)
    if first.lstrip("-").isdigit():
        first += "LL"  # of two small literals C makes an int
    shown = f"{condition.within(OR)} ? {first} : {other.within(OR)}"
    return Expression(shown, CHOICE, signed=signed, pointer=isinstance(term, Pointer))


def _boolean(unit: Unit, node: ast.BoolOp) -> Expression:
    term = unit.seen.terms.get(node)
    if isinstance(term, Number) and term.kind != "bool":
        raise unit.refuse(node, "and, or of anything but truth values", "write an if")
    sign, binds = ("&&", AND) if isinstance(node.op, ast.And) else ("||", OR)
    parts = []
    for index, one in enumerate(node.values):
        unit.conditional += index > 0
        found = truth(unit, one)
        unit.conditional -= index > 0
        parts.append(found.text if found.binds < AND or found.binds == binds else f"({found.text})")
    return Expression(f" {sign} ".join(parts), binds)


_EXPRESSIONS: dict[type[ast.expr], Callable[..., Expression]] = {
    ast.Attribute: memory.attribute,
    ast.Subscript: memory.subscript,
    ast.BinOp: arithmetic.binary,
    ast.UnaryOp: arithmetic.unary,
    ast.IfExp: _choice,
}
