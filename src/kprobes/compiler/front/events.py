"""`emit` and `log`: from expressions to the layout of a record."""

from __future__ import annotations

import ast
import re
from functools import partial

from kprobes.compiler.front import integers, pointers, structs, texts
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.mistakes import all_made
from kprobes.compiler.front.terms import (
    Constant,
    Everything,
    Fields,
    Literal,
    Nothing,
    Number,
    Pointer,
    Term,
    describe,
)
from kprobes.compiler.ir.nodes import I64, U64, Emit, IntType, Operand
from kprobes.frozen import replace
from kprobes.model.ctype import Function, Struct
from kprobes.model.layout import RECORD_HEADER, EventLayout, Field, pack_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.front.context import Context
    from kprobes.compiler.front.text import SourceText

Names = tuple[tuple[tuple[int, str], ...], bool]
U8 = IntType(8, signed=False)
# A record larger than this is refused: it is built on a stack of 512 bytes or in a scratch map.
LARGEST_RECORD = 8192
# Words that send a line of text.
LINES = frozenset({"log", "printk", "pr_info"})


class Record:
    """Gathers the fields of one event."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.kinds: list[str] = []
        self.operands: list[Operand] = []
        self.enums: list[Names] = []

    def add(self, ctx: Context, node: ast.AST, name: str, term: Term) -> str:
        """Append *term* as a field; return the name it gets, which no other field has.

        Raises:
            CompileError: it is nothing that can be shown.
        """
        kind, operand = _field(ctx, node, term)
        unique = self.put(name, kind, operand)
        self.enums[-1] = _names(ctx, term)
        return unique

    def put(self, name: str, kind: str, operand: Operand) -> str:
        """Append *operand* as it is; return the name that the field gets."""
        unique, number = name, 2
        while unique in self.names:
            unique, number = f"{name}_{number}", number + 1
        self.names.append(unique)
        self.kinds.append(kind)
        self.operands.append(operand)
        self.enums.append(((), False))
        return unique

    def layout(self) -> tuple[tuple[Field, ...], int]:
        """Return the fields in place and the size of the record."""
        shapes = [
            (name, kind, operand.type.bits // 8 if not hasattr(operand, "size") else operand.size)
            for name, kind, operand in zip(self.names, self.kinds, self.operands, strict=True)
        ]
        fields, size = pack_fields(shapes, RECORD_HEADER)
        named = zip(fields, self.enums, strict=True)
        return tuple(replace(one, names=names[0], flags=names[1]) if names[0] else one for one, names in named), size


def _names(ctx: Context, term: Term) -> Names:
    """Return the names for the values of *term*, and whether they are flags."""
    if not isinstance(term, Number) or term.enum is None:
        return (), False
    return tuple(sorted(ctx.own.enumerators(term.enum).items())), term.enum.flags


def _field(ctx: Context, node: ast.AST, term: Term) -> tuple[str, Operand]:
    place, build = ctx.place(node), ctx.build
    if texts.is_text(term):
        return "str", texts.buffer(ctx, node, term)
    if isinstance(term, Pointer | Nothing) and not (isinstance(term, Pointer) and term.embedded):
        is_code = isinstance(term, Pointer) and isinstance(term.target, Function)
        return "symbol" if is_code else "hex", integers.address(ctx, node, term)
    if isinstance(term, Constant):
        if term.kind == "bool":
            return "bool", build.const(place, term.value, U8)
        value = integers.number(ctx, node, term).value
        return ("hex" if term.kind == "hex" else "int" if value.type.signed else "uint"), value
    if not isinstance(term, Number):
        hint = "name one of its fields or elements" if isinstance(term, Pointer) else advice(term)
        raise ctx.error(node, f"{describe(term)} can't be part of an event", hint)
    if term.kind == "bool":
        return "bool", build.convert(place, integers.truth(ctx, node, term), U8)
    if term.kind in ("stack", "user_stack"):
        return term.kind, build.convert(place, term.value, I64)
    if term.kind in ("cgroup", "char", "hex", "ipv4", "symbol"):
        kind = IntType(term.store.bits, signed=False) if term.store and term.kind != "symbol" else U64
        return term.kind, build.convert(place, term.value, kind)
    kind = term.store or term.value.type
    return ("int" if kind.signed else "uint"), build.convert(place, term.value, kind)


def emit(ctx: Context, node: ast.Call, *, log: bool) -> Term:
    """Carry out `emit(...)` or `log(...)`.

    Raises:
        CompileError: an argument can't be shown.
    """
    if len(node.args) == 1 and not node.keywords and isinstance(node.args[0], ast.JoinedStr):
        record = Record()
        template = _template(ctx, node.args[0], record)
        return _send(ctx, node, record, template)
    if log:
        return _log_plain(ctx, node)
    record = Record()
    by_place = [partial(_add_positional, ctx, argument, record) for argument in node.args]
    by_name = [partial(_add_named, ctx, keyword, record) for keyword in node.keywords]
    all_made(ctx, by_place + by_name)
    return _send(ctx, node, record, "")


def _add_positional(ctx: Context, argument: ast.expr, record: Record) -> None:
    if isinstance(argument, ast.Starred):
        _add_all(ctx, argument.value, record)
        return
    if isinstance(argument, ast.JoinedStr):
        raise ctx.error(argument, "an f-string stands alone", 'write emit(f"...") or log(f"...")')
    term = ctx.lower(argument)
    name = name_of(ctx.frame.text, argument, len(record.names))
    if isinstance(term, Everything):
        _add_all(ctx, argument, record)
        return
    parts = structs.leaves(ctx, argument, term)
    if parts is None:
        record.add(ctx, argument, name, term)
    for part, leaf in parts or ():
        record.add(ctx, argument, f"{name}{part}" if part.startswith("[") else f"{name}.{part}", leaf)


def _add_named(ctx: Context, keyword: ast.keyword, record: Record) -> None:
    if keyword.arg is None:
        _add_all(ctx, keyword.value, record)
        return
    term = ctx.lower(keyword.value)
    parts = structs.leaves(ctx, keyword.value, term)
    if parts is None:
        record.add(ctx, keyword.value, keyword.arg, term)
    for part, leaf in parts or ():
        record.add(ctx, keyword.value, f"{keyword.arg}{part}" if part[0] == "[" else f"{keyword.arg}.{part}", leaf)


def _log_plain(ctx: Context, node: ast.Call) -> Term:
    if len(node.args) == 1 and not node.keywords:
        term = ctx.lower(node.args[0])
        if isinstance(term, Literal):
            return _send(ctx, node, Record(), term.text.replace("{", "{{").replace("}", "}}"))
    raise ctx.error(node, "log() takes one string", 'write log(f"... {value} ...")')


def send(ctx: Context, node: ast.AST, fields: Sequence[tuple[str, Term]], name: str) -> Term:
    """Send an event called *name*, with these *fields*."""
    record = Record()
    for field_name, term in fields:
        record.add(ctx, node, field_name, term)
    return _send(ctx, node, record, "", name)


def _add_all(ctx: Context, node: ast.expr, record: Record) -> None:
    """Append what `*args`, `**arguments`, `**header` stand for: all parameters, or all members of a struct."""
    term = ctx.lower(node)
    if isinstance(term, Everything):
        for name, one in ctx.parameters_for_events(node):
            record.add(ctx, node, name, one)
        return
    if isinstance(term, Fields):
        for field in term.make():
            record.put(*field)
        return
    if isinstance(term, Pointer) and isinstance(term.target, Struct) and not term.embedded:
        term = pointers.element(ctx, node, term, Constant(0), node)
    parts = structs.leaves(ctx, node, term)
    if parts is None:
        hint = "emit(*args) sends all parameters, emit(**pointer) all members of a struct; others are named one by one"
        raise ctx.error(node, f"{describe(term)} can't be unpacked here", hint)
    for name, one in parts:
        record.add(ctx, node, name, one)


def _send(ctx: Context, node: ast.AST, record: Record, template: str, name: str = "") -> Term:
    fields, size = record.layout()
    if size > LARGEST_RECORD:
        raise ctx.error(
            node, f"this event takes {size} bytes, at most {LARGEST_RECORD} can be sent", "send shorter strings"
        )
    name = name or ctx.text.source.name
    sent = (name, fields, template)
    same = (event.id for event in ctx.events if (event.name, event.fields, event.template) == sent)
    number = next(same, None)
    if number is None:
        number = ctx.around.first_event_id + len(ctx.events)
        ctx.events.append(EventLayout(number, name, size, fields, template))
    ctx.build.add(Emit(ctx.place(node), number, tuple(record.operands)))
    return Nothing()


# Names and templates.


def name_of(text: SourceText, node: ast.expr, index: int) -> str:
    """Return the name of a positional value: its text, without the call of a bare word or of `.string()`."""
    while isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("string", "user_string"):
            node = node.func.value
        elif isinstance(node.func, ast.Name) and node.func.id in _WRAPPERS and node.args:
            node = node.args[0]
        elif not node.args and not node.keywords:
            node = node.func
        else:
            break
    if isinstance(node, ast.Constant):
        return f"field{index + 1}"
    return _VARIABLE.sub(r"\1", text.segment(node))


# Global variables go by their own name.
_VARIABLE = re.compile(r"""\b(?:var|percpu)\(\s*["']([^"']+)["'][^()]*\)""")
_WRAPPERS = frozenset({"string", "user_string", "hex", "symbol", "int", "bool", "flags", "errname", "ipv4"})


def _template(ctx: Context, node: ast.JoinedStr, record: Record) -> str:
    parts = []
    for piece in node.values:
        if isinstance(piece, ast.Constant):
            parts.append(str(piece.value).replace("{", "{{").replace("}", "}}"))
            continue
        assert isinstance(piece, ast.FormattedValue)
        term = ctx.lower(piece.value)
        if isinstance(term, Literal) and not piece.format_spec:
            parts.append(term.text.replace("{", "{{").replace("}", "}}"))
            continue
        plain = re.sub(r"\W+", "_", name_of(ctx.frame.text, piece.value, len(record.names))).strip("_")
        plain = plain if plain[:1].isalpha() else f"value{plain}"  # a digit would be a position to str.format
        name = record.add(ctx, piece.value, plain, term)
        conversion = "" if piece.conversion == -1 else f"!{chr(piece.conversion)}"
        parts.append(f"{{{name}{conversion}{_format_spec(ctx, piece, record.kinds[-1])}}}")
    return "".join(parts)


def _format_spec(ctx: Context, piece: ast.FormattedValue, kind: str) -> str:
    if piece.format_spec is None:
        return ""
    assert isinstance(piece.format_spec, ast.JoinedStr)
    parts = piece.format_spec.values
    if any(not isinstance(part, ast.Constant) for part in parts):
        raise ctx.error(piece, "a format can't hold a value of its own", "write it out: {x:8d}")
    spec = "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
    sample: object = "" if kind in _SHOWN_AS_TEXT or piece.conversion != -1 else 0
    try:
        format(sample, spec)
    except (ValueError, TypeError):
        raise ctx.error(
            piece,
            f"the format {spec!r} does not fit {'a string' if sample == '' else 'an integer'}",
            _FORMATS[type(sample)],
        ) from None
    return f":{spec}" if spec else ""


_FORMATS = {str: "strings take a width: {x:>16}", int: "integers take d, x, b, a width: {x:>8}, {x:#x}"}

_SHOWN_AS_TEXT = frozenset({"str", "symbol", "stack", "user_stack"})
