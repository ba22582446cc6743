"""Comparisons: chains, membership, and which sorts of terms can be compared at all."""

from __future__ import annotations

import ast
from functools import partial

from kprobes.compiler.front import cautions, conditions, integers, maps, strings, texts
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.context import Links
from kprobes.compiler.front.terms import Constant, Items, Map, Nothing, Number, Pointer, Term, Text, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.front.context import Context


def comparison(ctx: Context, node: ast.Compare) -> Term:
    """Return the truth of a comparison as a value."""
    found = links(ctx, node)
    if len(found.makers) == 1:
        result = found.makers[0]()
    else:
        result = (conditions.any_of if found.stop else conditions.all_of)(ctx, node, found.makers)
    return conditions.opposite(ctx, node, result) if found.negated else result


def links(ctx: Context, node: ast.Compare) -> Links:
    """Return the links of a comparison; each side is evaluated once, when its link is made."""
    last = [(ctx.lower(node.left), node.left)]
    if len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn):
        steps = _membership(ctx, node, last[0], node.comparators[0])
        return Links(steps, stop=True, negated=isinstance(node.ops[0], ast.NotIn))

    def step(operator: ast.cmpop, right_node: ast.expr) -> Term:
        if isinstance(operator, ast.In | ast.NotIn):
            found = conditions.any_of(ctx, node, _membership(ctx, node, last[0], right_node))
            return conditions.opposite(ctx, node, found) if isinstance(operator, ast.NotIn) else found
        left, last[0] = last[0], (ctx.lower(right_node), right_node)
        return compare(ctx, node, operator, left, last[0])

    pairs = zip(node.ops, node.comparators, strict=True)
    return Links([partial(step, operator, right) for operator, right in pairs])


def compare(
    ctx: Context, node: ast.AST, operator: ast.cmpop, left: tuple[Term, ast.AST], right: tuple[Term, ast.AST]
) -> Term:
    """Return the truth of `left operator right`.

    Raises:
        CompileError: the two can't be compared.
    """
    op = integers.COMPARISONS[type(operator)]
    cautions.compared(ctx, node, op, left, right)
    one, other = left[0], right[0]
    if isinstance(operator, ast.Is | ast.IsNot) and not (isinstance(one, Nothing) or isinstance(other, Nothing)):
        raise ctx.error(node, "`is` compares with None only", "use ==")
    if texts.is_text(one) and texts.is_text(other):
        if op not in ("eq", "ne"):
            raise ctx.error(node, "strings can't be ordered", "strings take ==, !=, in, .startswith() and .endswith()")
        return texts.compare(ctx, node, one, other, equal=op == "eq")
    if isinstance(one, Items) and isinstance(other, Items):
        return _compare_tuples(ctx, node, op, (one, left[1]), (other, right[1]))
    addresses = Pointer | Nothing
    if isinstance(one, addresses) or isinstance(other, addresses):
        return _compare_addresses(ctx, node, op, left, right)
    for term, where in (left, right):
        if not isinstance(term, Constant | Number):
            raise ctx.error(
                where, f"{describe(one)} can't be compared with {describe(other)}", _compare_hint(one, other)
            )
    return integers.compare(ctx, node, op, one, other)


def _compare_hint(one: Term, other: Term) -> str:
    if any(texts.is_text(side) for side in (one, other)) and any(isinstance(s, Pointer) for s in (one, other)):
        return "read the string that the pointer points to: .string()"
    if any(texts.is_text(side) for side in (one, other)):
        return "compare a string with a string, a number with a number"
    return next((advice(side) for side in (one, other) if not isinstance(side, Constant | Number)), "use ==")


def _compare_addresses(
    ctx: Context, node: ast.AST, op: str, left: tuple[Term, ast.AST], right: tuple[Term, ast.AST]
) -> Term:
    one, other = left[0], right[0]
    for term, opposite in ((one, other), (other, one)):
        fits = isinstance(term, Pointer | Nothing | Constant | Number)
        if not fits or (isinstance(term, Number) and isinstance(opposite, Nothing)):
            hint = "compare with 0" if isinstance(term, Number) else _compare_hint(one, other)
            raise ctx.error(node, f"{describe(one)} can't be compared with {describe(other)}", hint)
    return integers.compare_addresses(ctx, node, op, one, other)


def _compare_tuples(
    ctx: Context, node: ast.AST, op: str, left: tuple[Items, ast.AST], right: tuple[Items, ast.AST]
) -> Term:
    if op not in ("eq", "ne"):
        raise ctx.error(node, "tuples can't be ordered", "tuples take == and !=")
    if len(left[0].items) != len(right[0].items):
        return Constant(int(op == "ne"), "bool")
    pairs = zip(left[0].items, right[0].items, strict=True)
    equal = conditions.all_of(ctx, node, [partial(_equal, ctx, node, (a, left[1]), (b, right[1])) for a, b in pairs])
    return conditions.opposite(ctx, node, equal) if op == "ne" else equal


def _equal(ctx: Context, node: ast.AST, left: tuple[Term, ast.AST], right: tuple[Term, ast.AST]) -> Term:
    return compare(ctx, node, ast.Eq(), left, right)


def _membership(ctx: Context, node: ast.AST, item: tuple[Term, ast.AST], where: ast.expr) -> list[Callable[[], Term]]:
    """Return what makes the truth of `item in where`: one look into a map, or a comparison with each of a tuple."""
    owner = ctx.lower(where)
    if isinstance(owner, Map):
        return [partial(maps.contains, ctx, node, owner, item[0], item[1])]
    if texts.is_text(owner):
        return [partial(strings.contains, ctx, node, item, owner)]
    if not isinstance(owner, Items):
        what = f"`in` looks into maps, tuples and strings, this is {describe(owner)}"
        raise ctx.error(where, what, "write a tuple: x in (1, 2, 3)")
    term = item[0]
    if isinstance(term, Text) and term.slot is None:
        term = Text(term.size, texts.buffer(ctx, item[1], term))
    return [partial(_equal, ctx, node, (term, item[1]), (one, where)) for one in owner.items]
