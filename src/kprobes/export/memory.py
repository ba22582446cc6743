"""Places in memory in C: fields, elements, registers. All is read by the helpers that can't fault."""

from __future__ import annotations

import ast

from kprobes.arch.x86_64.registers import ALIASES
from kprobes.compiler.front.terms import Constant, Number, Pointer, Term, Word
from kprobes.compiler.ir.nodes import U64
from kprobes.export import calls, constants, expressions, maps
from kprobes.export.headers import header_of, pointer_text
from kprobes.export.unit import ATOM, UNARY, Expression, Unit
from kprobes.model.ctype import Struct

_READERS = {"kernel": "PEEK", "user": "PEEK_USER", "any": "PEEK_ANY"}


def attribute(unit: Unit, node: ast.Attribute) -> Expression:
    """Return a register, a field, or a constant of a module."""
    owner = unit.seen.terms.get(node.value)
    if isinstance(node.value, ast.Name) and _is_registers(unit, node.value, owner):
        unit.context.add("regs")
        return Expression(f"regs->{ALIASES.get(node.attr, node.attr)}", signed=False)
    if isinstance(owner, Pointer):
        return _read(unit, node, owner)
    term = unit.term(node)
    if isinstance(term, Constant):
        return constants.literal(term.value)  # errno.ENOENT, an enum's member
    return calls.word(unit, node, node.attr)


def _is_registers(unit: Unit, node: ast.Name, term: Term | None) -> bool:
    return node.id not in unit.locals and (term == Word("regs") or (term is None and node.id == "regs"))


def subscript(unit: Unit, node: ast.Subscript) -> Expression:
    """Return an element of a map or of memory."""
    map_ = maps.named(unit, node.value)
    if map_ is not None:
        return maps.read(unit, node, map_)
    owner = unit.term(node.value)
    if isinstance(owner, Pointer) and not isinstance(node.slice, ast.Slice):
        return _read(unit, node, owner)
    raise unit.refuse(node, "this subscript", "name an element of a pointer or of a map")


def _read(unit: Unit, node: ast.Attribute | ast.Subscript, owner: Pointer) -> Expression:
    """Return what lies at the place *node*, or its address where it is a struct or an array in another one."""
    term = unit.term(node)
    where = place(unit, node)
    if isinstance(term, Pointer) and (term.embedded or term.count is not None):
        address = where if term.count is not None else f"&{where}"
        return Expression(address, ATOM if term.count is not None else UNARY, signed=False, pointer=True)
    reader = _READERS[owner.space]
    unit.use(reader)
    text = f"{reader}({where}, {unit.fault})"
    if isinstance(term, Pointer):
        return Expression(text, pointer=True, signed=False)
    if not isinstance(term, Number):
        raise unit.refuse(node, "a value of this type", "read one of its fields")
    return Expression(text, wide=term.store is None, signed=term.value.type != U64)


def place(unit: Unit, node: ast.expr) -> str:
    """Return the lvalue that *node* stands for: `file->f_path.dentry`."""
    if isinstance(node, ast.Attribute):
        owner = unit.term(node.value)
        assert isinstance(owner, Pointer)
        _need(unit, node, owner)
        if owner.embedded and isinstance(node.value, ast.Attribute | ast.Subscript):
            return f"{place(unit, node.value)}.{node.attr}"
        return f"{expressions.value(unit, node.value).within(ATOM)}->{node.attr}"
    assert isinstance(node, ast.Subscript)
    owner = unit.term(node.value)
    assert isinstance(owner, Pointer)
    index = unit.seen.terms.get(node.slice)
    if owner.count is not None and not isinstance(index, Constant):
        raise unit.refuse(node, "a computed index of an array", "an index that is known, or a pointer to the elements")
    if isinstance(owner.target, Struct):
        _need(unit, node, owner, member=False)
    if owner.count is not None and isinstance(node.value, ast.Attribute | ast.Subscript):
        return f"{place(unit, node.value)}[{expressions.number(unit, node.slice).text}]"
    return f"{expressions.value(unit, node.value).within(ATOM)}[{expressions.number(unit, node.slice).text}]"


def _need(unit: Unit, node: ast.AST, owner: Pointer, *, member: bool = True) -> None:
    """Include the header that defines the struct *owner* points to; refuse what can't be read as C has it."""
    struct = owner.target
    if not isinstance(struct, Struct):
        raise unit.refuse(node, "this place", "name a field of a struct")
    if member and isinstance(node, ast.Attribute):
        found = unit.types.member(struct, node.attr)
        if found is not None and found.bit_size:
            raise unit.refuse(
                node, f"the bit-field {node.attr}, which has no address", "read what lies around it: deref()"
            )
    need_struct(unit, node, struct)


def need_struct(unit: Unit, node: ast.AST, struct: Struct) -> None:
    """Include the header that defines *struct*.

    Raises:
        CompileError: none is known, and the user named none.
    """
    header = header_of(struct)
    if header is not None:
        unit.include(header)
    elif not unit.shared.given and struct.name:
        what = f"no header is known that tells what a struct {struct.name} is"
        raise unit.seen.text.error(node, what, "name it, if the kernel has a public one: --include linux/NAME.h")


def pointer_cast(term: Pointer, text_: str) -> str:
    """Return *text_* as a pointer of the type of *term*."""
    return f"({pointer_text(term.target)}){text_}"
