"""What the text of a function tells before it is compiled: which names it assigns, reads, and where it yields."""

from __future__ import annotations

import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


_PLAIN = frozenset({int, str, type(None), tuple})


# Where a statement keeps what was counted in it: passes and loops ask again and again.
_KEPT = "_kprobes_names"


def walk(nodes: Iterable[ast.AST]) -> Iterable[ast.AST]:
    """Yield *nodes* and all below them, but nothing inside nested functions."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, _NESTED):
            continue
        for value in vars(node).values():
            kind = type(value)
            if kind is list:
                pending += [one for one in value if isinstance(one, ast.AST)]
            elif kind not in _PLAIN and isinstance(value, ast.AST):
                pending.append(value)


def count_stores(body: Iterable[ast.AST]) -> dict[str, int]:
    """Return the names that *body* assigns, with how often they stand as a target."""
    return _sum(body, 0)


def count_loads(body: Iterable[ast.AST]) -> dict[str, int]:
    """Return how often *body* reads each name."""
    return _sum(body, 1)


def _sum(body: Iterable[ast.AST], which: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in body:
        kept = vars(node).get(_KEPT)
        if kept is None:
            kept = _count(node)
            setattr(node, _KEPT, kept)
        for name, count in kept[which].items():
            counts[name] = counts.get(name, 0) + count
    return counts


def _count(node: ast.AST) -> tuple[dict[str, int], dict[str, int]]:
    """Return the stores and the loads of each name in *node*."""
    stores: dict[str, int] = {}
    loads: dict[str, int] = {}
    for one in walk((node,)):
        if isinstance(one, ast.Name):
            counts = loads if isinstance(one.ctx, ast.Load) else stores
            counts[one.id] = counts.get(one.id, 0) + 1
    return stores, loads


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
