"""Statements of a handler in C."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from kprobes.compiler.front.events import name_of
from kprobes.compiler.front.loops import INNER_TURNS, WHILE_TURNS
from kprobes.compiler.front.scan import is_yield
from kprobes.compiler.front.terms import Constant, Literal, Map, Number, Pointer
from kprobes.compiler.front.variables import (
    IntVariable,
    PointerVariable,
    TextVariable,
    variable_for,
)
from kprobes.compiler.ir.nodes import U64
from kprobes.export import calls, expressions
from kprobes.export.cnaming import c_string, comment_text, wrapped
from kprobes.export.headers import pointer_text
from kprobes.model.ctype import Function, Void

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.compiler.front.variables import Variable
    from kprobes.export.unit import Expression, Unit

# What has the type of a register or a module's parameter: as wide as 64 bits, but another type to printk.
_LONG = re.compile(r"\bregs->|\bREAD_ONCE\(|\(unsigned long\)|\bregs_return_value\(")


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
        make(unit, statement)


def is_reached(unit: Unit, body: Sequence[ast.stmt]) -> bool:
    """Return whether the compiler has come to *body*: what constants rule out has no facts."""
    known = unit.seen.terms
    plain = (ast.Return, ast.Pass, ast.Break, ast.Continue)
    return any(node in known for one in body for node in ast.walk(one)) or all(isinstance(one, plain) for one in body)


# Variables.


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
    found = unit.seen.types.get(name)
    if found is None and value is not None:
        term = unit.seen.terms.get(value)
        found = variable_for(term) if term is not None else None
    return found


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
        owner = calls.map_named(unit, target.value)
        if isinstance(owner, Map):
            calls.map_write(unit, target, owner, target.slice, expressions.number(unit, value).text, add=False)
            return
    if not isinstance(target, ast.Name):
        raise unit.refuse(target, "assigning to this", "assign to a name, or to an element of a HashMap")
    term = unit.seen.terms.get(value)
    if isinstance(term, Map):
        raise unit.refuse(value, "another name for a map", "use the map by its own name")
    variable = variable_of(unit, target.id, value)
    found = None if expressions.is_string(term) else expressions.value(unit, value)
    name = declared(unit, target.id, variable, target)
    if found is None:
        expressions.fill(unit, value, name)
    else:
        unit.line(f"{name} = {_fitting(variable, found)};")


def _fitting(variable: Variable | None, found: Expression) -> str:
    """Return *found* for the type of *variable*."""
    if isinstance(variable, IntVariable) and found.pointer:
        return expressions.widened(found).text
    return found.text


def _augmented(unit: Unit, node: ast.AugAssign) -> None:
    if isinstance(node.target, ast.Subscript) and isinstance(node.target.value, ast.Name):
        owner = calls.map_named(unit, node.target.value)
        if isinstance(owner, Map) and isinstance(node.op, ast.Add | ast.Sub):
            amount = expressions.number(unit, node.value)
            shown = amount.text if isinstance(node.op, ast.Add) else f"-{amount.within(1)}"
            calls.map_write(unit, node, owner, node.target.slice, shown, add=True)
            return
    if not isinstance(node.target, ast.Name) or node.target.id not in unit.locals:
        raise unit.refuse(node, "this assignment", "assign to a name, or to an element of a HashMap")
    name = unit.locals[node.target.id]
    variable = variable_of(unit, node.target.id)
    if not isinstance(variable, IntVariable):
        raise unit.refuse(node, "this assignment", "integers can be added to")
    from kprobes.export.unit import Expression

    left = Expression(name, signed=variable.type != U64)
    load = ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target)
    found = expressions.arithmetic(
        unit, node, node.op, (left, load), (expressions.number(unit, node.value), node.value)
    )
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
    unit.line(f"{word} ({expressions.truth(unit, node.test).text}) {{")
    _nested(unit, node.body)
    if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        inner = node.orelse[0]
        if is_reached(unit, inner.body) and (not inner.orelse or is_reached(unit, inner.orelse)):
            before = len(unit.body)
            _branch(unit, inner, "} else if")
            if before == len(unit.body):
                unit.line("}")
            return
    if node.orelse:
        unit.line("} else {")
        _nested(unit, node.orelse)
    unit.line("}")


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
    if not end.signed and not expressions.is_literal(unit, last):
        raise unit.refuse(last, "a bound without sign", "make it signed: int(n)")
    limit = end.within(4)
    if not expressions.is_literal(unit, last):
        limit = unit.local("end")
        unit.declare(f"s64 {limit};")
        unit.line(f"{limit} = {end.text};")
    sign, move = ("<", f"{counter}++") if step.value == 1 else ("<", f"{counter} += {step.value}")
    if step.value < 0:
        sign, move = ">", f"{counter} -= {-step.value}"
    target = declared(unit, node.target.id, variable_of(unit, node.target.id) or variable_for(Constant(0)), node.target)
    unit.line(f"for ({counter} = {begin}; {counter} {sign} {limit}; {move}) {{")
    unit.depth += 1
    unit.line(f"{target} = {counter};")
    unit.loops.append("for")
    run(unit, node.body)
    unit.loops.pop()
    unit.depth -= 1
    unit.line("}")


def _while(unit: Unit, node: ast.While) -> None:
    if node.orelse:
        raise unit.refuse(node, "else of a loop", "test what ended the loop behind it")
    most = INNER_TURNS if unit.loops else WHILE_TURNS
    counter = unit.local("turns")
    unit.declare(f"unsigned int {counter};")
    before = len(unit.body)
    condition = expressions.truth(unit, node.test)
    if len(unit.body) != before:
        raise unit.refuse(node.test, "reading a string in the condition of a loop", "read it in the body, and break")
    unit.line(f"for ({counter} = 0; {condition.text}; {counter}++) {{")
    unit.depth += 1
    unit.line(f"if ({counter} == {most}) {{")
    unit.line("\tfault = true;")
    unit.line("\tbreak;")
    unit.line("}")
    unit.loops.append("while")
    run(unit, node.body)
    unit.loops.pop()
    unit.depth -= 1
    unit.line("}")


def _return(unit: Unit, node: ast.Return) -> None:
    if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        raise unit.refuse(node, "a handler that returns a value", "write return alone")
    if unit.kind == "entry":
        unit.line("ignored = 1; /* its return is not looked at */")
    unit.line("goto out;")
    unit.needs_out = True


def _word(text: str) -> Callable[[Unit, ast.stmt], None]:
    def write(unit: Unit, _node: ast.stmt) -> None:
        if text:
            unit.line(text)

    return write


def _delete(unit: Unit, node: ast.Delete) -> None:
    for target in node.targets:
        owner = calls.map_named(unit, target.value) if isinstance(target, ast.Subscript) else None
        if not isinstance(owner, Map) or not isinstance(target, ast.Subscript):
            raise unit.refuse(target, "deleting this", "del m[key] of a HashMap")
        calls.map_delete(unit, target, owner)


# Effects.


def _expression(unit: Unit, node: ast.Expr) -> None:
    call = node.value
    if isinstance(call, ast.Constant):
        return  # a docstring
    if not isinstance(call, ast.Call):
        raise unit.refuse(node, "this statement")
    if isinstance(call.func, ast.Attribute):
        owner = calls.map_named(unit, call.func.value)
        if isinstance(owner, Map) and call.func.attr == "add":
            calls.map_add(unit, call, owner)
            return
        if isinstance(owner, Map) and call.func.attr == "pop":
            unit.line(f"{calls.call(unit, call).text};")
            return
    name = calls.word_of(unit, call)
    if name not in ("emit", "log"):
        raise unit.refuse(node, f"calling {ast.unparse(call.func)}", "write what it does into the handler")
    if len(call.args) == 1 and isinstance(call.args[0], ast.JoinedStr):
        _log(unit, call.args[0])
    elif name == "log":
        term = unit.seen.terms.get(call.args[0]) if call.args else None
        if not isinstance(term, Literal):
            raise unit.refuse(call, "this log()", 'log(f"...")')
        unit.line(f"pr_info({c_string(term.text.replace('%', '%%') + chr(10))});")
    else:
        _emit(unit, call)


def _emit(unit: Unit, call: ast.Call) -> None:
    pieces, values, stacks = [], [], 0
    pairs = [(name_of(unit.seen.text, one, at), one) for at, one in enumerate(call.args)]
    pairs += [(str(one.arg), one.value) for one in call.keywords if one.arg is not None]
    if any(one.arg is None for one in call.keywords) or any(isinstance(one, ast.Starred) for one in call.args):
        raise unit.refuse(call, "sending all parameters at once", "name them: emit(file, count)")
    for name, node in pairs:
        if calls.word_of(unit, node) == "stack":
            stacks += 1
            continue
        form, value = shown(unit, node)
        pieces.append(f"{name.replace('%', '%%')}={form}")
        values.append(value)
    title = unit.seen.text.source.name
    _print(unit, " ".join([f"{title}:", *pieces]), values)
    for _ in range(stacks):
        unit.line("dump_stack();")


def _log(unit: Unit, node: ast.JoinedStr) -> None:
    form, values = "", []
    for piece in node.values:
        if isinstance(piece, ast.Constant):
            form += str(piece.value).replace("%", "%%")
            continue
        assert isinstance(piece, ast.FormattedValue)
        conversion, value = shown(unit, piece.value, quoted=False)
        form += _formatted(unit, piece, conversion)
        values.append(value)
    _print(unit, form, values)


def _formatted(unit: Unit, piece: ast.FormattedValue, conversion: str) -> str:
    """Return the conversion of printk with the width and the base that the f-string asks for."""
    spec = ast.unparse(piece.format_spec)[2:-1] if piece.format_spec is not None else ""
    if not spec and piece.conversion == -1:
        return conversion
    found = re.fullmatch(r"([<>])?(#)?(0)?(\d+)?([dxX])?", spec)
    if found is None or piece.conversion != -1 or conversion.startswith("%p"):
        raise unit.refuse(piece, f"the format {spec!r}", "{x}, {x:>8}, {x:<16}, {x:08x}, {x:#x}")
    side, alternate, zero, width, base = found.groups()
    is_text = conversion == "%s"
    left = "-" if (side == "<" or (is_text and side is None)) and width else ""
    letters = conversion[-3:] if not is_text else "s"
    if base in ("x", "X"):
        letters = f"ll{base}"
    if is_text and (alternate or zero or base):
        raise unit.refuse(piece, f"the format {spec!r} of a string", "{x:>16}")
    return f"%{left}{alternate or ''}{zero or ''}{width or ''}{letters}"


def shown(unit: Unit, node: ast.expr, *, quoted: bool = True) -> tuple[str, str]:
    """Return how printk shows *node*: the conversion, and the value."""
    term = unit.seen.terms.get(node)
    if expressions.is_string(term):
        return ('"%s"' if quoted else "%s"), expressions.text(unit, node)
    if isinstance(term, Number | Constant) and term.kind in ("stack", "user_stack", "cgroup"):
        raise unit.refuse(
            node, f"a {term.kind.replace('_', ' ')} in a line of text", "emit(stack=stack()) shows the stack below it"
        )
    found = expressions.value(unit, node)
    if found.pointer:
        if isinstance(term, Pointer) and isinstance(term.target, Function):
            return "%pS", found.text
        return "0x%lx", f"(unsigned long){found.within(1)}"
    wide = expressions.widened(found)
    kind = term.kind if isinstance(term, Number | Constant) else ""
    if kind == "symbol":
        return "%pS", f"(void *){wide.within(1)}"
    if kind == "ipv4":
        name = unit.local("address")
        unit.declare(f"__be32 {name};")
        unit.line(f"{name} = (__force __be32){wide.within(1)};")
        return "%pI4", f"&{name}"
    if kind == "hex":
        return "0x%llx", f"(u64){wide.within(1)}" if wide.signed or _LONG.search(wide.text) else wide.text
    if kind == "bool" or isinstance(node, ast.Compare | ast.BoolOp):
        return "%d", f"!!{wide.within(1)}"
    if isinstance(term, Constant) and wide.signed:
        return "%lld", f"{wide.text}LL" if wide.text.lstrip("-").isdigit() else wide.text
    if _LONG.search(wide.text):
        return ("%lld", f"(s64){wide.within(1)}") if wide.signed else ("%llu", f"(u64){wide.within(1)}")
    return ("%lld" if wide.signed else "%llu"), wide.text


def _print(unit: Unit, form: str, values: list[str]) -> None:
    unit.include("linux/printk.h")
    text = c_string(f"{form}\n")
    if not values:
        unit.line(f"pr_info({text});")
        return
    unit.line(f"pr_info({text},")
    for line in wrapped(values):
        unit.line(f"\t{line}")


_STATEMENTS: dict[type[ast.stmt], Callable[..., None]] = {
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
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
