"""What Python does with strings: length, elements and slices, searching, and f-strings.

Strings are bytes in a handler: lengths and positions count them. Every result has a size known when the handler is
compiled, as its operands have.
"""

from __future__ import annotations

import ast
import re
from functools import partial

from kprobes.compiler.front import conditions, integers, texts
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.terms import Constant, Items, Literal, Nothing, Number, Pointer, Term, Text, describe
from kprobes.compiler.ir.nodes import BOOL, I64, U64, CutText, FindText, FormatText, IntType, Piece, Slot, TextLength

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.front.context import Context
    from kprobes.compiler.ir.nodes import Operand, Value

METHODS = ("startswith", "endswith")


def length(ctx: Context, node: ast.AST, term: Term) -> Constant | Number:
    """Return how many bytes the string *term* has."""
    if isinstance(term, Literal):
        return Constant(len(texts.encoded(ctx, node, term.text)))
    slot = texts.buffer(ctx, node, term)
    value = ctx.build.value(I64)
    ctx.build.add(TextLength(ctx.place(node), value, slot))
    return Number(value, "int", 0, slot.size - 1)


# Elements and slices


def element(ctx: Context, node: ast.Subscript, owner: Term, index: Term) -> Term:
    """Return `s[i]`, a string of one byte; empty where there is none.

    Raises:
        CompileError: *index* is no integer, or lies outside of every such string.
    """
    if not isinstance(index, Constant | Number):
        raise ctx.error(node.slice, f"the index of a string is an integer, this is {describe(index)}", advice(index))
    most = texts.size_of(owner) - 1
    if isinstance(index, Constant):
        if not -most <= index.value < most:
            raise ctx.error(
                node.slice, f"a string of at most {most} bytes has no byte {index.value}", "s[-1] is the last one"
            )
        if isinstance(owner, Literal):
            return _of_literal(ctx, node, owner, slice(index.value % most, index.value % most + 1))
    slot = texts.buffer(ctx, node, owner)
    if index.value < 0 if isinstance(index, Constant) else index.low < 0:
        found = length(ctx, node, Text(slot.size, slot))
        from_end = partial(integers.arithmetic, ctx, node, "add", found, index)
        index = from_end() if isinstance(index, Constant) else _where_negative(ctx, node, index, from_end)
    # What is negative even so is, as a u64, behind the end of every string.
    return _cut(ctx, node, slot, index, Constant(1), 2)


def sliced(ctx: Context, node: ast.Subscript, owner: Term) -> Term:
    """Return `s[start:stop]` as Python has it.

    Raises:
        CompileError: a bound is no integer, or there is a step.
    """
    assert isinstance(node.slice, ast.Slice)
    start, stop = slice_bounds(ctx, node.slice)
    if isinstance(owner, Literal) and not isinstance(start, Number) and not isinstance(stop, Number):
        ends = (None if bound is None else bound.value for bound in (start, stop))
        return _of_literal(ctx, node, owner, slice(*ends))
    slot = texts.buffer(ctx, node, owner)
    most = _most(slot.size - 1, start, stop)
    if most <= 0:
        return Literal("")
    found: list[Constant | Number] = []
    first = _from_start(ctx, node, slot, start or Constant(0), found)
    if stop is None:
        return _cut(ctx, node, slot, first, Constant(most), most + 1)
    last = _from_start(ctx, node, slot, stop, found)
    if isinstance(first, Constant) and isinstance(last, Constant):
        return _cut(ctx, node, slot, first, Constant(most), most + 1)
    count = integers.arithmetic(ctx, node, "sub", last, first)
    is_none = integers.compare(ctx, node, "le", last, first)
    return _cut(ctx, node, slot, first, _chosen(ctx, node, is_none, Constant(0), count), most + 1)


def slice_bounds(ctx: Context, node: ast.Slice) -> tuple[Constant | Number | None, Constant | Number | None]:
    """Return the two ends of a slice, None where it has none.

    Raises:
        CompileError: one is no integer, or there is a step.
    """
    if node.step is not None:
        raise ctx.error(node.step, "a slice in a handler has no step", "s[start:stop]")
    ends: list[Constant | Number | None] = []
    for bound in (node.lower, node.upper):
        term = None if bound is None else ctx.lower(bound)
        if term is not None and not isinstance(term, Constant | Number | Nothing):
            raise ctx.error(bound or node, f"a slice is between integers, this is {describe(term)}", advice(term))
        ends.append(None if isinstance(term, Nothing) else term)
    return ends[0], ends[1]


