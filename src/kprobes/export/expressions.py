"""Expressions of a handler in C. What each one is, and which types it has, the compiler's front has found out before.

Integers are computed with in 64 bits, as in the handler language: what is narrower is widened where it is read. Memory
is only read by the helpers that can't fault. Whatever has no counterpart is refused at its place.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kprobes.arch.x86_64.registers import ALIASES
from kprobes.compiler.front import texts
from kprobes.compiler.front.terms import (
    I64_MAX,
    I64_MIN,
    U64_MAX,
    Constant,
    Literal,
    Nothing,
    Number,
    Pointer,
    Term,
    Text,
    Word,
)
from kprobes.compiler.ir.nodes import U64
from kprobes.export import calls
from kprobes.export.cnaming import c_string
from kprobes.export.headers import header_of, pointer_text
from kprobes.export.unit import (
    AND,
    ATOM,
    BITS,
    CHOICE,
    EQUALITY,
    OR,
    PRODUCT,
    RELATION,
    SHIFT,
    SUM,
    UNARY,
    Expression,
)
from kprobes.frozen import replace
from kprobes.model.ctype import Struct
from kprobes.model.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.export.unit import Unit

_BINARY: dict[type[ast.operator], tuple[str, int]] = {
    ast.Add: ("+", SUM), ast.Sub: ("-", SUM), ast.Mult: ("*", PRODUCT), ast.BitAnd: ("&", BITS),
    ast.BitOr: ("|", BITS), ast.BitXor: ("^", BITS),
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Is: "==",
    ast.IsNot: "!=",
}  # fmt: skip
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_READERS = {"kernel": "PEEK", "user": "PEEK_USER", "any": "PEEK_ANY"}
_LARGEST_INT = (1 << 31) - 1


def literal(value: int) -> Expression:
    """Return an integer constant."""
    if value < 0:
        text = f"{value}LL" if value < -_LARGEST_INT else str(value)
        return Expression(text if value != -(1 << 63) else "S64_MIN", UNARY)
    suffix = "" if value <= _LARGEST_INT else "LL" if value < 1 << 63 else "ULL"
    return Expression(f"{value}{suffix}", signed=value < 1 << 63)


def setting_in(unit: Unit, node: ast.AST) -> Setting | None:
    """Return the setting that *node* names, if it is one."""
    if isinstance(node, ast.Name) and node.id not in unit.locals:
        found = unit.seen.text.source.names.get(node.id)
        return found if isinstance(found, Setting) else None
    return None


def names_setting(unit: Unit, node: ast.AST) -> bool:
    """Return whether *node* depends on a setting."""
    return any(setting_in(unit, one) is not None for one in ast.walk(node))


def value(unit: Unit, node: ast.expr) -> Expression:
    """Return *node* as an expression of C.

    Raises:
        CompileError: it has no counterpart.
    """
    if isinstance(node, ast.Compare):
        return comparison(unit, node)
    if isinstance(node, ast.BoolOp):
        return _boolean(unit, node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return Expression(f"!{truth(unit, node.operand).within(UNARY)}", UNARY)
    if isinstance(node, ast.Name):
        return _name(unit, node)
    if isinstance(node, ast.Call):
        return calls.call(unit, node)
    term = unit.seen.terms.get(node)
    if isinstance(term, Nothing):
        return Expression("NULL", pointer=True)
    if isinstance(term, Constant) and not names_setting(unit, node):
        return literal(term.value)
    make = _EXPRESSIONS.get(type(node))
    if make is None:
        raise unit.refuse(node, "this expression", "take it apart with statements")
    return make(unit, node)


def number(unit: Unit, node: ast.expr) -> Expression:
    """Return *node* as an integer of 64 bits."""
    return widened(value(unit, node))


def widened(found: Expression) -> Expression:
    """Return *found* in 64 bits."""
    if found.pointer:
        return Expression(f"(u64){found.within(UNARY)}", UNARY, signed=False)
    if found.wide:
        return found
    return Expression(f"(s64){found.within(UNARY)}", UNARY)


def truth(unit: Unit, node: ast.expr) -> Expression:
    """Return *node* as a condition."""
    term = unit.seen.terms.get(node)
    if term is not None and texts.is_text(term):
        return Expression(f"{text(unit, node)}[0]")
    if isinstance(term, Nothing):
        return literal(0)
    return value(unit, node)


def _name(unit: Unit, node: ast.Name) -> Expression:
    if node.id in unit.locals:
        return _local(unit, node, unit.locals[node.id])
    setting = setting_in(unit, node)
    if setting is not None:
        name = unit.shared.setting_of(setting)
        return Expression(f"READ_ONCE({name})") if setting.kind == "int" else Expression(name)
    term = unit.term(node)
    if isinstance(term, Constant):
        return literal(term.value)
    return calls.word(unit, node, node.id)


def _local(unit: Unit, node: ast.Name, name: str) -> Expression:
    term = unit.seen.terms.get(node)
    if isinstance(term, Pointer):
        return Expression(name, pointer=True, signed=False)
    if isinstance(term, Number):
        return Expression(name, signed=term.value.type != U64)
    return Expression(name)


# Memory.


def _attribute(unit: Unit, node: ast.Attribute) -> Expression:
    owner = unit.seen.terms.get(node.value)
    if isinstance(node.value, ast.Name) and _is_registers(unit, node.value, owner):
        return Expression(f"regs->{ALIASES.get(node.attr, node.attr)}", signed=False)
    if isinstance(owner, Pointer):
        return _read(unit, node, owner)
    term = unit.term(node)
    if isinstance(term, Constant):
        return literal(term.value)  # errno.ENOENT, an enum's member
    return calls.word(unit, node, node.attr)


def _is_registers(unit: Unit, node: ast.Name, term: Term | None) -> bool:
    return node.id not in unit.locals and (term == Word("regs") or (term is None and node.id == "regs"))


def _subscript(unit: Unit, node: ast.Subscript) -> Expression:
    map_ = calls.map_named(unit, node.value)
    if map_ is not None:
        return calls.map_read(unit, node, map_)
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
    text = f"{reader}({where}, fault)"
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
        return f"{value(unit, node.value).within(ATOM)}->{node.attr}"
    assert isinstance(node, ast.Subscript)
    owner = unit.term(node.value)
    assert isinstance(owner, Pointer)
    index = unit.seen.terms.get(node.slice)
    if owner.count is not None and not isinstance(index, Constant):
        raise unit.refuse(node, "a computed index of an array", "an index that is known, or a pointer to the elements")
    if isinstance(owner.target, Struct):
        _need(unit, node, owner, member=False)
    if owner.count is not None and isinstance(node.value, ast.Attribute | ast.Subscript):
        return f"{place(unit, node.value)}[{number(unit, node.slice).text}]"
    return f"{value(unit, node.value).within(ATOM)}[{number(unit, node.slice).text}]"


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


# Operators.


def _binary(unit: Unit, node: ast.BinOp) -> Expression:
    term = unit.term(node)
    if texts.is_text(term):
        raise unit.refuse(node, "putting strings together", "emit them one by one")
    if isinstance(term, Pointer):
        operator = "+" if isinstance(node.op, ast.Add) else "-"
        left, right = value(unit, node.left), value(unit, node.right)
        return Expression(f"{left.within(SUM)} {operator} {right.within(PRODUCT)}", SUM, pointer=True, signed=False)
    left, right = number(unit, node.left), number(unit, node.right)
    found = arithmetic(unit, node, node.op, (left, node.left), (right, node.right))
    return replace(found, signed=term.value.type != U64) if isinstance(term, Number) else found


def arithmetic(
    unit: Unit,
    node: ast.AST,
    operator: ast.operator,
    left: tuple[Expression, ast.expr],
    right: tuple[Expression, ast.expr],
) -> Expression:
    """Return `left operator right` of integers."""
    one, other = left[0], right[0]
    signed = (one.signed or is_literal(unit, left[1])) and (other.signed or is_literal(unit, right[1]))
    signed = signed and (one.signed or other.signed)
    if isinstance(operator, ast.FloorDiv | ast.Mod):
        return _division(unit, operator, left, right)
    if isinstance(operator, ast.LShift | ast.RShift):
        sign = "<<" if isinstance(operator, ast.LShift) else ">>"
        shifted = one if not is_literal(unit, left[1]) else Expression(f"(s64){one.within(UNARY)}", UNARY)
        count = other.within(SUM) if is_literal(unit, right[1]) else f"({other.within(ATOM)} & 63)"
        return Expression(f"{shifted.within(SHIFT)} {sign} {count}", SHIFT, signed=shifted.signed)
    if type(operator) not in _BINARY:
        raise unit.refuse(node, "this operator", "integers take + - * // % & | ^ << >>")
    sign, binds = _BINARY[type(operator)]
    # compilers warn of what most readers don't know by heart: & and | get parentheses around all else
    tight = UNARY if binds == BITS else binds
    return Expression(
        f"{one.within(tight)} {sign} {other.within(tight if binds == BITS else binds - 1)}", binds, signed=signed
    )


def is_literal(unit: Unit, node: ast.expr) -> bool:
    """Return whether *node* is a constant, not one of the module's parameters."""
    return isinstance(unit.seen.terms.get(node), Constant) and not names_setting(unit, node)


