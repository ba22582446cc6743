"""Expressions: from the syntax tree to terms."""

from __future__ import annotations

import ast

from kprobes.arch.registers import registers
from kprobes.compiler.front import (
    builtins,
    casts,
    conditions,
    integers,
    maps,
    names,
    pointers,
    registered,
    strings,
    structs,
    texts,
)
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.calls import call
from kprobes.compiler.front.comparisons import comparison
from kprobes.compiler.front.terms import (
    Constant,
    Everything,
    Items,
    Literal,
    Made,
    Map,
    Nothing,
    Number,
    Outside,
    Pointer,
    RecordArray,
    Term,
    Text,
    Word,
    describe,
    integer,
)
from kprobes.compiler.front.text import did_you_mean
from kprobes.model.builtins import BUILTINS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.front.build import OpenBlock
    from kprobes.compiler.front.context import Context

# Expressions outside the language: what they are called, and what to do instead.
REFUSED: dict[type[ast.expr], tuple[str, str]] = {
    ast.Lambda: ("a lambda", "write a plain function at module level; calls to it are inlined"),
    ast.Dict: ("a dict", "use a HashMap, declared outside of the handler"),
    ast.Set: ("a set", "write a tuple: x in (1, 2, 3)"),
    ast.List: ("a list", "write a tuple: (1, 2, 3)"),
    ast.ListComp: ("a comprehension", "write a for loop over range(bound)"),
    ast.SetComp: ("a comprehension", "write a for loop over range(bound)"),
    ast.DictComp: ("a comprehension", "write a for loop over range(bound)"),
    ast.GeneratorExp: ("a comprehension", "write a for loop over range(bound)"),
    ast.Await: ("await", "handlers never wait"),
    ast.YieldFrom: ("yield from", "write a plain `yield` where the probed function runs"),
    ast.Yield: ("a yield inside an expression", "write `yield` or `ret = yield` on a line of its own"),
    ast.Starred: ("unpacking with *", "name the values one by one"),
}


def lower(ctx: Context, node: ast.expr) -> Term:
    """Return the term of *node*, adding to the current block what it takes to compute it.

    Raises:
        CompileError: it is outside the language.
    """
    make = _EXPRESSIONS.get(type(node))
    if make is None:
        what, hint = REFUSED.get(type(node), (f"{type(node).__name__}", ""))
        raise ctx.error(node, f"{what} is not part of the handler language", hint)
    term = make(ctx, node)
    if ctx.seen is not None:
        ctx.seen.terms[node] = term
    return term


def _constant(ctx: Context, node: ast.Constant) -> Term:
    value = node.value
    if isinstance(value, bool):
        return Constant(int(value), "bool")
    if isinstance(value, int):
        return Constant(value)
    if isinstance(value, str):
        return Literal(value)
    if value is None:
        return Nothing()
    if isinstance(value, float | complex):
        raise ctx.error(node, "handlers compute with integers only", "scale it: ns // 1000 for microseconds")
    if isinstance(value, bytes):
        raise ctx.error(node, "bytes are not part of the handler language", "write a plain string")
    raise ctx.error(node, "... is not part of the handler language", "write pass")


def _name(ctx: Context, node: ast.Name) -> Term:
    term = find_name(ctx, node)
    return _called_if_bare(ctx, node, term)


def _called_if_bare(ctx: Context, node: ast.AST, term: Term) -> Term:
    if isinstance(term, Word) and BUILTINS[term.name].bare:
        return builtins.make(ctx, node, term.name, {})
    return term


def find_name(ctx: Context, node: ast.Name) -> Term:
    """Return what a name stands for; a word of the language is not called yet."""
    frame, name = ctx.frame, node.id
    ctx.mistakes.check(frame.scope + name)
    if name in frame.bindings:
        return frame.bindings[name]
    if name in frame.stores:
        return ctx.local(node, name)
    if name == frame.arguments_word and name:
        return Everything()
    if len(ctx.frames) == 1 and name in ctx.handler_parameters:
        if name in ("regs", "retval") and name not in ctx.parameters.names():
            return Word(name)
        return ctx.parameters.by_name(node, name)
    return names.outside(ctx, node, name)


# Attributes and elements.


def _attribute(ctx: Context, node: ast.Attribute) -> Term:
    owner = lower(ctx, node.value)
    if isinstance(owner, Pointer):
        return pointers.field(ctx, node, owner, node.attr)
    if isinstance(owner, Made):
        return structs.member(ctx, node, owner, node.attr)
    if isinstance(owner, Outside):
        if isinstance(owner.thing, registered.THINGS):
            return registered.attribute(ctx, node, owner, node.attr)
        return _called_if_bare(ctx, node, names.attribute(ctx, node, owner, node.attr))
    if owner == Word("regs"):
        return register(ctx, node)
    if isinstance(owner, Everything):
        if node.attr not in ctx.parameters.names():
            raise ctx.error(
                node, f"there is no parameter {node.attr!r}", did_you_mean(node.attr, ctx.parameters.names())
            )
        return ctx.parameters.by_name(node, node.attr)
    if isinstance(owner, Map):
        kinds = maps.METHODS[type(owner.spec)]
        what = (
            f"{owner.spec.name}.{node.attr} is a method"
            if node.attr in kinds
            else f"{describe(owner)} has no {node.attr!r}"
        )
        shown = node.attr if node.attr in kinds else next(iter(kinds), "")
        hint = f"call it: {owner.spec.name}.{shown}(...)" if shown else f"take its elements: {owner.spec.name}[index]"
        raise ctx.error(node, what, hint)
    hint = 'cast it: cast(x, "struct file *")' if isinstance(owner, Number) else advice(owner)
    raise ctx.error(node, f"{describe(owner)} has no field {node.attr!r}", hint)