def _of_literal(ctx: Context, node: ast.AST, owner: Literal, part: slice) -> Literal:
    try:
        return Literal(texts.encoded(ctx, node, owner.text)[part].decode())
    except UnicodeDecodeError:
        raise ctx.error(node, "this cuts a character in two", "positions count the bytes of UTF-8") from None


def _most(most: int, start: Constant | Number | None, stop: Constant | Number | None) -> int:
    """Return how many bytes of a string of up to *most* a slice has at most."""
    first = start.value if isinstance(start, Constant) else 0
    last = stop.value if isinstance(stop, Constant) else most
    if first < 0 and isinstance(stop, Constant) and last < 0:
        return min(most, last - first)
    if first < 0:
        return min(most, -first, last if last >= 0 else most)
    return min(most, last if last >= 0 else most + last) - first


def _from_start(
    ctx: Context, node: ast.AST, slot: Slot, bound: Constant | Number, found: list[Constant | Number]
) -> Constant | Number:
    """Return *bound* counted from the start, not below 0; *found* keeps the string's length."""
    if bound.value >= 0 if isinstance(bound, Constant) else bound.low >= 0:
        return bound
    if not found:
        found.append(length(ctx, node, Text(slot.size, slot)))

    def from_end() -> Constant | Number:
        moved = integers.arithmetic(ctx, node, "add", found[0], bound)
        return _chosen(ctx, node, integers.compare(ctx, node, "lt", moved, Constant(0)), Constant(0), moved)

    return from_end() if isinstance(bound, Constant) else _where_negative(ctx, node, bound, from_end)


def _where_negative(ctx: Context, node: ast.AST, number: Number, make: partial[Number] | object) -> Number:
    """Return what *make* gives where *number* is negative, else *number*."""
    is_negative = integers.compare(ctx, node, "lt", number, Constant(0))
    assert isinstance(is_negative, Number)
    assert callable(make)
    chosen = ctx.select(node, is_negative.value, make, lambda: number)
    assert isinstance(chosen, Number)
    return chosen


def _chosen(
    ctx: Context, node: ast.AST, condition: Term, yes: Constant | Number, no: Constant | Number
) -> Constant | Number:
    if isinstance(condition, Constant):
        return yes if condition.value else no
    assert isinstance(condition, Number)
    chosen = ctx.select(node, condition.value, lambda: yes, lambda: no)
    assert isinstance(chosen, Constant | Number)
    return chosen


def _cut(ctx: Context, node: ast.AST, source: Slot, start: Term, count: Term, size: int) -> Text:
    slot = ctx.new_slot(None, size)
    ends = [integers.wide(ctx, node, bound, U64) for bound in (start, count)]
    ctx.build.add(CutText(ctx.place(node), slot, source, ends[0], ends[1]))
    return Text(size, slot)


# Searching


def contains(ctx: Context, node: ast.AST, wanted: tuple[Term, ast.AST], owner: Term) -> Constant | Number:
    """Return the truth of `"text" in s`.

    Raises:
        CompileError: what is looked for is no literal.
    """
    if not isinstance(wanted[0], Literal):
        what, hint = describe(wanted[0]), advice(wanted[0])
        if texts.is_text(wanted[0]):
            what, hint = "a computed one", "compare parts: s[2:6] == other, s.startswith(other)"
        raise ctx.error(wanted[1], f"`in` looks for a literal string in a string, this is {what}", hint)
    return _find(ctx, node, owner, wanted[0], at_end=False)


def _find(ctx: Context, node: ast.AST, owner: Term, wanted: Literal, *, at_end: bool) -> Constant | Number:
    data = texts.encoded(ctx, node, wanted.text)
    if isinstance(owner, Literal):
        return Constant(int(owner.text.endswith(wanted.text) if at_end else wanted.text in owner.text), "bool")
    if not data:
        return Constant(1, "bool")
    if len(data) >= texts.size_of(owner):
        what = f"a string of at most {texts.size_of(owner) - 1} bytes never has {len(data)} in it"
        raise ctx.error(node, what, "give string() a larger size, or look for less")
    truth = ctx.build.value(BOOL)
    slot = texts.buffer(ctx, node, owner)
    ctx.build.add(FindText(ctx.place(node), truth, slot, data, at_end))
    return Number(truth, "bool", 0, 1)


