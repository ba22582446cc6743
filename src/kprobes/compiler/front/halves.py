"""A handler's text in two halves: what runs before its `yield`, and what runs after it.

A `yield` inside of a `try` or of a branch is brought to the top by rewriting; each half is a list of statements then:

    try:                    before: try: A, with the `finally` only where A is left early
        A; yield; B         after:  try: B finally: F
    finally: F

    if C: A; yield; B       before: if C: A else: D; E; return
    else: D                 after:  B; E
    E
"""

from __future__ import annotations

import ast

from kprobes.compiler.front.endings import EntryHalf
from kprobes.compiler.front.scan import count_stores, is_yield, names_read, yields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.front.context import Context

    Body = list[ast.stmt]


def split(ctx: Context) -> tuple[Body, ast.stmt | None, Body]:
    """Return the statements before the `yield`, the one that yields, and those after it.

    Raises:
        CompileError: there are several, one stands where it may run twice, or this probe has no second half.
    """
    body = ctx.text.definition.body
    found = yields(body)
    if not found:
        return [], None, body
    if ctx.around.on_fault:
        raise ctx.error(found[0], "a fault handler has no second half to yield for", "the instruction has not run")
    if not (ctx.around.returns or ctx.around.steps):
        other = {"uprobe": "@uretprobe"}.get(ctx.around.kind, "@kretprobe")
        hint = f"use {other} for entry and return"
        if ctx.around.kind == "uprobe":
            hint += "; only the process engine (-p PID, -- CMD) can run it behind an instruction"
        raise ctx.error(found[0], f"a {ctx.around.kind} has no second half to yield for", hint)
    if len(found) > 1:
        hint = "the probed function runs once: one yield splits the handler; put it behind the branches"
        raise ctx.error(found[1], "a second yield", hint)
    return _split(ctx, body, found[0])


def crossing_names(before: Sequence[ast.stmt], after: Sequence[ast.stmt]) -> frozenset[str]:
    """Return the locals that are assigned before the yield and read after it."""
    return frozenset(count_stores(before)) & names_read(after)


def _split(ctx: Context, body: Body, wanted: ast.Yield) -> tuple[Body, ast.stmt, Body]:
    index = next(number for number, one in enumerate(body) if wanted in yields([one]))
    statement, before, after = body[index], body[:index], body[index + 1 :]
    if is_yield(statement):
        return before, statement, after
    if isinstance(statement, ast.Try) and wanted in yields(statement.body) and not statement.handlers:
        first, split_at, second = _split(ctx, statement.body, wanted)
        held = [_like(statement, EntryHalf(first, [], [], statement.finalbody))] if first else []
        rest = [_like(statement, ast.Try(second, [], [], statement.finalbody))] if second else statement.finalbody
        return [*before, *held], split_at, [*rest, *after]
    if isinstance(statement, ast.If) and wanted not in yields([statement.test]):
        in_body = wanted in yields(statement.body)
        first, split_at, second = _split(ctx, statement.body if in_body else statement.orelse, wanted)
        taken = first or [_like(statement, ast.Pass())]
        otherwise = statement.orelse if in_body else statement.body
        ended = [*otherwise, *after, _like((after or [statement])[-1], ast.Return(None))]
        branches = (taken, ended) if in_body else (ended, taken)
        return [*before, _like(statement, ast.If(statement.test, *branches))], split_at, [*second, *after]
    raise ctx.error(
        wanted,
        "this yield may run more than once, or not by itself",
        "write `yield` or `ret = yield` on a line of its own, outside of loops; it may stand in a try or a branch",
    )


def _like(old: ast.stmt, new: ast.stmt) -> ast.stmt:
    """Return *new* with the place of *old*."""
    return ast.copy_location(new, old)
