"""Warnings: what compiles and is probably not meant.

A condition is warned about where it always comes out the same for all that the compiler knows of the *values*; where
it compares constants, or stands in a function that is inlined, that is how configuration looks. Nothing is said about
what nothing reaches, nor about a line with the remark `# kprobes: ignore`.
"""

from __future__ import annotations

import ast
from itertools import pairwise

from kprobes.compiler.front import texts
from kprobes.compiler.front.scan import walk
from kprobes.compiler.front.terms import Constant, Items, Literal, Nothing, Number, Pointer, Term, Text, limits
from kprobes.model.caution import IGNORE, Caution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kprobes.compiler.front.context import Context
    from kprobes.compiler.front.text import SourceText
    from kprobes.compiler.ir.nodes import IntType
    from kprobes.model.layout import Field

COMMAND_LINE = "<command line>"
# No pointer lies below: the kernel maps nothing there.
LOWEST_ADDRESS = 4096


class Cautions:
    """The warnings of one pass, each once, and how each comparison came out each time it was compiled."""

    def __init__(self) -> None:
        self.found: dict[Caution, None] = {}
        self._outcomes: dict[tuple[int, int], tuple[set[bool | None], Caution]] = {}

    def add(self, caution: Caution) -> None:
        """Keep *caution*, unless its line asks to be left alone."""
        if IGNORE not in caution.source:
            self.found.setdefault(caution)

    def came_out(self, result: bool | None, caution: Caution) -> None:
        """Note that the comparison that *caution* is about gave *result*, None where that is known at the hit only."""
        self._outcomes.setdefault((caution.line, caution.column), (set(), caution))[0].add(result)

    def finish(self) -> tuple[Caution, ...]:
        """Return the warnings in the order of the text."""
        for results, caution in self._outcomes.values():
            if len(results) == 1 and None not in results:
                self.add(caution)
        return tuple(sorted(self.found, key=lambda one: (one.file, one.line, one.column)))


def caution_at(text: SourceText, node: ast.AST, what: str, hint: str) -> Caution:
    """Return the warning that points at *node*."""
    place = text.place(node)
    return Caution(what, hint, text.source.file, place.line, place.column, text.line(place.line))


def warn(ctx: Context, node: ast.AST, what: str, hint: str) -> None:
    """Warn about *node* of the function under compilation, if anything reaches it."""
    if ctx.build.current.reached:
        ctx.cautions.add(caution_at(ctx.frame.text, node, what, hint))


# Conditions.

Side = tuple[Term, ast.AST]


def compared(ctx: Context, node: ast.AST, op: str, left: Side, right: Side) -> None:
    """Look at `left op right`."""
    for (one, where), (other, _) in ((left, right), (right, left)):
        if isinstance(one, Pointer) and not texts.is_text(one):
            _pointer_compared(ctx, node, where, one, other)
    one, other = left[0], right[0]
    if len(ctx.frames) > 1 or not ctx.build.current.reached:
        return
    constants = [where for term, where in (left, right) if isinstance(term, Constant)]
    if len(constants) < 2 and all(map(_is_written_out, constants)):
        spans = _span(one), _span(other)
        if spans[0] is None or spans[1] is None:
            return
        result = _decided(op, spans[0], spans[1])
        what = f"this comparison is always {str(bool(result)).lower()}"
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            what = "one of these is always equal" if result else "none of these is ever equal"
        (_, where), (low, high) = (left, spans[0]) if isinstance(one, Number) else (right, spans[1])
        hint = f"{_shown(ctx, where)} lies between {low} and {high}"
        ctx.cautions.came_out(result, caution_at(ctx.frame.text, node, what, hint))


def _is_written_out(node: ast.AST) -> bool:
    """Tell whether *node* is made of literals: what has a name may be set to something else tomorrow."""
    return not any(isinstance(part, ast.Name | ast.Attribute) for part in ast.walk(node))


def _span(term: Term) -> tuple[int, int] | None:
    if isinstance(term, Constant):
        return term.value, term.value
    if isinstance(term, Number) and term.kind not in ("stack", "user_stack"):
        return term.low, term.high
    return None


def _decided(op: str, left: tuple[int, int], right: tuple[int, int]) -> bool | None:
    """Return how `left op right` comes out for all numbers between these ends; None where it depends on them."""
    if op in ("gt", "ge"):
        return _decided({"gt": "lt", "ge": "le"}[op], right, left)
    if op == "lt":
        return True if left[1] < right[0] else False if left[0] >= right[1] else None
    if op == "le":
        return True if left[1] <= right[0] else False if left[0] > right[1] else None
    apart = left[1] < right[0] or right[1] < left[0]
    same = left[0] == left[1] == right[0] == right[1]
    return op == "ne" if apart else op == "eq" if same else None


def _shown(ctx: Context, node: ast.AST) -> str:
    return ctx.frame.text.segment(node) if isinstance(node, ast.expr) else "it"


