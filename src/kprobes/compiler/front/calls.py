"""Calls: builtins, methods, and plain functions, which are inlined."""

from __future__ import annotations

import ast
from types import FunctionType

from kprobes.compiler.front import builtins, events, inline, maps, names, strings, structs, texts
from kprobes.compiler.front.advice import advice
from kprobes.compiler.front.builtins import SPECIAL, Given
from kprobes.compiler.front.terms import Constant, Map, Number, Outside, Pointer, Term, Word, describe
from kprobes.compiler.front.text import did_you_mean
from kprobes.model.builtins import BUILTINS
from kprobes.model.ctype import Struct
from kprobes.model.cwords import CWord
from kprobes.model.structs import is_enum, shape_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.front.context import Context


def call(ctx: Context, node: ast.Call) -> Term:
    """Return what a call gives; `Nothing` where it only has an effect.

    Raises:
        CompileError: there is nothing to call, or the arguments don't fit.
    """
    if isinstance(node.func, ast.Attribute):
        return _attribute_call(ctx, node, node.func)
    if isinstance(node.func, ast.Name):
        return _call_term(ctx, node, ctx.find_name(node.func), node.func.id)
    raise ctx.error(
        node.func,
        "only names and methods can be called",
        "give the function a name: write it with def, at module level",
    )


def _call_term(ctx: Context, node: ast.Call, term: Term, shown: str) -> Term:
    if isinstance(term, Word):
        return _call_word(ctx, node, term.name)
    if isinstance(term, Outside) and isinstance(term.thing, FunctionType):
        return inline.call_function(ctx, node, term.thing, shown)
    if isinstance(term, Outside) and shape_of(term.thing) is not None:
        return structs.made(ctx, node, term.thing, shown)
    if isinstance(term, Outside) and (isinstance(term.thing, CWord) or is_enum(term.thing)):
        given = bind(ctx, node, shown, ("value",), 1)
        return builtins.cast(ctx, node, {**given, "ctype": (term, node.func)})
    if isinstance(term, Outside):
        kind = "module" if not isinstance(term.thing, type) else "class"
        hint = names.INSTEAD.get(shown, f"name something of it: {shown}.NAME")
        raise ctx.error(node.func, f"{shown} is a {kind}, which can't be called in a handler", hint)
    hint = f"call a method: {shown}.{next(iter(maps.METHODS[type(term.spec)]))}(...)" if isinstance(term, Map) else ""
    raise ctx.error(
        node.func, f"{shown} is {describe(term)}, which can't be called", hint or f"leave the parentheses out: {shown}"
    )


def _call_word(ctx: Context, node: ast.Call, name: str) -> Term:
    if name in ("emit", *events.LINES):
        return events.emit(ctx, node, log=name in events.LINES)
    if name == "range":
        raise ctx.error(node, "range() stands in a for loop only", "for i in range(8): ...")
    if name in SPECIAL:
        raise ctx.error(
            node,
            f"{name} can't be called",
            f"{ctx.first_register} names a register" if name == "regs" else f"leave the parentheses out: {name}",
        )
    row = BUILTINS[name]
    given = _bind_many(ctx, node) if row.many else bind(ctx, node, name, row.names, row.required)
    return builtins.make(ctx, node, name, given)


def _bind_many(ctx: Context, node: ast.Call) -> Given:
    _refuse_unpacking(ctx, node)
    if node.keywords:
        raise ctx.error(
            node.keywords[0].value, f"no parameter is called {node.keywords[0].arg}", "give the values alone"
        )
    return {str(index): (ctx.lower(argument), argument) for index, argument in enumerate(node.args)}


def bind(ctx: Context, node: ast.Call, name: str, parameters: Sequence[str], required: int = 0) -> Given:
    """Return the arguments of a call by the names of its *parameters*, the first *required* of which must be there.

    Raises:
        CompileError: too many, too few, or of an unknown name.
    """
    _refuse_unpacking(ctx, node)
    shape = f"{name}({', '.join(parameters)})"
    if len(node.args) > len(parameters):
        extra = node.args[len(parameters)]
        raise ctx.error(
            extra, f"{name}() takes {_count(len(parameters))}, {len(node.args)} are given", f"it is {shape}"
        )
    given: Given = {}
    for parameter, argument in zip(parameters, node.args, strict=False):
        given[parameter] = (ctx.lower(argument), argument)
    for keyword in node.keywords:
        name_given = str(keyword.arg)
        if name_given not in parameters:
            raise ctx.error(
                keyword.value,
                f"{name}() has no parameter {name_given!r}",
                did_you_mean(name_given, parameters, f"it is {shape}"),
            )
        if name_given in given:
            raise ctx.error(keyword.value, f"{name_given} is given twice", f"it is {shape}")
        given[name_given] = (ctx.lower(keyword.value), keyword.value)
    for parameter in parameters[:required]:
        if parameter not in given:
            raise ctx.error(node, f"{name}() needs {parameter}", f"it is {shape}")
    return given


