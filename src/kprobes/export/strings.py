"""Strings in C: char arrays, read into a buffer in a statement before the expression that wants them."""

from __future__ import annotations

import ast

from kprobes.compiler.front import texts
from kprobes.compiler.front.terms import Literal, Pointer, Term, Text
from kprobes.export import calls, constants, expressions, functions
from kprobes.export.cnaming import c_string
from kprobes.export.unit import ATOM, UNARY, Unit


def text(unit: Unit, node: ast.expr) -> str:
    """Return a `const char *` for *node*, reading it into a buffer first where it lies in memory.

    Raises:
        CompileError: it can't be read here, or has no counterpart.
    """
    if isinstance(node, ast.Name) and _is_buffer(unit, node):
        return unit.locals[node.id]
    setting = constants.setting_in(unit, node)
    if setting is not None:
        return unit.shared.setting_of(setting)
    term = unit.term(node)
    if isinstance(term, Literal) and node not in unit.seen.calls:
        return c_string(term.text)
    if calls.is_word(unit, node, "comm"):
        return "current->comm"
    if unit.conditional:
        raise unit.refuse(node, "reading a string in the middle of a condition", "give it a name in a statement before")
    size = texts.size_of(term)
    buffer = unit.local("text")
    unit.declare(f"char {buffer}[{size}];")
    fill(unit, node, buffer)
    return buffer


def _is_buffer(unit: Unit, node: ast.expr) -> bool:
    """Return whether *node* is a local string, not a pointer to one that has yet to be read."""
    return isinstance(node, ast.Name) and node.id in unit.locals and not isinstance(unit.seen.terms.get(node), Pointer)


def fill(unit: Unit, node: ast.expr, buffer: str, size: str = "") -> None:
    """Write the statements that read the string *node* into the char array *buffer*, of *size* where C can't tell."""
    term = unit.term(node)
    size = size or f"sizeof({buffer})"
    unit.include("linux/string.h")
    if isinstance(node, ast.Call) and node in unit.seen.calls:
        functions.fill(unit, node, buffer)
        return
    if isinstance(term, Literal) or calls.is_word(unit, node, "comm"):
        source = c_string(term.text) if isinstance(term, Literal) else "current->comm"
        unit.line(f"strscpy_pad({buffer}, {source}, {size});")
        return
    if _is_buffer(unit, node) or constants.setting_in(unit, node) is not None:
        unit.line(f"strscpy_pad({buffer}, {text(unit, node)}, {size});")
        return
    address, space = string_place(unit, node)
    reader = {"kernel": "peek_kernel_string", "user": "peek_user_string", "any": "peek_string"}[space]
    unit.use(reader)
    unit.fail(f"!{reader}({buffer}, {size}, {address})")


def is_string(term: Term | None) -> bool:
    """Return whether *term* is a string."""
    return isinstance(term, Text | Literal) or (term is not None and texts.is_text(term))


def string_place(unit: Unit, node: ast.expr) -> tuple[str, str]:
    """Return the address of the string that *node* reads, as a pointer, and the space that it lies in."""
    user = False
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in ("string", "user_string"):
            source, user = function.value, function.attr == "user_string"
        elif calls.word_of(unit, node) in ("string", "user_string") and node.args:
            source, user = node.args[0], calls.word_of(unit, node) == "user_string"
        else:
            raise unit.refuse(node, "this string", "read it from memory: p.string(64)")
    else:
        source = node
    term = unit.term(source)
    found = expressions.value(unit, source)
    space = "user" if user else term.space if isinstance(term, Pointer) else "any"
    text = found.within(UNARY) if found.pointer else f"(void *){found.within(UNARY)}"
    if isinstance(term, Pointer) and found.pointer and "PEEK" not in text and found.binds == ATOM:
        return found.text, space
    return text, space
