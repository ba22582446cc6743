"""A handler's parts become native functions: `i64 (struct pt_regs *, number of the site, the thread's block)`.

The engine counts a hit when it lets a handler run. A handler of two parts is counted at the entry; see `calls` for the
calls that turn out to be missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.fills import sunk_texts
from kprobes.compiler.back.formatting import format_text
from kprobes.compiler.back.llvm import NATIVE_LAYOUT, NATIVE_TRIPLE, compile_native
from kprobes.compiler.back.memory import zero
from kprobes.compiler.back.native.calls import forget_call, restore_call, save_call
from kprobes.compiler.back.native.emit import emit
from kprobes.compiler.back.native.link import link
from kprobes.compiler.back.native.maps import (
    map_add,
    map_bump,
    map_delete,
    map_fold,
    map_read,
    map_sample,
    map_write,
    queue_pop,
    queue_push,
)
from kprobes.compiler.back.native.part import NativePart
from kprobes.compiler.back.native.reads import fill_slot, load
from kprobes.compiler.back.native.runtime import ATTRIBUTES, SECTION
from kprobes.compiler.back.native.world import builtin, read_context, write_context
from kprobes.compiler.back.plain import Lowerings, is_unsaved_entry, lower_blocks
from kprobes.compiler.back.rooms import rooms
from kprobes.compiler.back.text import ModuleText
from kprobes.compiler.back.texts import (
    compare_text,
    compare_texts,
    copy_text,
    cut_text,
    find_text,
    match_text,
    text_length,
)
from kprobes.compiler.ir import nodes as ir
from kprobes.compiler.ir.operands import read_before_written
from kprobes.model.plan import NativeProgram

if TYPE_CHECKING:
    from kprobes.compiler.back.native.target import NativeTarget
    from kprobes.model.layout import MapLayout

_UNROLLED = 64  # bytes; LLVM calls memset and memcpy for more where it has no vector registers
PARAMETERS = "ptr %regs, i64 %site, ptr %block, i64 %moved"
_STACK = 4096  # a handler runs on the probed program's stack, of which little may be left


def lower_native(handler: ir.Handler, target: NativeTarget) -> tuple[tuple[NativeProgram, ...], tuple[MapLayout, ...]]:
    """Return the programs of *handler*, the exit part first, and the maps they need besides its own.

    Raises:
        CompileError: the handler asks for what can't be had inside of a process.
        InternalError: the IR is broken.
    """
    programs, maps = [], {}
    for function in (handler.exit, handler.entry):
        if function is not None:
            part, text = lower_to_text(handler, function, target)
            programs.append(_program(part, text))
            maps.update(part.implicit)
    return tuple(programs), tuple(maps.values())


def lower_to_text(handler: ir.Handler, function: ir.Function, target: NativeTarget) -> tuple[NativePart, str]:
    """Return one part as an LLVM module."""
    module = ModuleText(NATIVE_TRIPLE, NATIVE_LAYOUT)
    module.unrolled = _UNROLLED
    name = f"{handler.name}.{function.part}"
    text = module.function(name, SECTION, PARAMETERS, ATTRIBUTES)
    part = NativePart(handler, function, target, text)
    _lower_part(part)
    return part, module.finish()


def _program(part: NativePart, text: str) -> NativeProgram:
    from kprobes.arch.x86_64.clobbers import clobbered

    linked = link(compile_native(text))
    entry = linked.symbols[f"{part.handler.name}.{part.function.part}"]
    return NativeProgram(
        name=part.handler.name,
        code=linked.code,
        entry=entry,
        relocations=linked.relocations,
        reads=tuple(sorted(part.reads)),
        writes=part.writes,
        skips=part.skips,
        omits=part.omits,
        part="return" if part.is_return else part.function.part,
        after=part.is_after,
        clobbers=tuple(sorted(clobbered(linked.code[: linked.text_end]))),
    )


def _lower_part(part: NativePart) -> None:
    text, function = part.text, part.function
    first = function.blocks[0]
    text.at(first.nodes[0].place if first.nodes else first.end.place)
    part.learn_site()
    _make_slots(part)
    lower_blocks(part, _LOWERINGS, lambda block: _end(part, block))


def _end(part: NativePart, block: ir.Block) -> None:
    if is_unsaved_entry(part, block):
        forget_call(part)
    part.settle_faults()
    part.end()


def _make_slots(part: NativePart) -> None:
    """Give each slot its place on the stack."""
    events = {event.id: event for event in part.handler.events}
    part.sunk = dict(sunk_texts(part.function, events))
    used = 0
    part.rooms = rooms(part)
    for slot in part.function.slots:
        if slot.type is not None:
            part.integers[slot] = part.text.variable(slot.type.bits)
        elif slot not in part.sunk:
            size = part.rooms.get(slot, slot.size)
            used += size
            part.buffers[slot] = part.text.alloca(size)
    if used > _STACK:
        place = part.function.blocks[0].end.place
        raise part.unsupported(f"{used} bytes of strings", place, f"use shorter ones: {_STACK} bytes in all")
    for slot in read_before_written(part.function):
        if slot in part.buffers:
            zero(part.text, part.buffer(slot), slot.size)


_LOWERINGS: Lowerings = {
    ir.ReadContext: read_context,
    ir.WriteContext: write_context,
    ir.Load: load,
    ir.ReadText: fill_slot,
    ir.ReadBytes: fill_slot,
    ir.RecordText: fill_slot,
    ir.ConstText: fill_slot,
    ir.BuiltinText: fill_slot,
    ir.CopyText: copy_text,
    ir.CompareText: compare_text,
    ir.CompareTexts: compare_texts,
    ir.FindText: find_text,
    ir.MatchText: match_text,
    ir.TextLength: text_length,
    ir.CutText: cut_text,
    ir.FormatText: format_text,
    ir.Builtin: builtin,
    ir.MapAdd: map_add,
    ir.MapSample: map_sample,
    ir.MapFold: map_fold,
    ir.MapRead: map_read,
    ir.MapWrite: map_write,
    ir.MapBump: map_bump,
    ir.MapDelete: map_delete,
    ir.QueuePush: queue_push,
    ir.QueuePop: queue_pop,
    ir.Emit: emit,
    ir.SaveCall: save_call,
    ir.RestoreCall: restore_call,
}
