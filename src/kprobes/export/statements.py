"""Statements of a handler in C."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.compiler.front.scan import is_yield
from kprobes.compiler.front.terms import Constant, Literal, Map
from kprobes.compiler.front.variables import IntVariable, Variable, variable_for
from kprobes.compiler.ir.nodes import U64
from kprobes.export import arithmetic, calls, constants, expressions, functions, maps, printing, strings, variables
from kprobes.export.cnaming import c_string, comment_text
from kprobes.export.unit import AND, Expression, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def run(unit: Unit, body: Sequence[ast.stmt]) -> None:
    """Write the statements of *body*.

    Raises:
        CompileError: one has no counterpart in C.
    """
    for statement in body:
        make = _STATEMENTS.get(type(statement))
        if make is None or is_yield(statement):
            what = "this yield" if is_yield(statement) else f"`{type(statement).__name__.lower()}`"
            raise unit.refuse(statement, what, "a yield stands on the top level of the handler; use if, for and while")
        unit.statement = statement
        make(unit, statement)


def is_reached(unit: Unit, body: Sequence[ast.stmt]) -> bool:
    """Return whether the compiler has come to *body*: what constants rule out has no facts."""
    known = unit.seen.terms
    plain = (ast.Return, ast.Pass, ast.Break, ast.Continue)
    return any(node in known for one in body for node in ast.walk(one)) or all(isinstance(one, plain) for one in body)


def _assign(unit: Unit, node: ast.Assign) -> None:
    if len(node.targets) != 1:
        raise unit.refuse(node, "several targets at once", "one assignment a line")
    assign_to(unit, node.targets[0], node.value)


def _annotated(unit: Unit, node: ast.AnnAssign) -> None:
    if node.value is not None:
        assign_to(unit, node.target, node.value)


def assign_to(unit: Unit, target: ast.expr, value: ast.expr) -> None:
    """Write `target = value`."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        names = {one.id for one in target.elts if isinstance(one, ast.Name)}
        used = {one.id for part in value.elts for one in ast.walk(part) if isinstance(one, ast.Name)}
        if not names & used:
            for one, part in zip(target.elts, value.elts, strict=True):
                assign_to(unit, one, part)
            return
    if isinstance(target, ast.Subscript):
        owner = maps.named(unit, target.value)
        if isinstance(owner, Map):
            maps.write(unit, target, owner, target.slice, expressions.number(unit, value).text, add=False)
            return
    if not isinstance(target, ast.Name):
        raise unit.refuse(target, "assigning to this", "assign to a name, or to an element of a HashMap")
    term = unit.seen.terms.get(value)
    if isinstance(term, Map):
        raise unit.refuse(value, "another name for a map", "use the map by its own name")
    variable = variables.variable_of(unit, target.id, value)
    found = None if strings.is_string(term) else expressions.value(unit, value)
    name = variables.declared(unit, target.id, variable, target)
    if found is None:
        strings.fill(unit, value, name)
    else:
        unit.line(f"{name} = {_fitting(variable, found)};")


def _fitting(variable: Variable | None, found: Expression) -> str:
    """Return *found* for the type of *variable*."""
    if isinstance(variable, IntVariable) and found.pointer:
        return expressions.widened(found).text
    return found.text


def _augmented(unit: Unit, node: ast.AugAssign) -> None:
    if isinstance(node.target, ast.Subscript) and isinstance(node.target.value, ast.Name):
        owner = maps.named(unit, node.target.value)
        if isinstance(owner, Map) and isinstance(node.op, ast.Add | ast.Sub):
            amount = expressions.number(unit, node.value)
            shown = amount.text if isinstance(node.op, ast.Add) else f"-{amount.within(1)}"
            maps.write(unit, node, owner, node.target.slice, shown, add=True)
            return
    if not isinstance(node.target, ast.Name) or node.target.id not in unit.locals:
        raise unit.refuse(node, "this assignment", "assign to a name, or to an element of a HashMap")
    name = unit.locals[node.target.id]
    variable = variables.variable_of(unit, node.target.id)
    if not isinstance(variable, IntVariable):
        raise unit.refuse(node, "this assignment", "integers can be added to")
    left = Expression(name, signed=variable.type != U64)
    load = ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target)
    found = arithmetic.arithmetic(unit, node, node.op, (left, load), (expressions.number(unit, node.value), node.value))
    plain = f"{name} "
    if found.text.startswith(plain) and found.text[len(plain)] in "+-*&|^" and found.text[len(plain) + 1] == " ":
        unit.line(f"{name} {found.text[len(plain)]}= {found.text[len(plain) + 2 :]};")
    else:
        unit.line(f"{name} = {found.text};")


