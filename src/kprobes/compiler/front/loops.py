"""Loops, all bounded: `for ... in range(...)`, `for x in array`, `for x in (a, b, c)`, and `while` with a limit.

Each loop counts its turns in a slot of its own, so that every lowering and the kernel's verifier see the bound.
"""

from __future__ import annotations

import ast

from kprobes.compiler.front import integers, pointers, texts
from kprobes.compiler.front.conditions import branch_on
from kprobes.compiler.front.context import Loop, TypeUnknownError
from kprobes.compiler.front.scan import count_loads, count_stores
from kprobes.compiler.front.terms import (
    Constant,
    Items,
    Map,
    Number,
    Outside,
    Pointer,
    RecordArray,
    Term,
    Text,
    Word,
    describe,
    limits,
)
from kprobes.compiler.ir.nodes import I64, U64, Const, Fault, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.front.build import OpenBlock
    from kprobes.compiler.front.context import Context

# Turns of one `for`, turns of a `while` alone and within a loop (so many are a fault, whatever its condition would say
# then), and turns of nested loops multiplied. A `while` of much body turns less often (see `weight`).
MOST_TURNS = 4096
WHILE_TURNS = 1024
INNER_TURNS = 64
MOST_NESTED = 1 << 20
MOST_UNROLLED = 64


class Counted:
    """The frame of a counted loop: the header that checks the count, and the way back to it."""

    def __init__(self, ctx: Context, node: ast.For | ast.While, bound: int) -> None:
        self.ctx = ctx
        self.place = ctx.place(node)
        build = ctx.build
        self.slot = ctx.counter()
        build.write_slot(self.place, self.slot, build.const(self.place, 0, U64))
        self.header = build.new_block("loop")
        self.body = build.new_block("body")
        self.again = build.new_block("again")
        self.done = build.new_block("done")
        self.after = build.new_block("after")
        self.header.bound = bound
        self.first = len(build.blocks)
        build.jump(self.place, self.header)
        build.place_block(self.header)
        self.count = build.read_slot(self.place, self.slot)
        self.limit = build.const(self.place, bound, U64)
        more = build.compare(self.place, "lt", self.count, self.limit)
        build.branch(self.place, more, self.body, self.done)
        build.place_block(self.body)

    def limit_turns(self) -> None:
        """Let the loop, whose body is there by now, turn no more often than verifiers follow."""
        build = self.ctx.build
        self.header.bound = build.weights.turns(build.blocks, self.first, self.header.bound, self.ctx.turns)
        nodes = self.header.nodes
        place = next(at for at, node in enumerate(nodes) if isinstance(node, Const) and node.to == self.limit)
        nodes[place] = Const(self.place, self.limit, self.header.bound)

    def close(self, node: ast.For | ast.While) -> None:
        """End the body, go back, and go on behind the loop; `else` runs where it wasn't left by `break`."""
        ctx, build = self.ctx, self.ctx.build
        build.jump(self.place, self.again)
        build.place_block(self.again)
        count = build.read_slot(self.place, self.slot)
        build.write_slot(self.place, self.slot, build.binary(self.place, "add", count, build.const(self.place, 1, U64)))
        build.jump(self.place, self.header)
        build.weights.close(build.blocks, self.first, self.header.bound)
        build.place_block(self.done)
        ctx.run(node.orelse)
        build.jump(self.place, self.after)
        build.place_block(self.after)


def while_loop(ctx: Context, node: ast.While) -> None:
    """Compile `while condition:`; what turns as often as the limit says is a fault."""
    most = WHILE_TURNS if ctx.turns == 1 else INNER_TURNS
    _enter(ctx, node, most)
    loop = Counted(ctx, node, most)
    over, ended = loop.done, ctx.build.new_block("ended")
    ctx.frame.loops.append(Loop(loop.again, loop.after, frozenset(count_stores([node]))))
    turn = ctx.build.new_block("turn")
    try:
        branch_on(ctx, node.test, turn, ended)
    except TypeUnknownError:
        ctx.build.jump(loop.place, turn)
    ctx.build.place_block(turn)
    ctx.run(node.body)
    ctx.frame.loops.pop()
    _leave(ctx, most)
    loop.limit_turns()
    if ctx.seen is not None:
        ctx.seen.turns[node] = loop.header.bound
    loop.done = ended
    done_here = ctx.build.current
    ctx.build.place_block(over)
    ctx.build.add(Fault(loop.place))
    ctx.build.jump(loop.place, loop.after)
    ctx.build.current = done_here
    loop.close(node)


