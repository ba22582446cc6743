"""A handler as one or two functions of the IR: the split at `yield`, and what crosses from the entry to the exit.

What the exit part reads and the entry part made (locals that live across the `yield`, parameters, arguments) is found
by liveness on the exit's finished code. It is kept per call by `SaveCall` and comes back by `RestoreCall`.
"""

from __future__ import annotations

import ast
from functools import partial

from kprobes.compiler.front.build import Builder
from kprobes.compiler.front.flow import acts, live_at_start, returns_early
from kprobes.compiler.front.mistakes import guarded
from kprobes.compiler.front.statements import assign_to
from kprobes.compiler.front.terms import is_static
from kprobes.compiler.ir.nodes import Block, Emit, Function, Handler, MapAdd, RestoreCall, SaveCall, Slot
from kprobes.compiler.ir.operands import slots_written
from kprobes.frozen import replace
from kprobes.model.layout import Field, pack_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.front.context import Context
    from kprobes.compiler.ir.nodes import Node, Operand, Place
    from kprobes.model.layout import EventLayout, MapLayout


def compile_plain(ctx: Context) -> Handler | None:
    """Compile a handler that runs at one point; None if the types of its variables are not settled yet."""
    entry = _start(ctx, "entry")
    if ctx.given is not None:
        ctx.frame.bindings.update(ctx.given.begin(ctx, entry))
    _assign_parameters(ctx)
    ctx.run(ctx.text.definition.body)
    if not ctx.settled:
        return None
    return _handler(ctx, ctx.build.finish(_end(ctx)), None, ())


def compile_split(
    ctx: Context, before: list[ast.stmt], split_at: ast.stmt | None, after: list[ast.stmt]
) -> Handler | None:
    """Compile a handler of a return probe: *before* runs at the entry, *after* at the exit.

    For a probe of an instruction *after* runs behind it.
    """
    entry = _start(ctx, "entry")
    if split_at is not None:
        _assign_parameters(ctx)
        ctx.run(before)
        bindings = ctx.frame.bindings
        for name in [name for name, term in bindings.items() if not is_static(term)]:
            del bindings[name]
    exit_ = _start(ctx, "exit")
    if ctx.given is not None:
        ctx.frame.bindings.update(ctx.given.begin(ctx, entry))
    if split_at is None:
        _assign_parameters(ctx)
    elif not isinstance(split_at, ast.Expr):
        guarded(ctx, split_at, partial(_assign_result, ctx, split_at))
    ctx.run(after)
    if not ctx.settled:
        return None
    last = exit_.finish(_end(ctx))
    ctx.build = entry
    first, fields, restored = _connect(ctx, entry, last, split_at)
    if first is not None:
        last = _restoring(last, restored, ctx.place(split_at or ctx.text.definition))
    return _handler(ctx, first, last, fields)


def _start(ctx: Context, part: str) -> Builder:
    ctx.build = Builder(ctx.text.source.name, part)
    return ctx.build


def _end(ctx: Context) -> Place:
    return ctx.place(ctx.text.definition.body[-1])


def _assign_parameters(ctx: Context) -> None:
    """Give parameters that the handler assigns to a slot of their own."""
    for node in (
        *ctx.text.definition.args.posonlyargs,
        *ctx.text.definition.args.args,
        *ctx.text.definition.args.kwonlyargs,
    ):
        if node.arg in ctx.frame.stores:
            guarded(ctx, node, partial(_assign_parameter, ctx, node))


def _assign_parameter(ctx: Context, node: ast.arg) -> None:
    ctx.mistakes.check(node.arg)
    ctx.assign(node, node.arg, ctx.parameters.by_name(node, node.arg))


def _assign_result(ctx: Context, split_at: ast.stmt) -> None:
    """Carry out the left side of `ret = yield`."""
    assert isinstance(split_at, ast.Assign | ast.AnnAssign)
    assert split_at.value is not None
    targets = split_at.targets if isinstance(split_at, ast.Assign) else [split_at.target]
    term = ctx.parameters.returned(split_at.value)
    if id(split_at) in ctx.frame.bindable and isinstance(targets[0], ast.Name):
        ctx.frame.bindings[targets[0].id] = term
        return
    for target in targets:
        assign_to(ctx, target, term, split_at.value)


