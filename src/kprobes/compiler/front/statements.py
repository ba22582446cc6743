"""Statements: assignments, branches, loops."""

from __future__ import annotations

import ast
from functools import partial

from kprobes.compiler.front import endings, integers, loops, maps, registered, texts
from kprobes.compiler.front.calls import has_effect
from kprobes.compiler.front.conditions import branch_on
from kprobes.compiler.front.context import TypeUnknownError
from kprobes.compiler.front.expressions import binary, register_name
from kprobes.compiler.front.mistakes import guarded, refuse_lost_yield
from kprobes.compiler.front.terms import (
    Constant,
    Items,
    Map,
    Number,
    Outside,
    Pointer,
    Term,
    Text,
    Word,
    describe,
    is_static,
)
from kprobes.compiler.ir.nodes import I64, WriteContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.compiler.front.context import Context
    from kprobes.errors import CompileError

LANGUAGE_HINT = "docs/language.md says what handlers are made of"

# Statements outside the language: what they are called, and what to do instead.
REFUSED: dict[type[ast.stmt], tuple[str, str]] = {
    ast.FunctionDef: ("a function inside a handler", "define it at module level; calls to it are inlined"),
    ast.AsyncFunctionDef: ("async", "handlers never wait"),
    ast.ClassDef: ("a class inside a handler", "define it at module level"),
    ast.AsyncFor: ("async", "handlers never wait"),
    ast.AsyncWith: ("async", "handlers never wait"),
    ast.With: ("with", "handlers hold no resources"),
    ast.Match: ("match", "use if and elif"),
    ast.Raise: ("raise", "leave with return, or send an event with emit()"),
    ast.TryStar: ("try", "reads never fail in a handler: a bad address gives zero and is counted as a fault"),
    ast.Import: ("import", "import at module level"),
    ast.ImportFrom: ("import", "import at module level"),
    ast.Global: ("global", "keep state between hits in a HashMap, Count or Histogram"),
    ast.Nonlocal: ("nonlocal", "keep state between hits in a HashMap, Count or Histogram"),
}


def run(ctx: Context, body: Sequence[ast.stmt]) -> None:
    """Compile the statements of *body*, one after the other; those outside the language are kept as mistakes."""
    for statement in body:
        guarded(ctx, statement, partial(_compile, ctx, statement))


def _compile(ctx: Context, statement: ast.stmt) -> None:
    refuse_lost_yield(ctx, statement)
    make = _STATEMENTS.get(type(statement))
    if make is None:
        what, hint = REFUSED.get(type(statement), (type(statement).__name__, LANGUAGE_HINT))
        raise ctx.error(statement, f"{what} is not part of the handler language", hint)
    try:
        make(ctx, statement)
    except TypeUnknownError:
        if isinstance(statement, ast.Return):
            raise  # what the function returns is not known yet either


def _expression(ctx: Context, node: ast.Expr) -> None:
    value = node.value
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return  # a docstring, or a remark in its form
    _refuse_yield(ctx, value)
    if isinstance(value, ast.Call):
        if not has_effect(ctx, value):
            raise ctx.error(node, "the value of this call is not used", "assign it, or emit(...) it")
        ctx.lower(value)
        return
    ctx.lower(value)
    raise ctx.error(node, "this expression has no effect", "assign its value, or emit(...) it")


def _refuse_yield(ctx: Context, node: ast.expr) -> None:
    if isinstance(node, ast.Yield):
        raise ctx.error(node, "a yield in a called function", "it splits the handler, and stands in the handler itself")


def _assign(ctx: Context, node: ast.Assign) -> None:
    _refuse_yield(ctx, node.value)
    term = ctx.lower(node.value)
    if len(node.targets) == 1 and id(node) in ctx.frame.bindable:
        _bind(ctx, node, node.targets[0], term)
        return
    if isinstance(term, Text) and term.slot is None and (len(node.targets) > 1 or not _is_name(node.targets[0])):
        term = Text(term.size, texts.buffer(ctx, node.value, term))
    for target in node.targets:
        assign_to(ctx, target, term, node.value)


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def _annotated(ctx: Context, node: ast.AnnAssign) -> None:
    """`x: int = ...`: as in Python the annotation is for readers and changes nothing."""
    if node.value is None:
        return
    _refuse_yield(ctx, node.value)
    term = ctx.lower(node.value)
    if id(node) in ctx.frame.bindable:
        _bind(ctx, node, node.target, term)
    else:
        assign_to(ctx, node.target, term, node.value)


def _bind(ctx: Context, node: ast.AST, target: ast.expr, term: Term) -> None:
    """Let a name that is assigned once stand for *term*; it also gets a slot if it is needed after the yield."""
    assert isinstance(target, ast.Name)
    crosses = target.id in ctx.frame.crossing and not is_static(term)
    if crosses and texts.is_text(term):
        ctx.assign(target, target.id, term)  # it is in its slot, and read from there
        return
    term = texts.snapshot(ctx, node, term)
    if crosses:
        ctx.assign(target, target.id, term)
    ctx.frame.bindings[target.id] = term