def _count(number: int) -> str:
    return "no arguments" if not number else "one argument" if number == 1 else f"at most {number} arguments"


def _refuse_unpacking(ctx: Context, node: ast.Call) -> None:
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            raise ctx.error(argument, "arguments can't be unpacked with *", "name them one by one")
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ctx.error(keyword.value, "arguments can't be unpacked with **", "name them one by one")


def _attribute_call(ctx: Context, node: ast.Call, target: ast.Attribute) -> Term:
    owner = ctx.lower(target.value)
    if isinstance(owner, Outside):
        found = names.attribute(ctx, target, owner, target.attr)
        return _call_term(ctx, node, found, f"{owner.path}.{target.attr}")
    if isinstance(owner, Map):
        return _map_method(ctx, node, target, owner)
    if isinstance(owner, Pointer) and target.attr in ("string", "user_string"):
        given = {"address": (owner, target.value), **bind(ctx, node, target.attr, ("size",))}
        make = builtins.user_string if target.attr == "user_string" else builtins.string
        return make(ctx, node, given)
    if isinstance(owner, Pointer | Number | Constant) and target.attr == "cast":
        given = {"value": (owner, target.value), **bind(ctx, node, "cast", ("ctype",), 1)}
        return builtins.cast(ctx, node, given)
    if texts.is_text(owner):
        return _text_method(ctx, node, target, owner)
    raise ctx.error(target, f"{describe(owner)} has no method {target.attr!r}", _method_hint(ctx, target, owner))


def _method_hint(ctx: Context, target: ast.Attribute, owner: Term) -> str:
    if isinstance(owner, Pointer):
        struct = owner.target
        if isinstance(struct, Struct) and ctx.around.types.member(struct, target.attr) is not None:
            return f"{target.attr} is a field: leave the parentheses out"
        return "pointers have .string(), .user_string() and .cast()"
    if target.attr in ("string", "user_string"):
        return f"of an address it is {target.attr}({ast.unparse(target.value)}, size)"
    return "integers have no methods" if isinstance(owner, Number | Constant) else advice(owner)


def _map_method(ctx: Context, node: ast.Call, target: ast.Attribute, owner: Map) -> Term:
    methods = maps.METHODS[type(owner.spec)]
    if target.attr not in methods:
        kind = type(owner.spec).__name__
        hint = f"it has {', '.join(methods)}" if methods else f"write {owner.spec.name}[index]"
        raise ctx.error(target, f"{_a(kind)} has no method {target.attr!r}", did_you_mean(target.attr, methods, hint))
    given = bind(ctx, node, f"{owner.spec.name}.{target.attr}", methods[target.attr])
    return maps.method(ctx, node, owner, target.attr, given)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"


def _text_method(ctx: Context, node: ast.Call, target: ast.Attribute, owner: Term) -> Term:
    if target.attr == "string":  # a string already
        bind(ctx, node, "string", ())
        return owner
    if target.attr not in strings.METHODS:
        what = f"a string has no method {target.attr!r} in a handler"
        raise ctx.error(target, what, "it has .startswith() and .endswith(); also ==, in, slices and len()")
    parameter = "prefix" if target.attr == "startswith" else "suffix"
    wanted = bind(ctx, node, target.attr, (parameter,), 1)[parameter]
    return strings.method(ctx, node, target.attr, owner, wanted)


def has_effect(ctx: Context, node: ast.Call) -> bool:
    """Tell whether the call *node* does something besides giving a value."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr not in ("string", "user_string", *strings.METHODS, "get", "cast")
    if not isinstance(node.func, ast.Name):
        return True
    name = node.func.id
    seen = ctx.frame.names.get(name)
    if seen is None or names.word_of(seen):
        word = names.word_of(seen) or name
        return BUILTINS[word].effect if word in BUILTINS else True
    return True
