"""What is recorded at the hits of a group, and the handler that records it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.arch.registers import registers as registers_of
from kprobes.compiler.front.abi import integer_indexes
from kprobes.compiler.front.pointers import is_readable
from kprobes.compiler.ir.recording import Context, recording
from kprobes.compiler.ir.usage import uses_registers
from kprobes.model.builtins import TABLE
from kprobes.model.ctype import Array, sizeof
from kprobes.model.probe import RETURN_KINDS
from kprobes.planner.places import NoTypes

if TYPE_CHECKING:
    from kprobes.compiler.ir.nodes import Handler
    from kprobes.model.ctype import Types
    from kprobes.planner.group import Group

_COMMON_FIELDS = 8
_STACKS = frozenset({"stack", "user_stack"})


def recorded(handler: Handler, group: Group, engine: str, types: Types | None, first_event: int) -> Handler:
    """Return *handler* with what it sees at each hit sent besides, on *engine* (`kernel` or `process`)."""
    probe = group.probe
    is_user = probe.kind in ("uprobe", "uretprobe")
    context = Context(
        arguments=_arguments(group, types, handler.arch),
        registers=probe.kind != "tracepoint" and (is_user or not group.at_entry or uses_registers(handler)),
        words=tuple(
            row.name
            for row in TABLE
            if row.world and engine in row.engines.split() and row.name not in _STACKS
            if not row.needs or (row.needs == "on_fault" and probe.on_fault)
        ),
        fields=_fields(group),
        returns=probe.kind in RETURN_KINDS,
    )
    return recording(handler, context, first_event + len(handler.events))


def _arguments(group: Group, types: Types | None, arch: str) -> int:
    registers = len(registers_of(arch).kernel_arguments)
    if group.probe.kind == "tracepoint" or not group.at_entry:
        return 0
    if group.prototype is None:
        return registers
    found = integer_indexes(group.prototype, types or NoTypes(), arch)
    kinds = zip(found, group.prototype.parameters, strict=True)
    readable = [index for index, one in kinds if index is not None and is_readable(one.type)]
    return min(max(readable, default=-1) + 1, registers)


def _fields(group: Group) -> tuple[tuple[int, int], ...]:
    found = {
        (one.offset, min(sizeof(one.type), one.size))
        for one in group.record
        if not one.location and not isinstance(one.type, Array) and is_readable(one.type)
    }
    # What all tracepoints have in common lies where the kernel lets no program look.
    return tuple(sorted(pair for pair in found if pair[1] in (1, 2, 4, 8) and pair[0] >= _COMMON_FIELDS))