def for_loop(ctx: Context, node: ast.For) -> None:
    """Compile `for ... in range(...)`, over a C array, or over a tuple, which is unrolled.

    Raises:
        CompileError: there is no bound that holds for all hits.
    """
    call = node.iter
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and ctx.find_name(call.func) == Word("range"):
        _range_loop(ctx, node, call)
        return
    term = ctx.lower(node.iter)
    if isinstance(term, Items):
        _unrolled(ctx, node, term)
        return
    if isinstance(term, RecordArray):
        items = tuple(pointers.record_element(ctx, node.iter, term, Constant(at)) for at in range(term.count))
        _unrolled(ctx, node, Items(items))
        return
    if isinstance(term, Pointer) and term.count and not texts.is_text(term):
        _array_loop(ctx, node, term, term.count)
        return
    what = f"a for loop runs over range(...), a tuple or a C array, this is {describe(term)}"
    raise ctx.error(node.iter, what, _loop_hint(term))


def _loop_hint(term: Term) -> str:
    if isinstance(term, Map):
        return "no handler can walk a map, which others change meanwhile: read it with session[map] in Python"
    if isinstance(term, Outside):
        return "name the members in a tuple: for x in (A, B, C): ..."
    if texts.is_text(term):
        return "take the bytes by their numbers: for i in range(16): s[i]"
    if isinstance(term, Pointer):
        return "nothing tells how many there are: for i in range(8): p[i]"
    return "for i in range(8): ..., or over a tuple"


def _array_loop(ctx: Context, node: ast.For, array: Pointer, count: int) -> None:
    if count > MOST_TURNS:
        hint = f"at most {MOST_TURNS} are allowed: for i in range({MOST_TURNS}): ..."
        raise ctx.error(node.iter, f"a loop over {count} elements is too long", hint)
    _enter(ctx, node, count)
    loop = Counted(ctx, node, count)
    ctx.frame.loops.append(Loop(loop.again, loop.after, frozenset(count_stores([node]))))
    index = _index(ctx, node, loop.count, Constant(0), 1, count)
    item = pointers.element(ctx, node.iter, array, index, node.iter)
    if isinstance(node.target, ast.Name):
        _number_turn(ctx, node, node.target.id, item)
    else:
        raise ctx.error(node.target, "an element is one value", "for x in array: ...")
    ctx.run(node.body)
    ctx.frame.loops.pop()
    _leave(ctx, count)
    loop.close(node)


def _unrolled(ctx: Context, node: ast.For, term: Items) -> None:
    from kprobes.compiler.front.statements import assign_to

    if len(term.items) > MOST_UNROLLED:
        raise ctx.error(
            node.iter, f"a loop over {len(term.items)} items is too long", f"at most {MOST_UNROLLED} are unrolled"
        )
    build, place = ctx.build, ctx.place(node)
    after = build.new_block("after")
    for item in term.items:
        following = build.new_block("next")
        ctx.frame.loops.append(Loop(following, after))
        if isinstance(node.target, ast.Name) and not isinstance(item, Text):
            _number_turn(ctx, node, node.target.id, item)
        else:
            assign_to(ctx, node.target, item, node.iter)
        ctx.run(node.body)
        ctx.frame.loops.pop()
        build.jump(place, following)
        build.place_block(following)
    ctx.run(node.orelse)
    build.jump(place, after)
    build.place_block(after)


def _range_loop(ctx: Context, node: ast.For, call: ast.Call) -> None:
    if not isinstance(node.target, ast.Name):
        raise ctx.error(node.target, "range() gives one number a turn", "for i in range(8): ...")
    try:
        start, stop, step = _range_arguments(ctx, call)
        bound = _bound(ctx, call, start, stop, step)
    except TypeUnknownError:
        start, stop, step, bound = Constant(0), Constant(1), 1, 1
    if bound == 0:
        bound, stop = 1, start  # the body never runs, but its mistakes are shown
    _enter(ctx, node, bound)
    loop = Counted(ctx, node, bound)
    ctx.frame.loops.append(Loop(loop.again, loop.after, frozenset(count_stores([node]))))
    index = _index(ctx, node, loop.count, start, step, bound)
    if not (isinstance(stop, Constant) and isinstance(start, Constant) and len(range(start.value, stop.value, step))):
        turn = ctx.build.new_block("turn")
        more = integers.compare(ctx, call, "lt" if step > 0 else "gt", index, stop)
        _go(ctx, loop, more, turn)
        ctx.build.place_block(turn)
    _number_turn(ctx, node, node.target.id, index)
    ctx.run(node.body)
    ctx.frame.loops.pop()
    _leave(ctx, bound)
    loop.close(node)


