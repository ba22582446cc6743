"""What the text of a function tells before it is compiled: which names it assigns, reads, and where it yields."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def walk(nodes: Iterable[ast.AST]) -> Iterable[ast.AST]:
    """Yield *nodes* and all below them, but nothing inside nested functions."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, _NESTED):
            pending.extend(ast.iter_child_nodes(node))


def count_stores(body: Sequence[ast.stmt]) -> dict[str, int]:
    """Return the names that *body* assigns, with how often they stand as a target."""
    counts: dict[str, int] = {}
    for node in walk(body):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            counts[node.id] = counts.get(node.id, 0) + 1
    return counts


def count_loads(body: Iterable[ast.AST]) -> dict[str, int]:
    """Return how often *body* reads each name."""
    counts: dict[str, int] = {}
    for node in walk(body):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            counts[node.id] = counts.get(node.id, 0) + 1
    return counts


def names_read(body: Iterable[ast.AST]) -> frozenset[str]:
    """Return the names that *body* reads."""
    found = set(count_loads(body))
    return frozenset(
        found | {n.target.id for n in walk(body) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}
    )


def top_level_once(
    body: Sequence[ast.stmt], stores: Mapping[str, int], parameters: Collection[str] = ()
) -> frozenset[int]:
    """Return the ids of statements `name = ...` at the top of *body* that are the only assignment of that name.

    Such a name stands for one term from there on, so it needs no slot.
    """
    found = set()
    for statement in body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target = statement.target
        else:
            continue
        if isinstance(target, ast.Name) and stores[target.id] == 1 and target.id not in parameters:
            found.add(id(statement))
    return frozenset(found)


def yields(body: Iterable[ast.AST]) -> list[ast.Yield]:
    """Return the yields in *body*, in the order of the text."""
    found = [node for node in walk(body) if isinstance(node, ast.Yield)]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def is_yield(statement: ast.stmt) -> bool:
    """Tell whether *statement* is `yield` or `name = yield`."""
    if isinstance(statement, ast.Expr | ast.Assign | ast.AnnAssign):
        return isinstance(statement.value, ast.Yield)
    return False