# Control.


def _if(unit: Unit, node: ast.If) -> None:
    body, otherwise = is_reached(unit, node.body), bool(node.orelse) and is_reached(unit, node.orelse)
    decided = isinstance(unit.seen.terms.get(node.test), Constant) or not is_reached(unit, [ast.Expr(node.test)])
    if decided or (not body) or (node.orelse and not otherwise):
        # A constant decides: only one side was compiled, and only that one is written.
        if any(one in unit.seen.calls for one in ast.walk(node.test)):
            raise unit.refuse(
                node.test, "calling a function to find what is known before", "call it in a statement before"
            )
        unit.line(f"/* {comment_text(ast.unparse(node.test))} was decided when this was exported */")
        if body and not (decided and isinstance(unit.seen.terms.get(node.test), Constant) and not _is_true(unit, node)):
            run(unit, node.body)
        elif node.orelse:
            run(unit, node.orelse)
        return
    _branch(unit, node, "if")


def _is_true(unit: Unit, node: ast.If) -> bool:
    term = unit.seen.terms.get(node.test)
    return isinstance(term, Constant) and bool(term.value)


def _branch(unit: Unit, node: ast.If, word: str) -> None:
    unit.statement = node  # of an `elif` it is its own condition that has an order
    unit.line(f"{word} ({expressions.truth(unit, node.test).text}) {{")
    _nested(unit, node.body)
    if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        inner = node.orelse[0]
        reached = is_reached(unit, inner.body) and (not inner.orelse or is_reached(unit, inner.orelse))
        unit.statement = inner
        if reached and _is_plain(unit, inner.test):
            _branch(unit, inner, "} else if")
            return
    if node.orelse:
        unit.line("} else {")
        _nested(unit, node.orelse)
    unit.line("}")


def _is_plain(unit: Unit, test: ast.expr) -> bool:
    """Return whether *test* takes no statements before it, for which `else if` has no place."""
    body, declared = len(unit.body), len(unit.declared)
    expressions.truth(unit, test)
    plain = len(unit.body) == body
    del unit.body[body:], unit.declared[declared:]
    return plain


def _nested(unit: Unit, body: Sequence[ast.stmt]) -> None:
    unit.depth += 1
    run(unit, body)
    unit.depth -= 1


def _for(unit: Unit, node: ast.For) -> None:
    name = calls.word_of(unit, node.iter) if isinstance(node.iter, ast.Call) else ""
    if name != "range" or not isinstance(node.target, ast.Name) or node.orelse:
        raise unit.refuse(node, "this loop", "for i in range(n), without else")
    assert isinstance(node.iter, ast.Call)
    given = node.iter.args
    first = given[0] if len(given) > 1 else None
    last = given[1] if len(given) > 1 else given[0]
    step = unit.seen.terms.get(given[2]) if len(given) > 2 else Constant(1)
    if not isinstance(step, Constant) or step.value == 0:
        raise unit.refuse(node, "a loop with a computed step", "a step that is known: range(0, n, 2)")
    counter = unit.local("turn")
    unit.declare(f"s64 {counter};")
    begin = expressions.number(unit, first).text if first is not None else "0"
    end = expressions.number(unit, last)
    if not end.signed and not constants.is_literal(unit, last):
        raise unit.refuse(last, "a bound without sign", "make it signed: int(n)")
    limit = end.within(4)
    if not constants.is_literal(unit, last):
        limit = unit.local("end")
        unit.declare(f"s64 {limit};")
        unit.line(f"{limit} = {end.text};")
    sign, move = ("<", f"{counter}++") if step.value == 1 else ("<", f"{counter} += {step.value}")
    if step.value < 0:
        sign, move = ">", f"{counter} -= {-step.value}"
    target = variables.declared(
        unit, node.target.id, variables.variable_of(unit, node.target.id) or variable_for(Constant(0)), node.target
    )
    unit.line(f"for ({counter} = {begin}; {counter} {sign} {limit}; {move}) {{")
    unit.depth += 1
    unit.line(f"{target} = {counter};")
    run(unit, node.body)
    unit.depth -= 1
    unit.line("}")