def assign_to(ctx: Context, target: ast.expr, term: Term, value: ast.AST) -> None:
    """Carry out `target = term`; *value* is where the term comes from.

    Raises:
        CompileError: nothing can be assigned there.
    """
    if isinstance(target, ast.Name):
        ctx.assign(value, target.id, term)
    elif isinstance(target, ast.Tuple | ast.List):
        _unpack(ctx, target, term, value)
    elif isinstance(target, ast.Subscript):
        owner = ctx.lower(target.value)
        if not isinstance(owner, Map):
            raise _no_target(ctx, target, owner)
        maps.write(ctx, target, owner, ctx.lower(target.slice), target.slice, (term, value))
    elif isinstance(target, ast.Attribute):
        owner = ctx.lower(target.value)
        if isinstance(owner, Outside) and isinstance(owner.thing, registered.THINGS):
            registered.store(ctx, target, owner, term, value)
            return
        if owner != Word("regs"):
            raise _no_target(ctx, target, owner)
        _write_register(ctx, target, term, value)
    else:
        raise ctx.error(target, "nothing can be assigned here", "name each target: a, b = ...")


def _no_target(ctx: Context, target: ast.expr, owner: Term) -> CompileError:
    if isinstance(owner, Pointer):
        return ctx.error(
            target, "a handler can't write to the memory of the probed program", "assign to a variable or a HashMap"
        )
    return ctx.error(
        target, f"nothing can be assigned to parts of {describe(owner)}", "assign to a variable or a HashMap"
    )


def _write_register(ctx: Context, target: ast.Attribute, term: Term, value: ast.AST) -> None:
    name = register_name(ctx, target)
    if not ctx.around.unsafe:
        raise ctx.error(
            target, "writing a register changes the probed program", "allow it: unsafe=True on the probe, or --unsafe"
        )
    source = integers.address(ctx, value, term)
    ctx.build.add(WriteContext(ctx.place(target), "register", source, name))


def _unpack(ctx: Context, target: ast.Tuple | ast.List, term: Term, value: ast.AST) -> None:
    if not isinstance(term, Items):
        raise ctx.error(value, f"{describe(term)} can't be unpacked", "only tuples can")
    if any(isinstance(one, ast.Starred) for one in target.elts):
        raise ctx.error(target, "unpacking with * is not part of the handler language", "name each target")
    if len(term.items) != len(target.elts):
        raise ctx.error(target, f"{len(target.elts)} names for {len(term.items)} values", "name each value once")
    # `a, b = b, a` with strings: the first assignment must not change what the second takes.
    items = [texts.snapshot(ctx, value, item) for item in term.items]
    for one, item in zip(target.elts, items, strict=True):
        assign_to(ctx, one, item, value)


def _augmented(ctx: Context, node: ast.AugAssign) -> None:
    target = node.target
    if isinstance(target, ast.Subscript):
        owner = ctx.lower(target.value)
        if isinstance(owner, Map):
            _augment_map(ctx, node, target, owner)
            return
        raise _no_target(ctx, target, owner)
    if isinstance(target, ast.Attribute):
        current = ctx.lower(target)
        result = binary(ctx, node, node.op, (current, target), (ctx.lower(node.value), node.value))
        assign_to(ctx, target, result, node.value)
        return
    assert isinstance(target, ast.Name)
    current = ctx.find_name(ast.copy_location(ast.Name(target.id, ast.Load()), target))
    result = binary(ctx, node, node.op, (current, target), (ctx.lower(node.value), node.value))
    ctx.assign(node, target.id, result)


def _augment_map(ctx: Context, node: ast.AugAssign, target: ast.Subscript, owner: Map) -> None:
    maps.require_values(ctx, target, owner)
    key = ctx.lower(target.slice)
    amount = ctx.lower(node.value)
    if isinstance(node.op, ast.Add | ast.Sub) and maps.is_bumpable(owner) and isinstance(amount, Constant | Number):
        if isinstance(node.op, ast.Sub):
            amount = integers.negative(ctx, node.value, amount)
        maps.bump(ctx, target, owner, key, target.slice, integers.wide(ctx, node.value, amount, I64))
        return
    current = maps.read(ctx, target, owner, key, target.slice)
    result = binary(ctx, node, node.op, (current, target), (amount, node.value))
    maps.write(ctx, target, owner, key, target.slice, (result, node.value))


def _delete(ctx: Context, node: ast.Delete) -> None:
    for target in node.targets:
        if isinstance(target, ast.Subscript):
            owner = ctx.lower(target.value)
            if isinstance(owner, Map):
                maps.delete(ctx, target, owner, ctx.lower(target.slice), target.slice)
                continue
        raise ctx.error(target, "del forgets keys of a HashMap only", "del opened[key]")


def _if(ctx: Context, node: ast.If) -> None:
    build, place = ctx.build, ctx.place(node)
    yes, after = build.new_block("then"), build.new_block("after")
    no = build.new_block("else") if node.orelse else after
    try:
        branch_on(ctx, node.test, yes, no)
    except TypeUnknownError:
        build.branch(place, integers.truth(ctx, node, Constant(1)), yes, no)
    build.place_block(yes)
    run(ctx, node.body)
    build.jump(ctx.place(node), after)
    if node.orelse:
        build.place_block(no)
        run(ctx, node.orelse)
        build.jump(ctx.place(node), after)
    build.place_block(after)


def _pass(ctx: Context, node: ast.Pass) -> None:
    """`pass` does nothing."""


_STATEMENTS: dict[type[ast.stmt], Callable[..., None]] = {
    ast.Expr: _expression,
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.Delete: _delete,
    ast.If: _if,
    ast.Return: endings.returned,
    ast.Assert: endings.assertion,
    ast.Try: endings.protected,
    endings.EntryHalf: endings.protected,
    ast.Pass: _pass,
    ast.For: loops.for_loop,
    ast.While: loops.while_loop,
    ast.Break: endings.jump_out,
    ast.Continue: endings.jump_out,
}
