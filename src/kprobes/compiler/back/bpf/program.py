"""A handler's parts become BPF programs.

Counting. `hits` + `missed` is the number of calls seen, whatever the handler does:

- A handler of one part counts a hit when it begins.
- One of two parts counts a call once: in the exit part when it has its record back, or in the entry part where that
  ends without SaveCall (the handler has then done all it wanted for this call). A call for which there was no room, or
  whose return was never seen, is missed (see `calls`). A return whose entry was not seen isn't counted: that call began
  before the probe.

A program whose part does nothing is the counter alone: ten instructions, one of them a call.
"""

from __future__ import annotations

from kprobes.compiler.back.bpf.builtins import builtin
from kprobes.compiler.back.bpf.calls import forget_call, restore_call, save_call
from kprobes.compiler.back.bpf.context import read_context, write_context
from kprobes.compiler.back.bpf.emit import emit
from kprobes.compiler.back.bpf.maps import (
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
from kprobes.compiler.back.bpf.part import LARGEST_SCRATCH, SCRATCH_HEADER, BpfPart
from kprobes.compiler.back.bpf.reads import fill_slot, load
from kprobes.compiler.back.bpf.scratch import release_scratch, take_scratch
from kprobes.compiler.back.bpf.spills import distant_values, is_crowded, loop_counters
from kprobes.compiler.back.bpf.target import STATS, BpfTarget, Lowered, stats_layout
from kprobes.compiler.back.fills import sunk_texts
from kprobes.compiler.back.formatting import format_text
from kprobes.compiler.back.llvm import BPF_LAYOUT, BPF_TRIPLE, TooLongError, compile_object
from kprobes.compiler.back.memory import zero
from kprobes.compiler.back.object import StackError, TooMuchError, read_programs
from kprobes.compiler.back.plain import Lowerings, is_unsaved_entry, lower_blocks
from kprobes.compiler.back.rooms import rooms
from kprobes.compiler.back.text import ModuleText, literal
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
from kprobes.errors import InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.layout import MapLayout

_STACK_FOR_SLOTS = 192  # of the 512 bytes of a BPF stack; the rest is for keys, small records and spilled registers


def lower(handler: ir.Handler, target: BpfTarget) -> Lowered:
    """Return the programs of *handler* for *target*, the return program first, and the maps they need besides its own.

    Raises:
        CompileError: the handler asks for what the way in can't give (a register through fentry).
        InternalError: the IR or the target is broken.
    """
    frugal = any(function is not None and is_crowded(function) for function in (handler.entry, handler.exit))
    try:
        return _lower(handler, target, frugal=frugal)
    except StackError:
        if frugal:
            raise
    return _lower(handler, target, frugal=True)


def _lower(handler: ir.Handler, target: BpfTarget, *, frugal: bool) -> Lowered:
    module, maps, ways = lower_to_text(handler, target, frugal=frugal)
    try:
        content = compile_object(module, BPF_TRIPLE, target.cpu)
    except TooLongError as error:
        raise TooMuchError(handler, f"{error.size} instructions, and BPF can't jump over so many") from None
    programs = read_programs(content, handler, ways, target.learns_site_by)
    return Lowered(programs, maps)


def lower_to_text(
    handler: ir.Handler, target: BpfTarget, *, frugal: bool = False
) -> tuple[str, tuple[MapLayout, ...], tuple[tuple[str, str], ...]]:
    """Return the LLVM module of *handler*, the implicit maps, and (function name, way) of each part.

    *frugal*: what lives long is kept off the stack.
    """
    target.check()
    module = ModuleText(BPF_TRIPLE, BPF_LAYOUT)
    maps = {STATS: stats_layout(target)}
    ways = []
    for function, way in ((handler.exit, target.exit_way), (handler.entry, target.entry_way)):
        if function is None:
            continue
        if not way:
            raise InternalError(f"{handler.name} has an {function.part} part and no way to run it")
        part = _lowered_part(module, (handler, function, target, way), frugal=frugal)
        maps.update(part.implicit)
        ways.append((f"program/{function.part}", way))
    return module.finish(), tuple(maps.values()), tuple(ways)


def _lowered_part(module: ModuleText, what: tuple[ir.Handler, ir.Function, BpfTarget, str], *, frugal: bool) -> BpfPart:
    """Lower one part; again with the working memory that it turned out to need."""
    scratch_size = 0
    handler, function, target, way = what
    while True:
        text = module.function(f"{handler.name}.{function.part}", f"program/{function.part}")
        part = BpfPart(handler, function, target, way, text)
        part.scratch_size = scratch_size
        part.distant = distant_values(function) if frugal else frozenset()
        _lower_part(part, frugal=frugal)
        if part.scratch_used <= scratch_size:
            return part
        scratch_size = part.scratch_used
        if SCRATCH_HEADER + scratch_size > LARGEST_SCRATCH:
            raise TooMuchError(handler, f"{scratch_size} bytes of working memory, and a CPU has {LARGEST_SCRATCH}")
        module.drop(text)


def _lower_part(part: BpfPart, *, frugal: bool) -> None:
    text, function = part.text, part.function
    first = function.blocks[0]
    text.at(first.nodes[0].place if first.nodes else first.end.place)
    part.learn_site()
    if part.scratch_size:
        take_scratch(part)
    _make_slots(part, frugal=frugal)
    if _is_only_part(part):
        part.count("hits")
    lower_blocks(part, _LOWERINGS, lambda block: _end(part, block))


def _is_only_part(part: BpfPart) -> bool:
    return part.handler.entry is None or part.handler.exit is None


def _end(part: BpfPart, block: ir.Block) -> None:
    if is_unsaved_entry(part, block):
        forget_call(part)
        part.count("hits")
    part.settle_faults()
    release_scratch(part)
    part.text.give_back("0")


def _make_slots(part: BpfPart, *, frugal: bool) -> None:
    """Give each slot its place: integers and small buffers on the stack, large ones in memory of this CPU."""
    events = {event.id: event for event in part.handler.events}
    part.sunk = dict(sunk_texts(part.function, events))
    buffers = []
    in_registers = loop_counters(part.function)
    if frugal:
        part.keep_fault_flag()
    for slot in part.function.slots:
        if slot.type is not None and frugal and slot not in in_registers:
            part.integers[slot] = part.integer_room()
            part.text.store(slot.type.bits, literal(0, slot.type.bits), part.integers[slot])
        elif slot.type is not None:
            part.integers[slot] = part.text.variable(slot.type.bits)
        elif slot not in part.sunk:
            buffers.append(slot)
    used = 0 if not frugal else _STACK_FOR_SLOTS
    part.rooms = rooms(part)
    for slot in sorted(buffers, key=lambda slot: slot.size):
        size = part.rooms.get(slot, slot.size)
        used += -(-size // 8) * 8
        part.buffers[slot] = part.text.alloca(size) if used <= _STACK_FOR_SLOTS else part.room(size)
    for slot in read_before_written(part.function):
        if slot in part.buffers:
            zero(part.text, part.buffer(slot), slot.size)


# What a node of this machine's own becomes


def _restore(part: BpfPart, node: ir.RestoreCall) -> None:
    restore_call(part, node)
    part.count("hits")


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
    ir.RestoreCall: _restore,
}