def _lowest(unit: Unit, node: ast.expr) -> int:
    if names_setting(unit, node):
        return -1
    term = unit.seen.terms.get(node)
    return term.value if isinstance(term, Constant) else term.low if isinstance(term, Number) else -1


def _division(
    unit: Unit,
    operator: ast.operator,
    left: tuple[Expression, ast.expr],
    right: tuple[Expression, ast.expr],
) -> Expression:
    """Return a division that rounds down; C's own where that is the same."""
    one, other = left[0], right[0]
    is_div = isinstance(operator, ast.FloorDiv)
    result = one.signed if is_div else other.signed
    positive = _lowest(unit, left[1]) >= 0 and _lowest(unit, right[1]) >= 0
    if positive and is_literal(unit, right[1]):
        sign = "/" if is_div else "%"
        return Expression(f"{one.within(PRODUCT)} {sign} {other.within(UNARY)}", PRODUCT, signed=result)
    kind = "div" if is_div else "mod"
    if positive:
        helper = f"unsigned_{kind}"
    elif one.signed == other.signed:
        helper = f"floor_{kind}" if one.signed else f"unsigned_{kind}"
    else:
        helper = f"floor_{kind}_{'signed' if one.signed else 'unsigned'}"
    unit.use(helper)
    call = f"{helper}({one.text}, {other.text}, &fault)"
    return Expression(f"(s64){call}", UNARY) if positive and result else Expression(call, signed=result)


