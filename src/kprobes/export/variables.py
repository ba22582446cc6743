"""Local variables of a handler in C."""

from __future__ import annotations

import ast

from kprobes.compiler.front.variables import IntVariable, PointerVariable, TextVariable, Variable, variable_for
from kprobes.compiler.ir.nodes import U64
from kprobes.export.headers import pointer_text
from kprobes.export.unit import Unit
from kprobes.model.ctype import Void


def declared(unit: Unit, name: str, variable: Variable | None, node: ast.AST) -> str:
    """Declare the local *name* in C, once; return its C name."""
    known = unit.locals.get(name)
    if known is not None:
        return known
    found = unit.local(name)
    unit.declare(f"{declaration(unit, variable, found, node)};")
    unit.locals[name] = found
    return found


def declaration(unit: Unit, variable: Variable | None, name: str, node: ast.AST) -> str:
    """Return the declaration of a *variable*.

    Raises:
        CompileError: it holds what C has no type for here.
    """
    if isinstance(variable, IntVariable):
        return f"{'u64' if variable.type == U64 else 's64'} {name}"
    if isinstance(variable, TextVariable):
        return f"char {name}[{variable.size}]"
    if isinstance(variable, PointerVariable):
        return f"{pointer_text(variable.target or Void())}{name}"
    raise unit.refuse(node, "a variable of this type", "keep integers, pointers and strings in variables")


def variable_of(unit: Unit, name: str, value: ast.expr | None = None) -> Variable | None:
    """Return the type of the local *name*, which is assigned *value* where nothing else is known."""
    found = unit.seen.variable(name)
    if found is None and value is not None:
        term = unit.seen.terms.get(value)
        found = variable_for(term) if term is not None else None
    return found
