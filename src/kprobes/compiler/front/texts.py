"""Strings: literals, bounded buffers, and reading them from memory."""

from __future__ import annotations

from kprobes.compiler.front import integers
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.terms import Constant, Items, Literal, Made, Number, Pointer, Term, Text, describe
from kprobes.compiler.ir.nodes import BOOL, CompareText, CompareTexts, ConstText, CopyText, ReadText, Slot
from kprobes.model.ctype import Int, Void, format_ctype

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

    from kprobes.compiler.front.context import Context
    from kprobes.model.ctype import CType

DEFAULT_SIZE = 64
LARGEST = 4096
# A char array in a struct longer than this is read up to here.
LARGEST_ARRAY = 256


def is_char(ctype: CType) -> bool:
    """Tell whether *ctype* is C's plain `char`."""
    return (
        isinstance(ctype, Int)
        and ctype.size == 1
        and (ctype.name == "char" or ctype.kind == "char")
        and ("unsigned" not in ctype.name and "signed" not in ctype.name)
    )


def is_text(term: Term) -> bool:
    """Tell whether *term* can stand where a string is wanted."""
    if isinstance(term, Pointer):
        return term.text or (term.count is not None and is_char(term.target))
    return isinstance(term, Text | Literal)


def size_of(term: Term) -> int:
    """Return the bytes that the string *term* takes at most, with its NUL."""
    if isinstance(term, Literal):
        return len(term.text.encode()) + 1
    if isinstance(term, Pointer):
        return min(term.count or DEFAULT_SIZE, LARGEST_ARRAY)
    assert isinstance(term, Text)
    return term.size


def encoded(ctx: Context, node: ast.AST, text: str) -> bytes:
    """Return the bytes of a literal.

    Raises:
        CompileError: it holds a NUL.
    """
    if "\0" in text:
        raise ctx.error(node, "a string can't hold a NUL", "strings end at their first NUL")
    return text.encode()


def store(ctx: Context, node: ast.AST, term: Term, slot: Slot) -> None:
    """Fill *slot* with the string *term*, cut to its size."""
    place = ctx.place(node)
    if isinstance(term, Literal):
        data = encoded(ctx, node, term.text)
        ctx.build.add(ConstText(place, slot, data[: slot.size - 1]))
        return
    if isinstance(term, Pointer):
        term = string_at(ctx, node, term, size_of(term))
    if not isinstance(term, Text):
        raise ctx.error(node, f"a string is wanted here, this is {describe(term)}", _hint_for(term))
    if term.slot is None and term.size < slot.size and term.size not in (0, slot.size):
        # The string is cut at its own size, so it goes through a buffer of that size.
        term = Text(term.size, buffer(ctx, node, term))
    if term.slot is not None:
        if term.slot != slot:
            ctx.build.add(CopyText(place, slot, term.slot))
        return
    assert term.fill is not None
    ctx.build.add(term.fill(slot))  # type: ignore[arg-type]


def _hint_for(term: Term) -> str:
    if isinstance(term, Pointer) and not term.embedded:
        return "read the string it points to: .string()"
    return advice(term)


def buffer(ctx: Context, node: ast.AST, term: Term, size: int = 0) -> Slot:
    """Return a slot that holds the string *term*; of exactly *size* bytes where that is given."""
    wanted = size or size_of(term)
    if isinstance(term, Text) and term.slot is not None and term.slot.size == wanted:
        return term.slot
    slot = ctx.new_slot(None, wanted)
    store(ctx, node, term, slot)
    return slot


def snapshot(ctx: Context, node: ast.AST, term: Term) -> Term:
    """Return *term* with its strings read now, into buffers that no assignment changes (named with a dot)."""
    if isinstance(term, Items):
        return Items(tuple(snapshot(ctx, node, item) for item in term.items))
    if isinstance(term, Made):
        return Made(term.shape, tuple(snapshot(ctx, node, item) for item in term.items))
    if isinstance(term, Literal) or not is_text(term):
        return term
    if isinstance(term, Text) and term.slot is not None and term.slot.name.startswith("."):
        return term
    slot = ctx.new_slot(None, size_of(term))
    store(ctx, node, term, slot)
    return Text(slot.size, slot)


def string_at(ctx: Context, node: ast.AST, term: Term, size: int, *, user: bool = False) -> Text:
    """Return the NUL-terminated string that the pointer or address *term* points to.

    Raises:
        CompileError: it points at something that is no text.
    """
    place = ctx.place(node)
    if isinstance(term, Text):
        return term
    if isinstance(term, Pointer):
        if not _may_be_text(term.target):
            what = format_ctype(term.target)
            raise ctx.error(node, f"this points to {what}, which is no string", "string() reads char, bytes or void")
        base, offset, space = term.base, term.offset, term.space
    else:
        if not isinstance(term, Constant | Number):
            raise ctx.error(node, f"string() reads a pointer or an address, this is {describe(term)}", advice(term))
        base, offset, space = integers.address(ctx, node, term), 0, ctx.default_space
    space = "user" if user else space
    return Text(size, None, lambda slot: ReadText(place, slot, base, offset, space))


def _may_be_text(target: CType) -> bool:
    return isinstance(target, Void) or (isinstance(target, Int) and target.size == 1)


def compare(ctx: Context, node: ast.AST, left: Term, right: Term, *, equal: bool = True, prefix: bool = False) -> Term:
    """Return the truth of `left == right`, of `!=`, or that *left* begins with the literal *right*."""
    if isinstance(left, Literal) and isinstance(right, Literal):
        same = left.text.startswith(right.text) if prefix else left.text == right.text
        return Constant(int(same == equal), "bool")
    if isinstance(left, Literal):
        left, right = right, left
    place = ctx.place(node)
    truth = ctx.build.value(BOOL)
    if isinstance(right, Literal):
        data = encoded(ctx, node, right.text)
        if len(data) >= size_of(left):
            raise ctx.error(
                node,
                f"a string of at most {size_of(left) - 1} bytes never equals one of {len(data)}",
                "give string() a larger size, or compare with .startswith()",
            )
        ctx.build.add(CompareText(place, truth, buffer(ctx, node, left), data, prefix))
    else:
        ctx.build.add(CompareTexts(place, truth, buffer(ctx, node, left), buffer(ctx, node, right)))
    return Number(truth if equal else ctx.build.negate(place, truth), "bool", 0, 1)
