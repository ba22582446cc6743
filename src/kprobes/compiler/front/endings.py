"""Ways out of a block of statements: `try`/`finally`, `assert`, `return`, `break` and `continue`.

Nothing raises in a handler, so `finally` runs where a block is left: behind it, and at each `return`, `break` and
`continue` and each failing `assert` inside. As in CPython its statements are compiled once for each way out.
"""

from __future__ import annotations

import ast

from kprobes.compiler.front import integers, registered, texts
from kprobes.compiler.front.conditions import branch_on
from kprobes.compiler.front.context import Final, TypeUnknownError
from kprobes.compiler.front.terms import Constant, Literal, Map, Text
from kprobes.compiler.ir.nodes import I64, MapAdd
from kprobes.model.mapspec import Count
from kprobes.model.plan import Assertion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.front.build import OpenBlock
    from kprobes.compiler.front.context import Context

# Maps of the user's never begin with a dot.
ASSERTS = ".assert."


class EntryHalf(ast.Try):
    """What stands in a `try` before its `yield`: the `finally` belongs to the other half, unless this one is left."""


def protected(ctx: Context, node: ast.Try) -> None:
    """Compile `try: ... finally: ...`.

    Raises:
        CompileError: there is an `except`: nothing raises.
    """
    if node.handlers or node.orelse:
        what = "except is not part of the handler language"
        hint = "nothing raises in a handler: a bad address gives zero and is counted as a fault"
        raise ctx.error(node.handlers[0] if node.handlers else node, what, hint)
    ctx.frame.finals.append(Final(node.finalbody, len(ctx.frame.loops)))
    try:
        ctx.run(node.body)
    finally:
        ctx.frame.finals.pop()
    if not isinstance(node, EntryHalf):
        ctx.run(node.finalbody)


def _run_finals(ctx: Context, keep: int = 0) -> None:
    """Compile what is to run before all but the outermost *keep* `try` of the function are left."""
    frame = ctx.frame
    finals, loops = list(frame.finals), list(frame.loops)
    try:
        while len(frame.finals) > keep:
            final = frame.finals.pop()
            del frame.loops[final.loops :]
            ctx.run(final.body)
    finally:
        frame.finals[:], frame.loops[:] = finals, loops


def leave(ctx: Context, node: ast.AST) -> None:
    """End the handler here, from whichever function it has come to."""
    frames = list(ctx.frames)
    try:
        while ctx.frames:
            _run_finals(ctx)
            ctx.frames.pop()
    finally:
        ctx.frames[:] = frames
    ctx.build.leave(ctx.place(node))


def returned(ctx: Context, node: ast.Return) -> None:
    """Compile `return`."""
    value = node.value
    is_none = value is None or (isinstance(value, ast.Constant) and value.value is None)
    if len(ctx.frames) == 1:
        if not is_none and not (ctx.text.source.calling and isinstance(value, ast.Constant)):
            raise ctx.error(value or node, "a handler returns nothing", "emit(...) what you want to see")
        leave(ctx, node)
        return
    term = None if value is None or is_none else ctx.lower(value)
    if len(ctx.frames) == 2 and ctx.text.source.calling:
        term = Constant(0) if term is None else term
        registered.returned(ctx, node, term)
    if term is not None and ctx.frame.finals:
        term = texts.snapshot(ctx, node, term)
    elif isinstance(term, Text) and term.slot is None:
        term = Text(term.size, texts.buffer(ctx, node, term))
    _run_finals(ctx)
    if ctx.build.current.reached:
        ctx.frame.results.append((ctx.build.current, term, node))
    ctx.build.place_block(ctx.build.new_block("dead"))


def jump_out(ctx: Context, node: ast.Break | ast.Continue) -> None:
    """Compile `break` or `continue`."""
    frame = ctx.frame
    if not frame.loops:
        raise ctx.error(node, "this stands outside of any loop", "leave the handler with return")
    loop, depth = frame.loops[-1], len(frame.loops)
    target: OpenBlock = loop.after if isinstance(node, ast.Break) else loop.again
    _run_finals(ctx, keep=sum(final.loops < depth for final in frame.finals))
    ctx.build.jump(ctx.place(node), target)
    ctx.build.place_block(ctx.build.new_block("dead"))


def assertion(ctx: Context, node: ast.Assert) -> None:
    """Compile `assert condition, "text"`: where it fails it is counted, and the handler ends.

    Raises:
        CompileError: the text is no literal.
    """
    message = _message(ctx, node)
    build, place = ctx.build, ctx.place(node)
    fine, failed = build.new_block("holds"), build.new_block("fails")
    try:
        branch_on(ctx, node.test, fine, failed)
    except TypeUnknownError:
        build.branch(place, integers.truth(ctx, node, Constant(1)), fine, failed)
    build.place_block(failed)
    name = _counter(ctx, node, message)
    build.add(MapAdd(place, name, (), build.const(place, 1, I64)))
    leave(ctx, node)
    build.place_block(fine)


def _message(ctx: Context, node: ast.Assert) -> str:
    if node.msg is None:
        return ""
    term = ctx.lower(node.msg)
    if not isinstance(term, Literal):
        raise ctx.error(node.msg, "the text of an assert must be a literal", "emit(...) the values before it")
    return term.text


def _counter(ctx: Context, node: ast.Assert, message: str) -> str:
    """Return the name of the map that counts how often *node* fails, known by its place."""
    from zlib import crc32

    source = ctx.frame.text.source
    place = ctx.frame.text.place(node)
    name = f"{ASSERTS}{crc32(source.file.encode()):08x}.{place.line}.{place.column}"
    spec = Count(name)
    ctx.used_maps.setdefault(name, Map(spec, spec.layout(ctx.around.shards)))
    ctx.asserts[name] = Assertion(name, source.file, place.line, ctx.frame.text.segment(node.test), message)
    return name
