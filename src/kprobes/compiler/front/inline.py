"""Calls to plain functions: the body takes the place of the call."""

from __future__ import annotations

import ast

from kprobes.compiler.front import names, texts
from kprobes.compiler.front.context import Frame, repointed
from kprobes.compiler.front.mistakes import PoisonedError
from kprobes.compiler.front.scan import count_loads, count_stores, top_level_once
from kprobes.compiler.front.source import source_of
from kprobes.compiler.front.terms import Constant, Literal, Nothing, Outside, Term, Text
from kprobes.compiler.front.text import SourceText, did_you_mean
from kprobes.errors import CompileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FunctionType

    from kprobes.compiler.front.build import OpenBlock
    from kprobes.compiler.front.context import Context

DEEPEST = 16
# Calls inlined into one handler: beyond this the program grows out of what a kernel accepts.
MOST = 512


def call_function(ctx: Context, node: ast.Call, function: FunctionType, shown: str) -> Term:
    """Return what `function(...)` gives, with its body compiled into the handler.

    Raises:
        CompileError: it is outside the language, calls itself, or the arguments don't fit.
    """
    text = _text_of(ctx, node, function)
    if any(frame.text is text for frame in ctx.frames):
        raise ctx.error(
            node, f"{shown}() calls itself", "calls are inlined, so there is no recursion: write a bounded loop"
        )
    if len(ctx.frames) > DEEPEST or ctx.inlined >= MOST:
        raise ctx.error(node, "too many nested or repeated calls", f"at most {DEEPEST} deep and {MOST} in a handler")
    ctx.inlined += 1
    definition = text.definition
    arguments = _bind(ctx, node, definition, function, shown)
    stores = count_stores(definition.body)
    frame = Frame(
        text=text,
        scope=f"{definition.name}#{ctx.inlined}.",
        names=text.source.names,
        stores={**stores, **{name: stores[name] + 1 for name in arguments if name in stores}},
        loads=count_loads(definition.body),
        call=node,
        bindings={name: term for name, (term, _) in arguments.items() if name not in stores},
        bindable=top_level_once(definition.body, stores, tuple(arguments)),
    )
    known_mistakes = ctx.mistakes.given_up
    is_dead = not ctx.build.current.reached
    if is_dead:  # what it returns is wanted all the same, so that what is computed with it makes sense
        ctx.build.place_block(ctx.build.new_block("never"))
        ctx.build.current.reached = True
    ctx.frames.append(frame)
    seen = ctx.seen
    if seen is not None:
        ctx.seen = seen.enter(node, frame, {name: term for name, (term, _) in arguments.items()})
    try:
        for name, (term, _) in arguments.items():
            if name in stores:
                ctx.assign(definition, name, term)
        ctx.run(definition.body)
        if ctx.mistakes.given_up != known_mistakes:
            raise PoisonedError  # what it returns has no meaning
        result = _result(ctx, frame, shown)
        if is_dead:
            ctx.build.place_block(ctx.build.new_block("dead"))
        return result
    finally:
        ctx.frames.pop()
        ctx.seen = seen


def _text_of(ctx: Context, node: ast.Call, function: FunctionType) -> SourceText:
    known = ctx.helpers.get(function)
    if known is None:
        try:
            known = SourceText(source_of(function))
        except CompileError as error:
            raise repointed(ctx, node, error) from None
        ctx.helpers[function] = known
    if known.source.file == ctx.text.source.file:
        ctx.lines.update(known.numbered_lines())
    return known


def _bind(
    ctx: Context, node: ast.Call, definition: ast.FunctionDef, function: FunctionType, shown: str
) -> dict[str, tuple[Term, ast.AST]]:
    spec = definition.args
    if spec.vararg or spec.kwarg:
        raise ctx.error(node, f"{shown}() takes * or ** parameters", "give each parameter a name")
    positional = [one.arg for one in (*spec.posonlyargs, *spec.args)]
    only_named = [one.arg for one in spec.kwonlyargs]
    everything = [*positional, *only_named]
    if len(node.args) > len(positional):
        what = f"{shown}() takes {len(positional)} arguments, {len(node.args)} are given"
        raise ctx.error(node, what, f"it is {shown}({', '.join(everything)})")
    given: dict[str, tuple[Term, ast.AST]] = {}
    for name, argument in zip(positional, node.args, strict=False):
        if isinstance(argument, ast.Starred):
            raise ctx.error(argument, "arguments can't be unpacked with *", "name them one by one")
        given[name] = (_settled(ctx, argument), argument)
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ctx.error(keyword.value, "arguments can't be unpacked with **", "name them one by one")
        if keyword.arg not in everything or keyword.arg in {one.arg for one in spec.posonlyargs}:
            raise ctx.error(
                keyword.value,
                f"{shown}() has no parameter {keyword.arg!r}",
                did_you_mean(keyword.arg, everything, f"it is {shown}({', '.join(everything)})"),
            )
        if keyword.arg in given:
            raise ctx.error(keyword.value, f"{keyword.arg} is given twice", f"it is {shown}({', '.join(everything)})")
        given[keyword.arg] = (_settled(ctx, keyword.value), keyword.value)
    defaults = _defaults(function, positional)
    for name in everything:
        if name not in given:
            if name not in defaults:
                raise ctx.error(node, f"{shown}() needs {name}", f"it is {shown}({', '.join(everything)})")
            given[name] = (names.of_object(ctx, node, defaults[name], name), node)
    return given


def _defaults(function: FunctionType, positional: list[str]) -> dict[str, object]:
    values = function.__defaults__ or ()
    found = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
    return {**found, **(function.__kwdefaults__ or {})}


def _settled(ctx: Context, node: ast.expr) -> Term:
    """Return the argument *node*, evaluated now: a string that is yet to be read is read."""
    term = ctx.lower(node)
    if isinstance(term, Text) and term.slot is None:
        return Text(term.size, texts.buffer(ctx, node, term))
    return term


def _result(ctx: Context, frame: Frame, shown: str) -> Term:
    """Join the ways out of the function that was just compiled."""
    build, end = ctx.build, frame.text.definition
    # Where the call itself is never reached, all that it might return says what it would give.
    results = [result for result in frame.results if result[0].reached] or frame.results
    fell = build.current.reached or not results
    if fell and len(ctx.frames) == 2 and ctx.text.source.calling:  # to C's int the end of a handler is `return 0`
        results, fell = [*results, (build.current, Constant(0), end)], False
    ways = [(block, term, node) for block, term, node in results if term is not None]
    bare = [(block, node) for block, term, node in results if term is None]
    if ways and (fell or bare):
        raise ctx.error(
            bare[0][1] if bare else end, f"{shown}() returns a value on some ways only", "return one on each"
        )
    if len(ways) == 1:
        build.current = ways[0][0]
        return ways[0][1]
    if ways:
        if all(term == ways[0][1] and isinstance(term, Constant | Literal | Nothing | Outside) for _, term, _ in ways):
            return _join(ctx, [block for block, _, _ in ways], end, ways[0][1])
        return ctx.merge(ways[0][2], [(block, term) for block, term, _ in ways])
    if not bare:
        return Nothing()
    return _join(ctx, [block for block, _ in bare] + ([build.current] if fell else []), end, Nothing())


def _join(ctx: Context, blocks: list[OpenBlock], end: ast.AST, term: Term) -> Term:
    after = ctx.build.new_block("back")
    for block in blocks:
        ctx.build.current = block
        ctx.build.jump(ctx.place(end), after)
    ctx.build.place_block(after)
    return term