def _unary(unit: Unit, node: ast.UnaryOp) -> Expression:
    operand = number(unit, node.operand)
    sign = {ast.USub: "-", ast.Invert: "~", ast.UAdd: ""}[type(node.op)]
    if isinstance(node.op, ast.USub):
        inner = operand if operand.signed else Expression(f"(s64){operand.within(UNARY)}", UNARY)
        shown = inner.within(UNARY)
        return Expression(f"-{shown}" if not shown.startswith("-") else f"-({shown})", UNARY)
    return Expression(f"{sign}{operand.within(UNARY)}", UNARY, signed=operand.signed)


def _choice(unit: Unit, node: ast.IfExp) -> Expression:
    term = unit.term(node)
    if not isinstance(term, Number | Pointer | Constant):
        raise unit.refuse(node, "a choice of strings", "write an if with a statement on each side")
    condition = truth(unit, node.test)
    unit.conditional += 1
    make = value if isinstance(term, Pointer) else number
    one, other = make(unit, node.body), make(unit, node.orelse)
    unit.conditional -= 1
    signed = not (isinstance(term, Number) and term.value.type == U64)
    shown = f"{condition.within(OR)} ? {one.within(OR)} : {other.within(OR)}"
    return Expression(shown, CHOICE, signed=signed, pointer=isinstance(term, Pointer))