def register(ctx: Context, node: ast.Attribute) -> Term:
    """Return `regs.name`.

    Raises:
        CompileError: there is no such register.
    """
    name = register_name(ctx, node)
    return integer(ctx.build.context(ctx.place(node), "register", name=name), "hex")


def register_name(ctx: Context, node: ast.Attribute) -> str:
    """Return the kernel's name of the register that *node* names."""
    table = registers(ctx.around.arch)
    if node.attr not in table.offsets:
        known = f"{table.name} has {', '.join(table.offsets)}"
        raise ctx.error(node, f"there is no register {node.attr!r}", did_you_mean(node.attr, table.offsets, known))
    if ctx.around.kind == "tracepoint":
        raise ctx.error(node, "a tracepoint has no registers", "take the fields of its record as parameters")
    return table.canonical(node.attr)


def _subscript(ctx: Context, node: ast.Subscript) -> Term:
    owner = lower(ctx, node.value)
    if isinstance(node.slice, ast.Slice):
        return _sliced(ctx, node, owner)
    index = lower(ctx, node.slice)
    if isinstance(owner, Map):
        return maps.read(ctx, node, owner, index, node.slice)
    if isinstance(owner, Pointer):
        return pointers.element(ctx, node, owner, index, node.slice)
    if isinstance(owner, Outside):
        return casts.part_of_type(ctx, node, owner, index)
    if isinstance(owner, RecordArray):
        return pointers.record_element(ctx, node, owner, index)
    if isinstance(owner, Items):
        if not isinstance(index, Constant):
            raise ctx.error(node.slice, "the index of a tuple must be a literal", "t[0], or a loop: for x in t: ...")
        if not -len(owner.items) <= index.value < len(owner.items):
            what = f"index {index.value} is outside the tuple of {len(owner.items)}"
            raise ctx.error(
                node.slice, what, f"the last one is {len(owner.items) - 1}" if owner.items else "it is empty"
            )
        return owner.items[index.value]
    if isinstance(owner, Text | Literal):
        return strings.element(ctx, node, owner, index)
    hint = 'cast it to a pointer first: cast(x, "u32 *")[0]' if isinstance(owner, Number) else advice(owner)
    raise ctx.error(node, f"{describe(owner)} has no elements", hint)


def _sliced(ctx: Context, node: ast.Subscript, owner: Term) -> Term:
    if texts.is_text(owner):
        return strings.sliced(ctx, node, owner)
    if not isinstance(owner, Items):
        hint = "read elements one by one: p[0]" if isinstance(owner, Pointer | RecordArray) else advice(owner)
        raise ctx.error(node, f"strings and tuples can be sliced, this is {describe(owner)}", hint)
    assert isinstance(node.slice, ast.Slice)
    ends = []
    for bound in strings.slice_bounds(ctx, node.slice):
        if isinstance(bound, Number):
            raise ctx.error(node.slice, "the bounds of a tuple's slice must be literals", "t[1:3]")
        ends.append(None if bound is None else bound.value)
    return Items(owner.items[slice(*ends)])


def _tuple(ctx: Context, node: ast.Tuple) -> Term:
    return Items(tuple(lower(ctx, item) for item in node.elts))


def _named(ctx: Context, node: ast.NamedExpr) -> Term:
    term = lower(ctx, node.value)
    if isinstance(term, Text) and term.slot is None:
        term = Text(term.size, texts.buffer(ctx, node, term))
    ctx.assign(node, node.target.id, term)
    return term


# Operators.


def _binary(ctx: Context, node: ast.BinOp) -> Term:
    return binary(ctx, node, node.op, (lower(ctx, node.left), node.left), (lower(ctx, node.right), node.right))