def method(ctx: Context, node: ast.Call, name: str, owner: Term, wanted: tuple[Term, ast.AST]) -> Term:
    """Return the truth of `s.startswith(wanted)` or `s.endswith(wanted)`; of a tuple, whether any of it fits.

    Raises:
        CompileError: *wanted* is no string, or an empty literal.
    """
    term, where = wanted
    if isinstance(term, Items):
        return conditions.any_of(
            ctx, node, [partial(method, ctx, node, name, owner, (item, where)) for item in term.items]
        )
    if isinstance(term, Literal):
        if not term.text:
            verb = "begins" if name == "startswith" else "ends"
            raise ctx.error(where, f"every string {verb} with nothing", "give a longer literal")
        if name == "endswith":
            return _find(ctx, node, owner, term, at_end=True)
        return texts.compare(ctx, node, owner, term, prefix=True)
    if not texts.is_text(term):
        hint = "read the string it points to: .string()" if isinstance(term, Pointer) else advice(term)
        raise ctx.error(where, f"{name}() takes a string, this is {describe(term)}", hint)
    slot, other = texts.buffer(ctx, node, owner), texts.buffer(ctx, where, term)
    count = length(ctx, node, Text(other.size, other))
    size = min(slot.size, other.size)
    if name == "startswith":
        part = _cut(ctx, node, slot, Constant(0), count, size)
    else:  # where the other one is longer the start is negative, which as a u64 lies behind every end
        start = integers.arithmetic(ctx, node, "sub", length(ctx, node, Text(slot.size, slot)), count)
        part = _cut(ctx, node, slot, start, Constant(size - 1), size)
    return texts.compare(ctx, node, part, Text(other.size, other))


# f-strings

_SPEC = re.compile(r"(?P<alt>#?)(?P<width>(?:0\d+)?)(?P<kind>[dxX]?)")
_TEXT_SPEC = re.compile(r"(?:\.(?P<most>\d+))?s?")