def _boolean(unit: Unit, node: ast.BoolOp) -> Expression:
    term = unit.seen.terms.get(node)
    if isinstance(term, Number) and term.kind != "bool":
        raise unit.refuse(node, "and, or of anything but truth values", "write an if")
    sign, binds = ("&&", AND) if isinstance(node.op, ast.And) else ("||", OR)
    parts = []
    for index, one in enumerate(node.values):
        unit.conditional += index > 0
        found = truth(unit, one)
        unit.conditional -= index > 0
        parts.append(found.text if found.binds < AND or found.binds == binds else f"({found.text})")
    return Expression(f" {sign} ".join(parts), binds)


# Comparisons.


def comparison(unit: Unit, node: ast.Compare) -> Expression:
    """Return a comparison, also a chain of them."""
    operands = [node.left, *node.comparators]
    if len(node.ops) > 1 and not all(_is_simple(unit, one) for one in operands[1:-1]):
        raise unit.refuse(node, "a chain with a computed value in its middle", "give the value a name first")
    links = []
    for index, operator in enumerate(node.ops):
        unit.conditional += index > 0
        links.append(_link(unit, node, operator, operands[index], operands[index + 1]))
        unit.conditional -= index > 0
    if len(links) == 1:
        return links[0]
    return Expression(" && ".join(one.within(EQUALITY) for one in links), AND)


def _is_simple(unit: Unit, node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Constant) or is_literal(unit, node)


def _link(unit: Unit, node: ast.AST, operator: ast.cmpop, left: ast.expr, right: ast.expr) -> Expression:
    if isinstance(operator, ast.In | ast.NotIn):
        return _contained(unit, node, left, right, negated=isinstance(operator, ast.NotIn))
    one, other = unit.seen.terms.get(left), unit.seen.terms.get(right)
    sign = _COMPARE[type(operator)]
    if (one is not None and texts.is_text(one)) or (other is not None and texts.is_text(other)):
        unit.include("linux/string.h")
        return Expression(f"strcmp({text(unit, left)}, {text(unit, right)}) {sign} 0", EQUALITY)
    if isinstance(one, Nothing) or isinstance(other, Nothing):
        found = value(unit, right if isinstance(one, Nothing) else left)
        return Expression(f"{found.within(RELATION)} {sign} NULL", EQUALITY)
    if isinstance(one, Pointer) or isinstance(other, Pointer):
        casted = [f"(void *){value(unit, side).within(UNARY)}" for side in (left, right)]
        return Expression(f"{casted[0]} {sign} {casted[1]}", EQUALITY)
    return _integers(unit, node, sign, left, right)


def _integers(unit: Unit, node: ast.AST, sign: str, left: ast.expr, right: ast.expr) -> Expression:
    """Compare as mathematics does: a negative number is less than any without sign."""
    binds = EQUALITY if sign in ("==", "!=") else RELATION
    mirrored = _MIRRORED.get(sign, sign)
    one, other = _beside(unit, left, right), _beside(unit, right, left)
    for where, value_, operator in ((right, one, sign), (left, other, mirrored)):
        term = unit.seen.terms.get(where)
        low, high = (I64_MIN, I64_MAX) if value_.signed else (0, U64_MAX)
        if isinstance(term, Constant) and is_literal(unit, where) and not low <= term.value <= high:
            # beyond all that the other side can be
            return literal(int(operator in ("<", "<=", "!=") if term.value > high else operator in (">", ">=", "!=")))
    fixed = [is_literal(unit, left), is_literal(unit, right)]
    if (
        one.signed == other.signed
        or (fixed[0] and _lowest(unit, left) >= 0)
        or (fixed[1] and _lowest(unit, right) >= 0)
    ):
        return Expression(f"{one.within(SHIFT)} {sign} {other.within(SHIFT)}", binds)
    if not one.signed:
        return _integers(unit, node, mirrored, right, left)
    if _lowest(unit, left) >= 0:
        return Expression(f"(u64){one.within(UNARY)} {sign} {other.within(SHIFT)}", binds)
    if not (_is_simple(unit, left) and _is_simple(unit, right)):  # both sides are read, whatever the first one is
        unit.use("order")
        return Expression(f"order({one.text}, {other.text}) {sign} 0", binds)
    if sign in ("<", "<=", "!="):
        return Expression(f"{one.within(SHIFT)} < 0 || (u64){one.within(UNARY)} {sign} {other.within(SHIFT)}", OR)
    return Expression(f"{one.within(SHIFT)} >= 0 && (u64){one.within(UNARY)} {sign} {other.within(SHIFT)}", AND)