def binary(
    ctx: Context, node: ast.AST, operator: ast.operator, left: tuple[Term, ast.AST], right: tuple[Term, ast.AST]
) -> Term:
    """Return `left operator right`.

    Raises:
        CompileError: the operator doesn't take such operands.
    """
    one, other = left[0], right[0]
    if isinstance(operator, ast.Div):
        raise ctx.error(node, "/ gives a float in Python", "use // for whole numbers")
    if isinstance(operator, ast.MatMult):
        raise ctx.error(node, "@ is not part of the handler language", "integers take + - * // % & | ^ << >>")
    if isinstance(one, Constant) and isinstance(other, Constant):
        return integers.fold(ctx, node, operator, one.value, other.value)
    if isinstance(operator, ast.Add) and texts.is_text(one) and texts.is_text(other):
        return strings.concatenated(ctx, node, left, right)
    if isinstance(operator, ast.Pow):
        raise ctx.error(node, "** takes literals only", "multiply, or shift: 1 << n")
    if isinstance(one, Pointer) or isinstance(other, Pointer):
        return _pointer_arithmetic(ctx, node, operator, left, right)
    for term, where in (left, right):
        if not isinstance(term, Constant | Number):
            hint = 'put it into the string: f"{s}{n}"' if texts.is_text(term) else advice(term)
            raise ctx.error(where, f"{_symbol(operator)} takes integers, this is {describe(term)}", hint)
    return integers.arithmetic(ctx, node, integers.OPERATORS[type(operator)], one, other)


def _symbol(operator: ast.operator) -> str:
    return _SYMBOLS[type(operator)]


_SYMBOLS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.LShift: "<<", ast.RShift: ">>",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.Pow: "**", ast.Div: "/", ast.MatMult: "@",
}  # fmt: skip


def _pointer_arithmetic(
    ctx: Context, node: ast.AST, operator: ast.operator, left: tuple[Term, ast.AST], right: tuple[Term, ast.AST]
) -> Term:
    one, other = left[0], right[0]
    if isinstance(operator, ast.Add) and isinstance(one, Pointer) and isinstance(other, Constant | Number):
        return pointers.moved(ctx, node, one, other, right[1])
    if isinstance(operator, ast.Add) and isinstance(other, Pointer) and isinstance(one, Constant | Number):
        return pointers.moved(ctx, node, other, one, left[1])
    if isinstance(operator, ast.Sub) and isinstance(one, Pointer):
        if isinstance(other, Pointer):
            return pointers.distance(ctx, node, one, other)
        if isinstance(other, Constant | Number):
            return pointers.moved(ctx, node, one, other, right[1], back=True)
    raise ctx.error(
        node,
        f"{_symbol(operator)} does not take {describe(one)} and {describe(other)}",
        "pointers take + and - only; int(p) is the address as a number",
    )


def _unary(ctx: Context, node: ast.UnaryOp) -> Term:
    if isinstance(node.op, ast.Not):
        return conditions.opposite(ctx, node, conditions.truth_of(ctx, node.operand))
    term = lower(ctx, node.operand)
    if not isinstance(term, Constant | Number):
        raise ctx.error(node.operand, f"an integer is wanted here, this is {describe(term)}", advice(term))
    if isinstance(node.op, ast.UAdd):
        return Constant(term.value) if isinstance(term, Constant) else integers.number(ctx, node, term)
    if isinstance(node.op, ast.USub):
        return integers.negative(ctx, node, term)
    return integers.inverted(ctx, node, term)


# Choices.


def _boolean(ctx: Context, node: ast.BoolOp) -> Term:
    """`a and b`: a truth value where all sides are, else the value of the last side evaluated, as in Python."""
    stop = isinstance(node.op, ast.Or)
    place, build = ctx.place(node), ctx.build
    ways: list[tuple[OpenBlock, Term]] = []
    for index, value_node in enumerate(node.values):
        term = lower(ctx, value_node)
        if isinstance(term, Text) and term.slot is None:
            term = Text(term.size, texts.buffer(ctx, value_node, term))
        if index == len(node.values) - 1:
            if not ways:
                return term
            ways.append((build.current, term))
            break
        result = conditions.truth(ctx, value_node, term)
        if isinstance(result, Constant):
            if bool(result.value) != stop:
                continue
            conditions.never(ctx, node.values[index + 1 :])
            if not ways:
                return term
            ways.append((build.current, term))
            break
        more, stopped = build.new_block("more"), build.new_block("settled")
        build.branch(place, result.value, *((stopped, more) if stop else (more, stopped)))
        build.place_block(stopped)
        ways.append((stopped, term))
        build.place_block(more)
    return ctx.merge(node, ways)


def _choice(ctx: Context, node: ast.IfExp) -> Term:
    known = conditions.known(ctx, node.test)
    if known is not None:
        chosen, other = (node.body, node.orelse) if known else (node.orelse, node.body)
        conditions.never(ctx, [other])
        return lower(ctx, chosen)
    first, second = ctx.build.new_block("then"), ctx.build.new_block("else")
    conditions.branch_on(ctx, node.test, first, second)
    ways = []
    for block, side in ((first, node.body), (second, node.orelse)):
        ctx.build.place_block(block)
        term = lower(ctx, side)
        if isinstance(term, Text) and term.slot is None:
            term = Text(term.size, texts.buffer(ctx, side, term))
        ways.append((ctx.build.current, term))
    return ctx.merge(node, ways)


_EXPRESSIONS: dict[type[ast.expr], Callable[..., Term]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.Tuple: _tuple,
    ast.NamedExpr: _named,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.Compare: comparison,
    ast.BoolOp: _boolean,
    ast.IfExp: _choice,
    ast.Call: call,
    ast.JoinedStr: strings.formatted,
}
