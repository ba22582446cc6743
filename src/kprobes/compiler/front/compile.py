"""The compiler's front door: the source of a handler in, its IR out.

One pass goes over the syntax tree and builds blocks as it goes. The type of a local is that of all its assignments, and
some of them come later in the text than a use; so the pass is repeated with what it learned until the types stand
still, which for most handlers is the first time.
"""

from __future__ import annotations

import ast

from kprobes.compiler.front import comparisons, conditions, expressions, halves, parts, statements
from kprobes.compiler.front.annotations import parameters_of
from kprobes.compiler.front.build import TooLargeError
from kprobes.compiler.front.cautions import look_at_text
from kprobes.compiler.front.context import Context, Frame, Given, Seen
from kprobes.compiler.front.owntypes import OwnTypes
from kprobes.compiler.front.parameters import Parameters
from kprobes.compiler.front.scan import count_loads, count_stores, top_level_once
from kprobes.compiler.front.surroundings import RecordField, Surroundings
from kprobes.compiler.front.text import SourceText
from kprobes.errors import CompileError, InternalError, all_mistakes
from kprobes.frozen import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.front.variables import Variable
    from kprobes.compiler.ir.nodes import Handler
    from kprobes.model.caution import Caution
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.probe import HandlerSource

__all__ = ["RecordField", "Seen", "Surroundings", "compile_handler"]

MOST_PASSES = 12


def compile_handler(
    source: HandlerSource,
    surroundings: Surroundings,
    maps: dict[str, MapSpec] | None = None,
    *,
    seen: Seen | None = None,
    given: Given | None = None,
) -> Handler:
    """Return the IR of the handler *source* for its *surroundings*.

    *maps* holds the maps by name that handlers compiled before use, and gains those of this one: handlers share a map
    when they name the same object, and two objects of one name are refused. *seen* is filled with what is found out.
    *given* is what the handler runs behind.

    Raises:
        CompileError: the handler is outside the language; nothing outside of it is ever skipped.
    """
    text = SourceText(source)
    try:
        return _compile(text, surroundings, maps if maps is not None else {}, seen, given)
    except TooLargeError as error:
        hint = "calls and loops over tuples are expanded: use range(), or do less at each hit"
        raise text.error_at(error.place, "the handler becomes too large here", hint) from None
    except RecursionError:
        raise text.error(text.definition, "the handler is nested too deeply", "split its expressions") from None


def _compile(
    text: SourceText, surroundings: Surroundings, shared: dict[str, MapSpec], seen: Seen | None, given: Given | None
) -> Handler:
    types: dict[str, Variable] = {}
    helpers: dict[object, SourceText] = {}
    own = OwnTypes(surroundings.types)
    surroundings = replace(surroundings, types=own)
    last_try = False
    found: list[CompileError] = []
    for _ in range(MOST_PASSES):
        ctx = Context(text, surroundings, types, shared)
        ctx.helpers = helpers
        ctx.own = own
        ctx.last_try = last_try
        ctx.given = given
        if seen is not None:
            seen.text, seen.types = text, types
            seen.forget()
            ctx.seen = seen
        before = dict(types)
        handler = _compile_once(ctx)
        found += ctx.mistakes.errors
        if handler is not None and not found:
            return replace(handler, cautions=_cautions(ctx))
        if found and types == before:
            raise all_mistakes(found)
        last_try = types == before  # nothing more will be learned: what is unknown now is an error
    if found:
        raise all_mistakes(found)
    raise InternalError(f"the types of {text.source.name} do not settle")


def _compile_once(ctx: Context) -> Handler | None:
    ctx.lower = lambda node: expressions.lower(ctx, node)
    ctx.find_name = lambda node: expressions.find_name(ctx, node)
    ctx.truth = lambda node, term: conditions.truth(ctx, node, term)
    ctx.links = lambda node: comparisons.links(ctx, node)
    ctx.run = lambda body: statements.run(ctx, body)
    ctx.parameters = Parameters(ctx)
    definition = ctx.text.definition
    stores = count_stores(definition.body)
    names = _parameter_names(ctx, definition)
    before, split_at, after = _split(ctx)
    ctx.frames.append(
        Frame(
            text=ctx.text,
            scope="",
            names=ctx.text.source.names,
            stores=stores,
            loads=count_loads(definition.body),
            bindable=top_level_once(definition.body, stores, names),
            crossing=halves.crossing_names(before, after),
            arguments_word=definition.args.kwarg.arg if definition.args.kwarg else "",
        )
    )
    ctx.handler_parameters = names
    if ctx.around.returns or split_at is not None:
        return parts.compile_split(ctx, before, split_at, after)
    return parts.compile_plain(ctx)


def _cautions(ctx: Context) -> tuple[Caution, ...]:
    """Return the warnings about the handler and the functions that are compiled into it."""
    for text in (ctx.text, *ctx.helpers.values()):
        for caution in look_at_text(text):
            ctx.cautions.add(caution)
    return ctx.cautions.finish()


def _split(ctx: Context) -> tuple[list[ast.stmt], ast.stmt | None, list[ast.stmt]]:
    """Return the parts as `halves.split` does; where that is a mistake the handler goes on without a `yield`."""
    try:
        return halves.split(ctx)
    except CompileError as error:
        ctx.settled = False
        ctx.mistakes.add(error)
        ctx.mistakes.yields_refused = True
        return [], None, ctx.text.definition.body


def _parameter_names(ctx: Context, definition: ast.FunctionDef) -> frozenset[str]:
    """Check the parameters of the handler against those of the probed place; return their names."""
    spec = definition.args
    if spec.vararg:
        _refuse(ctx, spec.vararg, "a handler takes parameters by name", "**arguments stands for all of them")
    for default in (*spec.defaults, *(one for one in spec.kw_defaults if one is not None)):
        _refuse(ctx, default, "a parameter of a handler has no default", "its value comes from the probed function")
    try:
        ctx.parameters.annotate(definition)
    except CompileError as error:
        ctx.settled = False
        ctx.mistakes.add(error)
        for node in parameters_of(definition):
            ctx.mistakes.poison(node.arg)
        return frozenset(node.arg for node in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs))
    for node in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs):
        try:
            ctx.parameters.check(node)
        except CompileError as error:
            ctx.settled = False
            ctx.mistakes.add(error)
            ctx.mistakes.poison(node.arg)
    return frozenset(node.arg for node in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs))


def _refuse(ctx: Context, node: ast.AST, what: str, hint: str) -> None:
    ctx.settled = False
    ctx.mistakes.add(ctx.error(node, what, hint))
    if isinstance(node, ast.arg):
        ctx.mistakes.poison(node.arg)