def _beside(unit: Unit, node: ast.expr, other: ast.expr) -> Expression:
    """Return *node* for a comparison with *other*; what is narrow may stay so beside a small literal."""
    found = value(unit, node)
    term = unit.seen.terms.get(other)
    if isinstance(term, Constant) and is_literal(unit, other) and 0 <= term.value <= _LARGEST_INT and not found.pointer:
        return found
    return widened(found)


def _contained(unit: Unit, node: ast.AST, left: ast.expr, right: ast.expr, *, negated: bool) -> Expression:
    found, map_ = unit.seen.terms.get(right), calls.map_named(unit, right)
    if map_ is not None:
        shown = calls.map_has(unit, node, map_, left)
    elif found is not None and texts.is_text(found):
        unit.include("linux/string.h")
        shown = Expression(f"strstr({text(unit, right)}, {text(unit, left)})")
    elif isinstance(right, ast.Tuple | ast.List | ast.Set) and _is_simple(unit, left):
        links = [_link(unit, node, ast.Eq(), left, item) for item in right.elts]
        shown = Expression(" || ".join(one.within(EQUALITY) for one in links), OR if len(links) > 1 else EQUALITY)
    else:
        raise unit.refuse(node, "this `in`", "give the left side a name, and write the tuple out: x in (1, 2)")
    return Expression(f"!{shown.within(UNARY)}", UNARY) if negated else shown


# Strings.


def text(unit: Unit, node: ast.expr) -> str:
    """Return a `const char *` for *node*, reading it into a buffer first where it lies in memory.

    Raises:
        CompileError: it can't be read here, or has no counterpart.
    """
    if isinstance(node, ast.Name) and node.id in unit.locals:
        return unit.locals[node.id]
    setting = setting_in(unit, node)
    if setting is not None:
        return unit.shared.setting_of(setting)
    term = unit.term(node)
    if isinstance(term, Literal):
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


def fill(unit: Unit, node: ast.expr, buffer: str) -> None:
    """Write the statements that read the string *node* into the char array *buffer*."""
    term = unit.term(node)
    unit.include("linux/string.h")
    if isinstance(term, Literal) or calls.is_word(unit, node, "comm"):
        source = c_string(term.text) if isinstance(term, Literal) else "current->comm"
        unit.line(f"strscpy_pad({buffer}, {source}, sizeof({buffer}));")
        return
    if isinstance(node, ast.Name) and (node.id in unit.locals or setting_in(unit, node) is not None):
        unit.line(f"strscpy_pad({buffer}, {text(unit, node)}, sizeof({buffer}));")
        return
    address, space = calls.string_place(unit, node)
    reader = {"kernel": "peek_kernel_string", "user": "peek_user_string", "any": "peek_string"}[space]
    unit.use(reader)
    unit.line(f"if (!{reader}({buffer}, sizeof({buffer}), {address}))")
    unit.line("\tfault = true;")


def is_string(term: Term | None) -> bool:
    """Return whether *term* is a string."""
    return isinstance(term, Text | Literal) or (term is not None and texts.is_text(term))


def pointer_cast(term: Pointer, text_: str) -> str:
    """Return *text_* as a pointer of the type of *term*."""
    return f"({pointer_text(term.target)}){text_}"


_EXPRESSIONS: dict[type[ast.expr], Callable[..., Expression]] = {
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.IfExp: _choice,
}