def _connect(
    ctx: Context, entry: Builder, last: Function, split_at: ast.stmt | None
) -> tuple[Function | None, tuple[Field, ...], tuple[Slot, ...]]:
    """Finish the entry part; return it (None if it is not needed), and what it saves for *last*."""
    place = ctx.place(split_at or ctx.text.definition)
    saved: list[Slot] = []
    operands: list[Operand] = []
    written = {slot for block in entry.blocks for node in block.nodes for slot in slots_written(node)}
    for slot in live_at_start(last):
        argument = ctx.parameters.captured(ctx.text.definition, slot)
        if argument is not None:
            operand: Operand = argument
        elif slot not in written:
            continue  # it is first written in the exit part, inside a loop
        else:
            operand = slot if slot.type is None else entry.read_slot(place, slot)
        saved.append(slot)
        operands.append(operand)
    save = SaveCall(place, tuple(operands))
    ending = entry.current
    ending.nodes.append(save)
    first = entry.finish(place)
    if not saved and not returns_early(first) and not acts(_without(first, save)):
        return None, (), ()
    return first, _call_fields(saved), tuple(saved)


def _without(function: Function, node: object) -> Function:
    blocks = tuple(Block(b.label, tuple(n for n in b.nodes if n is not node), b.end, b.bound) for b in function.blocks)
    return Function(function.name, function.part, function.slots, blocks)


def _call_fields(slots: Sequence[Slot]) -> tuple[Field, ...]:
    shapes = [
        (slot.name.lstrip("."), "str", slot.size)
        if slot.type is None
        else (slot.name.lstrip("."), "int" if slot.type.signed else "uint", slot.type.bits // 8)
        for slot in slots
    ]
    return pack_fields(shapes)[0]


def _restoring(last: Function, slots: tuple[Slot, ...], place: Place) -> Function:
    """Return the exit part *last* with the node in front that brings the saved slots back."""
    head = last.blocks[0]
    restore = RestoreCall(place, slots)
    known = dict.fromkeys((*slots, *last.slots))
    return Function(
        last.name,
        last.part,
        tuple(known),
        (Block(head.label, (restore, *head.nodes), head.end, head.bound), *last.blocks[1:]),
    )


def _handler(ctx: Context, entry: Function | None, exit_: Function | None, fields: tuple[Field, ...]) -> Handler:
    source = ctx.text.source
    functions = [part for part in (entry, exit_) if part]
    maps = _maps_of(ctx, functions)
    events, numbers = _events_sent(ctx, functions)
    if numbers:
        entry, exit_ = _renumbered(entry, numbers), _renumbered(exit_, numbers)
    lines = dict(sorted(ctx.lines.items()))
    asserts = tuple(one for one in ctx.asserts.values() if one.map in {layout.name for layout in maps})
    return Handler(
        source.name, entry, exit_, maps, events, fields, source.file, lines, asserts=asserts, arch=ctx.around.arch
    )


def _maps_of(ctx: Context, functions: list[Function]) -> tuple[MapLayout, ...]:
    """Return the layouts of the maps that are used; an `assert` that can't fail needs none."""
    added = {
        node.map
        for function in functions
        for block in function.blocks
        for node in block.nodes
        if isinstance(node, MapAdd)
    }
    layouts = [term.layout for term in ctx.used_maps.values()]
    return tuple(layout for layout in layouts if layout.name not in ctx.asserts or layout.name in added)


def _events_sent(ctx: Context, functions: list[Function]) -> tuple[tuple[EventLayout, ...], dict[int, int]]:
    """Return the events that are still sent, and their new numbers where some are not: numbers have no gaps."""
    sent = {n.event for function in functions for block in function.blocks for n in block.nodes if isinstance(n, Emit)}
    kept = [event for event in ctx.events if event.id in sent]
    if len(kept) == len(ctx.events):
        return tuple(kept), {}
    numbers = {event.id: ctx.around.first_event_id + index for index, event in enumerate(kept)}
    return tuple(replace(event, id=numbers[event.id]) for event in kept), numbers


def _renumbered(function: Function | None, numbers: dict[int, int]) -> Function | None:
    if function is None:
        return None

    def renumbered(node: Node) -> Node:
        return replace(node, event=numbers[node.event]) if isinstance(node, Emit) else node

    blocks = tuple(replace(block, nodes=tuple(map(renumbered, block.nodes))) for block in function.blocks)
    return replace(function, blocks=blocks)