def _number_turn(ctx: Context, node: ast.For, name: str, item: Term) -> None:
    """Give the loop's variable its value for this turn; one that only the body reads needs no slot."""
    frame = ctx.frame
    if frame.stores[name] == 1 and frame.loads.get(name, 0) == count_loads(node.body).get(name, 0):
        frame.bindings[name] = item
    else:
        ctx.assign(node, name, item)


def _go(ctx: Context, loop: Counted, more: Term, turn: OpenBlock) -> None:
    if isinstance(more, Constant):
        ctx.build.jump(loop.place, turn if more.value else loop.done)
        return
    assert isinstance(more, Number)
    ctx.build.branch(loop.place, more.value, turn, loop.done)


def _range_arguments(ctx: Context, call: ast.Call) -> tuple[Constant | Number, Constant | Number, int]:
    if call.keywords or not 1 <= len(call.args) <= 3:
        raise ctx.error(
            call, "range() takes one to three numbers", "range(stop), range(start, stop), range(start, stop, step)"
        )
    terms: list[Constant | Number] = []
    for argument in call.args:
        term = ctx.lower(argument)
        terms.append(term if isinstance(term, Constant) else integers.number(ctx, argument, term, "a bound of range()"))
    if len(terms) == 1:
        return Constant(0), terms[0], 1
    step = terms[2] if len(terms) == 3 else Constant(1)
    if not isinstance(step, Constant) or not step.value:
        raise ctx.error(call.args[2], "the step of range() must be a literal other than zero", "range(0, 64, 4)")
    return terms[0], terms[1], step.value


def _bound(ctx: Context, call: ast.Call, start: Constant | Number, stop: Constant | Number, step: int) -> int:
    """Return how many turns there are at most."""
    low, high = _ends(start), _ends(stop)
    first, last = (low[0], high[1]) if step > 0 else (low[1], high[0])
    turns = len(range(first, last, step)) if abs(last - first) < 1 << 62 else MOST_TURNS + 1
    if turns > MOST_TURNS:
        if isinstance(start, Constant) and isinstance(stop, Constant):
            raise ctx.error(call, f"a loop of {turns} turns is too long", f"at most {MOST_TURNS} are allowed")
        raise ctx.error(call, "nothing bounds this loop", _bound_hint(call, step))
    return turns


def _bound_hint(call: ast.Call, step: int) -> str:
    first = f"{ast.unparse(call.args[0])}, " if len(call.args) > 1 else ""
    stop = ast.unparse(call.args[1 if len(call.args) > 1 else 0])
    last = f", {step}" if len(call.args) == 3 else ""
    if first and not isinstance(call.args[0], ast.Constant):
        return "count from a literal: for i in range(16): ..."
    return f"say how far it may go: range({first}min({stop}, 16){last})"


def _ends(term: Constant | Number) -> tuple[int, int]:
    return (term.value, term.value) if isinstance(term, Constant) else (term.low, term.high)


def _index(ctx: Context, node: ast.For, count: Value, start: Constant | Number, step: int, bound: int) -> Number:
    """Return the number of this turn: start + count * step."""
    build, place = ctx.build, ctx.place(node)
    value = build.convert(place, count, I64)
    if step != 1:
        value = build.binary(place, "mul", value, build.const(place, step, I64))
    first, last = _ends(start)
    span = (bound - 1) * step
    low, high = min(first, first + span), max(last, last + span)
    if start != Constant(0):
        value = build.binary(place, "add", value, integers.wide(ctx, node, start, I64))
    least, most = limits(I64)
    fits = least <= low and high <= most
    return Number(value, "int", low if fits else least, high if fits else most)


def _enter(ctx: Context, node: ast.AST, turns: int) -> None:
    ctx.turns *= turns
    if ctx.turns > MOST_NESTED:
        raise ctx.error(node, f"these nested loops may turn {ctx.turns} times", f"at most {MOST_NESTED} are allowed")


def _leave(ctx: Context, turns: int) -> None:
    ctx.turns //= turns
