"""Conditions: truth, short circuits, and branching on them without a detour over a value."""

from __future__ import annotations

import ast

from kprobes.compiler.front import cautions, integers, texts
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.terms import Constant, Items, Literal, Nothing, Number, Pointer, Term, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.compiler.front.build import OpenBlock
    from kprobes.compiler.front.context import Context

    Makers = Sequence[Callable[[], Term]]


def truth(ctx: Context, node: ast.AST, term: Term) -> Constant | Number:
    """Return whether *term* is true, as Python has it: a literal, or a value of type bool.

    Raises:
        CompileError: it is neither true nor false.
    """
    cautions.asked_for_truth(ctx, node, term)
    if isinstance(term, Constant):
        return Constant(int(term.value != 0), "bool")
    if isinstance(term, Nothing):
        return Constant(0, "bool")
    if isinstance(term, Literal):
        return Constant(int(term.text != ""), "bool")
    if isinstance(term, Items):
        return Constant(int(bool(term.items)), "bool")
    if texts.is_text(term):
        result = texts.compare(ctx, node, term, Literal(""), equal=False)
        assert isinstance(result, Number)
        return result
    if isinstance(term, Pointer) and term.embedded:
        return Constant(1, "bool")
    if isinstance(term, Pointer | Number):
        return Number(integers.truth(ctx, node, term), "bool", 0, 1)
    raise ctx.error(node, f"{describe(term)} is neither true nor false", advice(term))


def opposite(ctx: Context, node: ast.AST, term: Term) -> Term:
    """Return `not term` of a truth value."""
    if isinstance(term, Constant):
        return Constant(int(not term.value), "bool")
    assert isinstance(term, Number)
    return Number(ctx.build.negate(ctx.place(node), term.value), "bool", 0, 1)


def truth_of(ctx: Context, node: ast.expr) -> Constant | Number:
    """Return the truth of the expression *node*."""
    if isinstance(node, ast.BoolOp):
        return _settled(ctx, node, lambda yes, no: branch_on(ctx, node, yes, no))
    return truth(ctx, node, ctx.lower(node))


def known(ctx: Context, node: ast.expr) -> bool | None:
    """Return the truth of *node* where it is a name or literal known at compile time, else None."""
    if not isinstance(node, ast.Name | ast.Constant | ast.Attribute):
        return None
    block, count = ctx.build.current, len(ctx.build.current.nodes)
    result = truth(ctx, node, ctx.lower(node))
    if isinstance(result, Constant):
        return bool(result.value)
    del block.nodes[count:]  # it is computed again where it is branched on
    return None


def branch_on(ctx: Context, node: ast.expr, yes: OpenBlock, no: OpenBlock) -> None:
    """End the current block: go to *yes* where *node* is true, else to *no*."""
    if isinstance(node, ast.BoolOp):
        stop = isinstance(node.op, ast.Or)
        for value in node.values[:-1]:
            more = ctx.build.new_block("more")
            branch_on(ctx, value, yes if stop else more, more if stop else no)
            ctx.build.place_block(more)
        branch_on(ctx, node.values[-1], yes, no)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        branch_on(ctx, node.operand, no, yes)
    elif isinstance(node, ast.Compare):
        links = ctx.links(node)
        if links.negated:
            yes, no = no, yes
        _jump_on(ctx, node, links.makers, (yes, no), stop=links.stop)
    else:
        _go(ctx, node, truth(ctx, node, ctx.lower(node)), yes, no)


def _go(ctx: Context, node: ast.AST, result: Constant | Number, yes: OpenBlock, no: OpenBlock) -> None:
    place = ctx.place(node)
    if isinstance(result, Constant):
        ctx.build.jump(place, yes if result.value else no)
    else:
        ctx.build.branch(place, result.value, yes, no)


def all_of(ctx: Context, node: ast.AST, makers: Makers) -> Constant | Number:
    """Return whether all of *makers* give true; none after the first false one is evaluated."""
    return _short_circuit(ctx, node, makers, stop=False)


def any_of(ctx: Context, node: ast.AST, makers: Makers) -> Constant | Number:
    """Return whether any of *makers* gives true; none after it is evaluated."""
    return _short_circuit(ctx, node, makers, stop=True)


def _short_circuit(ctx: Context, node: ast.AST, makers: Makers, *, stop: bool) -> Constant | Number:
    if not makers:
        return Constant(int(not stop), "bool")
    if len(makers) == 1:
        return truth(ctx, node, makers[0]())

    return _settled(ctx, node, lambda yes, no: _jump_on(ctx, node, makers, (yes, no), stop=stop))


def _jump_on(ctx: Context, node: ast.AST, makers: Makers, ways: tuple[OpenBlock, OpenBlock], *, stop: bool) -> None:
    """End the current block by what *makers* give, one after the other: *ways* are those for true and for false."""
    yes, no = ways
    if not makers:
        ctx.build.jump(ctx.place(node), no if stop else yes)
        return
    for make in makers[:-1]:
        more = ctx.build.new_block("more")
        _go(ctx, node, truth(ctx, node, make()), yes if stop else more, more if stop else no)
        ctx.build.place_block(more)
    _go(ctx, node, truth(ctx, node, makers[-1]()), yes, no)


def _settled(ctx: Context, node: ast.AST, jumps: Callable[[OpenBlock, OpenBlock], None]) -> Constant | Number:
    """Return the truth value of something that ends by jumping to one of two blocks."""
    yes, no = ctx.build.new_block("true"), ctx.build.new_block("false")
    jumps(yes, no)
    ctx.build.place_block(yes)
    ctx.build.place_block(no)
    if not (yes.reached and no.reached) and ctx.build.blocks[0].reached:
        ctx.build.current = yes if yes.reached else no
        return Constant(int(yes.reached), "bool")
    return truth(ctx, node, ctx.merge(node, [(yes, Constant(1, "bool")), (no, Constant(0, "bool"))]))


def never(ctx: Context, nodes: Sequence[ast.expr]) -> None:
    """Compile what never runs, so that its mistakes are shown; the blocks go away later."""
    current = ctx.build.current
    ctx.build.place_block(ctx.build.new_block("dead"))
    for node in nodes:
        ctx.lower(node)
    ctx.build.current = current