def _pointer_compared(ctx: Context, node: ast.AST, where: ast.AST, one: Pointer, other: Term) -> None:
    if one.embedded and isinstance(other, Nothing):
        _always_there(ctx, node)
    small = isinstance(other, Constant) and other.kind == "int" and 0 < other.value < LOWEST_ADDRESS
    narrow = isinstance(other, Number) and other.kind != "hex" and other.store is not None and other.store.bits < 64
    if small or narrow:
        hint = f"compare what it points to, or write int({_shown(ctx, where)})"
        warn(ctx, node, "a pointer is compared with a number that is no address", hint)


def _always_there(ctx: Context, node: ast.AST) -> None:
    hint = "it lies inside of another one, so its address is never null: name one of its fields"
    warn(ctx, node, "a struct is always true", hint)


def asked_for_truth(ctx: Context, node: ast.AST, term: Term) -> None:
    """Look at *term*, which is used as a condition."""
    if isinstance(term, Pointer) and term.embedded and not texts.is_text(term):
        _always_there(ctx, node)
    elif isinstance(node, ast.Constant) and isinstance(term, Literal) and term.text:
        warn(ctx, node, "this string is always true", "compare it: x == ...")
    elif isinstance(node, ast.Tuple) and isinstance(term, Items) and term.items:
        warn(ctx, node, "a tuple is always true", "leave the parentheses and the comma out")


# Conversions.


def kept(ctx: Context, node: ast.AST, name: str, field: Field, term: Term) -> None:
    """Look at *term*, which goes into *field* of the key or value that messages call *name*."""
    if field.kind == "str":
        size = len(term.text.encode()) + 1 if isinstance(term, Literal) else term.size if isinstance(term, Text) else 0
        if size > field.size:
            what = f"a string of {size - 1} bytes is cut to {field.size - 1} in {name}"
            shorter = (
                f"take {field.size} bytes: .string({field.size})" if isinstance(term, Text) else "write a shorter one"
            )
            warn(ctx, node, what, f"declare it as String({size}), or {shorter}")
        return
    if field.kind not in ("int", "uint") or not isinstance(term, Constant | Number):
        return
    low, high = _range_of(field)
    span = _span(term)
    if span and (span[0] < low or span[1] > high) and (field.size < 8 or isinstance(term, Constant)):
        what = f"{_described(term)} is cut to {8 * field.size} bits in {name}"
        warn(ctx, node, what, f"declare it wider, or cut it yourself: & {(1 << 8 * field.size) - 1:#x}")


def _range_of(field: Field) -> tuple[int, int]:
    """Return what *field* holds without loss; a pattern of bits may be written with either sign."""
    bits = 8 * field.size
    return -(1 << (bits - 1)), (1 << bits) - 1


def _described(term: Constant | Number) -> str:
    if isinstance(term, Constant):
        return str(term.value)
    kind: IntType = term.store or term.value.type
    known = (term.low, term.high) != limits(kind)
    return f"a number of up to {term.high}" if known else f"a number of {kind.bits} bits"


# What the text alone tells.


def look_at_text(text: SourceText) -> Iterator[Caution]:
    """Yield the warnings about variables that nothing uses, and about statements that nothing reaches."""
    if text.source.file == COMMAND_LINE:
        return
    body = text.definition.body
    nodes = list(walk(body))
    loads = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    told: set[str] = set()
    for target, is_result in _single_targets(nodes):
        name = target.id
        if name.startswith("_") or name in loads or name in told:
            continue
        told.add(name)
        hint = "write `yield` alone" if is_result else "use it, leave it out, or begin its name with an underscore"
        yield caution_at(text, target, f"{name} is assigned and never used", hint)
    for statements in (body, *_blocks(nodes)):
        for statement, following in pairwise(statements):
            if isinstance(statement, ast.Return | ast.Break | ast.Continue):
                word = type(statement).__name__.lower()
                yield caution_at(text, following, "nothing reaches this statement", f"it stands behind {word}")
                break


def _single_targets(nodes: Iterable[ast.AST]) -> list[tuple[ast.Name, bool]]:
    """Return the names that are assigned by themselves, in the order of the text, and whether a `yield` is."""
    found = []
    for node in nodes:
        targets: Iterable[ast.expr] = ()
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
            targets = [node.target]
        is_result = isinstance(getattr(node, "value", None), ast.Yield)
        found += [(target, is_result) for target in targets if isinstance(target, ast.Name)]
    return sorted(found, key=lambda one: (one[0].lineno, one[0].col_offset))


def _blocks(nodes: Iterable[ast.AST]) -> Iterator[Sequence[ast.stmt]]:
    for node in nodes:
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            for name in ("body", "orelse", "finalbody"):
                inner = getattr(node, name, None)
                if inner:
                    yield inner