def _while(unit: Unit, node: ast.While) -> None:
    if node.orelse:
        raise unit.refuse(node, "else of a loop", "test what ended the loop behind it")
    most = unit.seen.turns.get(node, 0)
    counter = unit.local("turns")
    unit.declare(f"unsigned int {counter};")
    before = len(unit.body)
    condition = expressions.truth(unit, node.test)
    if len(unit.body) != before:
        raise unit.refuse(node.test, "reading a string in the condition of a loop", "read it in the body, and break")
    unit.line(f"for ({counter} = 0; {counter} < {most} && {condition.within(AND)}; {counter}++) {{")
    _nested(unit, node.body)
    unit.line("}")
    unit.fail(f"{counter} == {most}")


def _return(unit: Unit, node: ast.Return) -> None:
    if unit.result is not None:
        functions.leave(unit, node)
        return
    if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        raise unit.refuse(node, "a handler that returns a value", "write return alone")
    if unit.kind == "entry":
        unit.line("ignored = 1; /* its return is not looked at */")
    unit.line("goto out;")
    unit.needs_out = True


def _assert(unit: Unit, node: ast.Assert) -> None:
    if unit.result is not None:
        raise unit.refuse(node, "an assert in a function", "write it into the handler, which it ends")
    condition = expressions.truth(unit, node.test)
    source = unit.seen.text
    message = unit.seen.terms.get(node.msg) if node.msg is not None else None
    told = f": {message.text}" if isinstance(message, Literal) else ""
    name = Path(source.source.file).name
    variable = unit.shared.assertion(f"{name}:{source.place(node).line}: {source.segment(node.test)}{told}")
    unit.acts = True
    unit.line(f"if (!{condition.within(1)}) {{")
    unit.line(f"\tassertion_failed(&{variable});")
    if unit.kind == "entry":
        unit.line("\tignored = 1; /* its return is not looked at */")
    unit.line("\tgoto out;")
    unit.line("}")
    unit.needs_out = True


def _word(text: str) -> Callable[[Unit, ast.stmt], None]:
    def write(unit: Unit, _node: ast.stmt) -> None:
        if text:
            unit.line(text)

    return write


def _delete(unit: Unit, node: ast.Delete) -> None:
    for target in node.targets:
        owner = maps.named(unit, target.value) if isinstance(target, ast.Subscript) else None
        if not isinstance(owner, Map) or not isinstance(target, ast.Subscript):
            raise unit.refuse(target, "deleting this", "del m[key] of a HashMap")
        maps.delete(unit, target, owner)


# Effects.


def _expression(unit: Unit, node: ast.Expr) -> None:
    call = node.value
    if isinstance(call, ast.Constant):
        return  # a docstring
    if not isinstance(call, ast.Call):
        raise unit.refuse(node, "this statement")
    if isinstance(call.func, ast.Attribute):
        owner = maps.named(unit, call.func.value)
        if isinstance(owner, Map) and call.func.attr == "add":
            maps.add(unit, call, owner)
            return
        if isinstance(owner, Map) and call.func.attr == "pop":
            unit.line(f"{calls.call(unit, call).text};")
            return
    if call in unit.seen.calls:
        functions.run(unit, call)
        return
    name = calls.word_of(unit, call)
    if name not in ("emit", "log"):
        raise unit.refuse(node, f"calling {ast.unparse(call.func)}", "write what it does into the handler")
    if len(call.args) == 1 and isinstance(call.args[0], ast.JoinedStr):
        printing.log(unit, call.args[0])
    elif name == "log":
        term = unit.seen.terms.get(call.args[0]) if call.args else None
        if not isinstance(term, Literal):
            raise unit.refuse(call, "this log()", 'log(f"...")')
        unit.line(f"pr_info({c_string(term.text.replace('%', '%%') + chr(10))});")
    else:
        printing.emit(unit, call)


_STATEMENTS: dict[type[ast.stmt], Callable[..., None]] = {
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.Assert: _assert,
    ast.If: _if,
    ast.For: _for,
    ast.While: _while,
    ast.Return: _return,
    ast.Pass: _word(""),
    ast.Break: _word("break;"),
    ast.Continue: _word("continue;"),
    ast.Delete: _delete,
    ast.Expr: _expression,
}
