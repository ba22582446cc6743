"""`emit` and `log` in C: lines of the kernel's log."""

from __future__ import annotations

import ast
import re

from kprobes.compiler.front.events import name_of
from kprobes.compiler.front.terms import Constant, Number, Pointer
from kprobes.export import calls, expressions, strings
from kprobes.export.cnaming import c_string, wrapped
from kprobes.export.unit import Unit
from kprobes.model.ctype import Function

# What has the type of a register or a module's parameter: as wide as 64 bits, but another type to printk.
_LONG = re.compile(r"\bregs->|\bREAD_ONCE\(|\(unsigned long\)|\bregs_return_value\(")


def emit(unit: Unit, call: ast.Call) -> None:
    """Write `emit(...)`: one line with names and values."""
    pieces, values, stacks = [], [], 0
    pairs = [(name_of(unit.seen.text, one, at), one) for at, one in enumerate(call.args)]
    pairs += [(str(one.arg), one.value) for one in call.keywords if one.arg is not None]
    if any(one.arg is None for one in call.keywords) or any(isinstance(one, ast.Starred) for one in call.args):
        raise unit.refuse(call, "sending all parameters at once", "name them: emit(file, count)")
    for name, node in pairs:
        if calls.word_of(unit, node) == "stack":
            stacks += 1
            continue
        form, value = shown(unit, node)
        pieces.append(f"{name.replace('%', '%%')}={form}")
        values.append(value)
    _print(unit, " ".join([f"{unit.title}:", *pieces]), values)
    for _ in range(stacks):
        unit.line("dump_stack();")


def log(unit: Unit, node: ast.JoinedStr) -> None:
    """Write `log(f"...")`, or an `emit` of a lone f-string."""
    form, values = "", []
    for piece in node.values:
        if isinstance(piece, ast.Constant):
            form += str(piece.value).replace("%", "%%")
            continue
        assert isinstance(piece, ast.FormattedValue)
        conversion, value = shown(unit, piece.value, quoted=False)
        form += _formatted(unit, piece, conversion)
        values.append(value)
    _print(unit, form, values)


def _formatted(unit: Unit, piece: ast.FormattedValue, conversion: str) -> str:
    """Return the conversion of printk with the width and the base that the f-string asks for."""
    spec = ast.unparse(piece.format_spec)[2:-1] if piece.format_spec is not None else ""
    if not spec and piece.conversion == -1:
        return conversion
    found = re.fullmatch(r"([<>])?(#)?(0)?(\d+)?([dxX])?", spec)
    if found is None or piece.conversion != -1 or conversion.startswith("%p"):
        raise unit.refuse(piece, f"the format {spec!r}", "{x}, {x:>8}, {x:<16}, {x:08x}, {x:#x}")
    side, alternate, zero, width, base = found.groups()
    is_text = conversion == "%s"
    left = "-" if (side == "<" or (is_text and side is None)) and width else ""
    prefix, _, letters = conversion.partition("%")
    if base in ("x", "X"):
        letters = f"{letters[:-1]}{base}"
    elif prefix:  # hexadecimal by itself
        alternate = "#"
    if is_text and (alternate or zero or base):
        raise unit.refuse(piece, f"the format {spec!r} of a string", "{x:>16}")
    return f"%{left}{alternate or ''}{zero or ''}{width or ''}{letters}"


def shown(unit: Unit, node: ast.expr, *, quoted: bool = True) -> tuple[str, str]:
    """Return how printk shows *node*: the conversion, and the value."""
    term = unit.seen.terms.get(node)
    if strings.is_string(term):
        return ('"%s"' if quoted else "%s"), strings.text(unit, node)
    if isinstance(term, Number | Constant) and term.kind in ("stack", "user_stack", "cgroup"):
        raise unit.refuse(
            node, f"a {term.kind.replace('_', ' ')} in a line of text", "emit(stack=stack()) shows the stack below it"
        )
    found = expressions.value(unit, node)
    if found.pointer:
        if isinstance(term, Pointer) and isinstance(term.target, Function):
            return "%pS", found.text
        return "0x%lx", f"(unsigned long){found.within(1)}"
    wide = expressions.widened(found)
    kind = term.kind if isinstance(term, Number | Constant) else ""
    if kind == "symbol":
        return "%pS", f"(void *){wide.within(1)}"
    if kind == "ipv4":
        name = unit.local("address")
        unit.declare(f"__be32 {name};")
        unit.line(f"{name} = (__force __be32){wide.within(1)};")
        return "%pI4", f"&{name}"
    if kind == "hex":
        return "0x%llx", f"(u64){wide.within(1)}" if wide.signed or _LONG.search(wide.text) else wide.text
    if kind == "bool" or isinstance(node, ast.Compare | ast.BoolOp):
        return "%d", f"!!{wide.within(1)}"
    if isinstance(term, Constant) and wide.signed:
        return "%lld", f"{wide.text}LL" if wide.text.lstrip("-").isdigit() else wide.text
    if _LONG.search(wide.text):
        return ("%lld", f"(s64){wide.within(1)}") if wide.signed else ("%llu", f"(u64){wide.within(1)}")
    return ("%lld" if wide.signed else "%llu"), wide.text


def _print(unit: Unit, form: str, values: list[str]) -> None:
    unit.acts = True
    unit.include("linux/printk.h")
    text = c_string(f"{form}\n")
    if not values:
        unit.line(f"pr_info({text});")
        return
    unit.line(f"pr_info({text},")
    for line in wrapped(values):
        unit.line(f"\t{line}")
