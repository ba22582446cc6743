"""What the hit brings along, the memory around it, and what goes out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.ir import nodes as ir
from kprobes.compiler.ir.interpret.run import number_in, wrap
from kprobes.model.layout import RECORD_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.ir.interpret.run import Run
    from kprobes.model.layout import Field


def _read_context(run: Run, node: ir.ReadContext) -> None:
    frame = run.frame
    if node.what == "record":
        size = max(node.to.type.bits, 8) // 8
        number = int.from_bytes(frame.record[node.index : node.index + size], "little")
        run.set(node.to, number != 0 if node.to.type.bits == 1 else number)
        return
    if node.what == "argument":
        number = frame.arguments[node.index]
    elif node.what == "register":
        number = frame.registers[node.name]
    else:
        number = frame.result if node.what == "return" else frame.function
    run.set(node.to, number & 1 if node.to.type.bits == 1 else number)


def _write_context(run: Run, node: ir.WriteContext) -> None:
    run.host.world.write(node.what, node.name, run.get(node.source) if node.source else 0)


def _builtin(run: Run, node: ir.Builtin) -> None:
    run.set(node.to, run.host.world.number(node.name))


def _load(run: Run, node: ir.Load) -> None:
    size = max(node.to.type.bits, 8) // 8
    content = run.read(node.space, run.get(node.address) + node.offset, size)
    if content is None:
        run.fault = True
    if node.failed is not None:
        run.set(node.failed, content is None)
    number = int.from_bytes(content or b"", "little")
    run.set(node.to, number != 0 if node.to.type.bits == 1 else number)


def _emit(run: Run, node: ir.Emit) -> None:
    layout = run.host.events[node.event]
    record = bytearray(run.pack(layout.fields, node.operands, layout.size))
    record[:RECORD_HEADER] = layout.id.to_bytes(4, "little") + run.host.site.to_bytes(4, "little")
    if not run.host.world.send(bytes(record)):
        run.host.counters.lost += 1


def _save_call(run: Run, node: ir.SaveCall) -> None:
    host, call = run.host, run.frame.call
    if call in host.saved:
        host.counters.missed += 1  # the return of the call that left this was never seen
    elif len(host.saved) >= host.room_for_calls:
        host.counters.missed += 1
        return
    # As the fields keep them: cut to their size.
    kept = []
    for field, operand in zip(host.handler.call_fields, node.operands, strict=True):
        content = run.pack((field,), (operand,), field.offset + field.size)[field.offset :]
        kept.append(content if isinstance(operand, ir.Slot) else number_in(_at_start(field), content))
    host.saved[call] = tuple(kept)


def _at_start(field: Field) -> Field:
    return type(field)(field.name, field.kind, 0, field.size)


def _restore_call(run: Run, node: ir.RestoreCall) -> None:
    host = run.host
    kept = host.saved.pop(run.frame.call, None)
    if kept is None:
        run.end()
        return
    host.counters.hits += 1
    for slot, content in zip(node.slots, kept, strict=True):
        if isinstance(content, bytes):
            run.fill(slot, content)
        elif slot.type is not None:
            run.numbers[slot] = wrap(content, slot.type)


NODES: dict[type, Callable[..., None]] = {
    ir.ReadContext: _read_context,
    ir.WriteContext: _write_context,
    ir.Builtin: _builtin,
    ir.Load: _load,
    ir.Emit: _emit,
    ir.SaveCall: _save_call,
    ir.RestoreCall: _restore_call,
}
