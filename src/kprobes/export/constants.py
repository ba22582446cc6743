"""What is known when a module is written: literals, and settings, which are known only when it is loaded."""

from __future__ import annotations

import ast

from kprobes.compiler.front.terms import Constant, Number
from kprobes.export.unit import UNARY, Expression, Unit
from kprobes.model.setting import Setting

LARGEST_INT = (1 << 31) - 1


def literal(value: int) -> Expression:
    """Return an integer constant."""
    if value < 0:
        text = f"{value}LL" if value < -LARGEST_INT else str(value)
        return Expression(text if value != -(1 << 63) else "S64_MIN", UNARY)
    suffix = "" if value <= LARGEST_INT else "LL" if value < 1 << 63 else "ULL"
    return Expression(f"{value}{suffix}", signed=value < 1 << 63)


def setting_in(unit: Unit, node: ast.AST) -> Setting | None:
    """Return the setting that *node* names, if it is one."""
    if isinstance(node, ast.Name) and node.id not in unit.locals:
        found = unit.seen.text.source.names.get(node.id)
        return found if isinstance(found, Setting) else None
    return None


def is_open(unit: Unit, node: ast.AST) -> bool:
    """Return whether *node* is computed at each hit, whatever the compiler knows of it: it depends on a setting, or
    calls a function, which may do something besides."""
    for one in ast.walk(node):
        if isinstance(one, ast.Name) and (one.id in unit.unsettled or setting_in(unit, one) is not None):
            return True
        if one in unit.seen.calls:
            return True
    return False


def is_literal(unit: Unit, node: ast.expr) -> bool:
    """Return whether *node* is a constant, not one of the module's parameters."""
    return isinstance(unit.seen.terms.get(node), Constant) and not is_open(unit, node)


def lowest(unit: Unit, node: ast.expr) -> int:
    """Return the least that *node* can be, -1 where that isn't known."""
    if is_open(unit, node):
        return -1
    term = unit.seen.terms.get(node)
    return term.value if isinstance(term, Constant) else term.low if isinstance(term, Number) else -1