class _Pieces:
    """An f-string on its way to a node: its pieces, what they take, and how long they can become."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.operands: list[Operand] = []
        self.most = 0
        self.text = b""

    def literal(self, text: bytes) -> None:
        """Add *text*."""
        self.text += text
        self.most += len(text)

    def string(self, slot: Slot) -> None:
        """Add the string in *slot*."""
        self._take(Piece(self.text, takes=True), slot, slot.size - 1)

    def number(self, value: Value, shape: Piece) -> None:
        """Add an integer in the *shape* given."""
        room = shape.most + len(shape.prefix) + value.type.signed
        whole = Piece(self.text, True, shape.base, shape.prefix, shape.least, shape.most, shape.upper)
        self._take(whole, value, room)

    def _take(self, piece: Piece, operand: Operand, most: int) -> None:
        self.pieces.append(piece)
        self.operands.append(operand)
        self.most += most
        self.text = b""

    def finish(self) -> tuple[Piece, ...]:
        """Return all pieces."""
        return (*self.pieces, Piece(self.text)) if self.text else tuple(self.pieces)


def formatted(ctx: Context, node: ast.JoinedStr) -> Term:
    """Return an f-string as a value: put together at run time, of a size that always suffices.

    Raises:
        CompileError: a value can't be shown in a string, or a format is more than handlers do.
    """
    pieces = _Pieces()
    for part in node.values:
        if isinstance(part, ast.Constant):
            pieces.literal(texts.encoded(ctx, part, str(part.value)))
            continue
        assert isinstance(part, ast.FormattedValue)
        if part.conversion not in (-1, ord("s")):
            raise ctx.error(
                part,
                f"!{chr(part.conversion)} can't be used in a string that a handler makes",
                "leave it out, or send it in an event of its own",
            )
        _add(ctx, part.value, ctx.lower(part.value), _spec(ctx, part), pieces)
    return _joined(ctx, node, pieces)


def concatenated(ctx: Context, node: ast.AST, left: tuple[Term, ast.AST], right: tuple[Term, ast.AST]) -> Term:
    """Return the two strings *left* and *right* as one."""
    pieces = _Pieces()
    for term, where in (left, right):
        _add(ctx, where, term, "", pieces)
    return _joined(ctx, node, pieces)


def _joined(ctx: Context, node: ast.AST, pieces: _Pieces) -> Term:
    if not pieces.operands:
        return Literal(pieces.text.decode())
    if pieces.most >= texts.LARGEST:
        raise ctx.error(node, f"this string may have {pieces.most} bytes", f"at most {texts.LARGEST - 1} are possible")
    slot = ctx.new_slot(None, pieces.most + 1)
    ctx.build.add(FormatText(ctx.place(node), slot, pieces.finish(), tuple(pieces.operands)))
    return Text(slot.size, slot)


def _spec(ctx: Context, part: ast.FormattedValue) -> str:
    if part.format_spec is None:
        return ""
    assert isinstance(part.format_spec, ast.JoinedStr)
    if any(not isinstance(one, ast.Constant) for one in part.format_spec.values):
        raise ctx.error(part, "a format can't hold a value of its own", "write it out: {x:08x}")
    return "".join(str(one.value) for one in part.format_spec.values if isinstance(one, ast.Constant))


def _add(ctx: Context, node: ast.AST, term: Term, spec: str, pieces: _Pieces) -> None:
    if texts.is_text(term):
        _add_text(ctx, node, term, spec, pieces)
    elif isinstance(term, Constant):
        pieces.literal(_constant(ctx, node, term, spec).encode())
    elif isinstance(term, Number) and term.kind == "bool" and not spec:
        words = ctx.select(node, integers.truth(ctx, node, term), lambda: Literal("True"), lambda: Literal("False"))
        pieces.string(texts.buffer(ctx, node, words))
    elif isinstance(term, Number) and term.kind in ("symbol", "stack", "user_stack"):
        what = "a symbol" if term.kind == "symbol" else describe(term)
        raise ctx.error(node, f"{what} has its name only where the event is read", 'send it: emit(...) or log(f"...")')
    elif isinstance(term, Number):
        _add_number(ctx, node, term, spec, pieces)
    elif isinstance(term, Pointer) and not term.embedded:
        address = Number(integers.address(ctx, node, term), "hex", 0, (1 << 64) - 1)
        _add_number(ctx, node, address, spec, pieces)
    else:
        raise ctx.error(node, f"{describe(term)} can't be part of a string", advice(term))


def _add_text(ctx: Context, node: ast.AST, term: Term, spec: str, pieces: _Pieces) -> None:
    found = _TEXT_SPEC.fullmatch(spec)
    if not found:
        raise ctx.error(node, f"the format {spec!r} can't be used for a string in a handler", "cut it with {s:.8}")
    if isinstance(term, Literal):
        pieces.literal(texts.encoded(ctx, node, format(term.text, spec)))
        return
    slot = texts.buffer(ctx, node, term)
    if found["most"] is not None and int(found["most"]) < slot.size - 1:
        most = int(found["most"])
        if not most:
            return
        part = _cut(ctx, node, slot, Constant(0), Constant(most), most + 1)
        assert part.slot is not None
        slot = part.slot
    pieces.string(slot)


def _constant(ctx: Context, node: ast.AST, term: Constant, spec: str) -> str:
    if term.kind == "bool" and not spec:
        return str(bool(term.value))
    if term.kind == "hex" and not spec:
        return f"0x{term.value & (1 << 64) - 1:x}"
    try:
        return format(term.value, spec)
    except ValueError as error:
        raise ctx.error(node, f"the format {spec!r} does not fit an integer", str(error)) from None


def _add_number(ctx: Context, node: ast.AST, term: Number, spec: str, pieces: _Pieces) -> None:
    found = _SPEC.fullmatch(spec)
    if not found:
        hint = "d, x, X, #x and zeros before: {x:08x}; log() and emit() alone take all of Python's"
        raise ctx.error(node, f"the format {spec!r} can't be used in a string that a handler makes", hint)
    is_hex = found["kind"] in ("x", "X") or (term.kind == "hex" and not found["kind"])
    has_prefix = is_hex and (found["alt"] or (term.kind == "hex" and not spec))
    prefix = (b"0X" if found["kind"] == "X" else b"0x") if has_prefix else b""
    low, high = term.low, term.high
    kind = U64 if low >= 0 else I64
    value = integers.wide(ctx, node, term, kind)
    if term.kind == "hex" and low < 0:  # shown as the unsigned number of its width
        narrow = IntType(term.store.bits if term.store else 64, signed=False)
        value = ctx.build.convert(ctx.place(node), ctx.build.convert(ctx.place(node), value, narrow), U64)
        low, high = 0, (1 << narrow.bits) - 1
    width = int(found["width"] or 0)
    most = max(len(f"{abs(end):{'x' if is_hex else 'd'}}") for end in (low, high))
    if width > 20:
        raise ctx.error(node, f"a number of {width} digits", "at most 20 are written")
    least = max(1, width - len(prefix))
    base = 16 if is_hex else 10
    pieces.number(value, Piece(b"", True, base, prefix, least, max(most, least), found["kind"] == "X"))
