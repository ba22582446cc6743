"""A handler's IR as text, for golden files and for people who debug the compiler."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from kprobes.compiler.ir.nodes import (
    Binary,
    Block,
    Branch,
    Compare,
    Const,
    Convert,
    FormatText,
    Function,
    Handler,
    Jump,
    MapRead,
    Node,
    QueuePop,
    ReadContext,
    ReadSlot,
    Slot,
    Terminator,
    Value,
    WriteSlot,
)
from kprobes.model.layout import EventLayout, Field, MapLayout

if TYPE_CHECKING:
    from collections.abc import Iterator

_RESULTS = ("to", "found", "failed")


def show_handler(handler: Handler) -> str:
    """Return *handler* as text, a node a line, with the source line each comes from."""
    lines = [f"handler {handler.name}"]
    lines += [f"  {_map(one)}" for one in handler.maps]
    lines += [f"  {_event(one)}" for one in handler.events]
    if handler.call_fields:
        lines.append(f"  call {_fields(handler.call_fields)}")
    for function in (handler.entry, handler.exit):
        if function is not None:
            lines += ["", *show_function(function)]
    return "\n".join(lines) + "\n"


def show_function(function: Function) -> Iterator[str]:
    """Yield the lines of one part; values are numbered in the order of the text."""
    numbers: dict[int, int] = {}
    yield f"{function.part}:"
    for slot in function.slots:
        yield f"  slot {slot.name}: {slot.type or f'text[{slot.size}]'}"
    for block in function.blocks:
        yield from _block(block, numbers)


def _block(block: Block, numbers: dict[int, int]) -> Iterator[str]:
    yield f" {block.label}:{f'  # at most {block.bound} turns' if block.bound else ''}"
    line = 0
    for node in (*block.nodes, block.end):
        text = f"  {_node(node, numbers)}"
        if node.place.line != line:
            line = node.place.line
            text = f"{text:<60}  ; line {line}"
        yield text


def _node(node: Node | Terminator, numbers: dict[int, int]) -> str:
    made = _made(node, numbers)
    if isinstance(node, Const):
        return f"{made} = {node.value}"
    if isinstance(node, Binary | Compare):
        return f"{made} = {node.op} {_operand(node.left, numbers)}, {_operand(node.right, numbers)}"
    if isinstance(node, Convert):
        return f"{made} = convert {_operand(node.source, numbers)}:{node.source.type}"
    if isinstance(node, ReadSlot):
        return f"{made} = {node.slot.name}"
    if isinstance(node, WriteSlot):
        return f"{node.slot.name} = {_operand(node.source, numbers)}"
    if isinstance(node, ReadContext):
        which = node.name if node.what == "register" else "" if node.what in ("return", "function") else node.index
        return f"{made} = {node.what} {which}".rstrip()
    if isinstance(node, Jump):
        return f"jump {node.target}"
    if isinstance(node, Branch):
        return f"branch {_operand(node.condition, numbers)} ? {node.yes} : {node.no}"
    rest = [_part(f.name, getattr(node, f.name), numbers) for f in fields(node) if f.name not in ("place", *_RESULTS)]
    if isinstance(node, MapRead):
        rest = [node.map, _part("key", node.key, numbers)]
    if isinstance(node, FormatText):
        rest = [node.slot.name, repr(_template(node)), _part("operands", node.operands, numbers)]
    if isinstance(node, QueuePop):
        rest = [node.map]
    shown = " ".join(part for part in rest if part)
    name = type(node).__name__
    return f"{made} = {name} {shown}".rstrip() if made else f"{name} {shown}".rstrip()


def _template(node: FormatText) -> str:
    """Return the pieces in the manner of Python's formats: `{}` for a string, `{0x1-8x}` for 1 to 8 digits."""
    operands = iter(node.operands)
    parts = []
    for piece in node.pieces:
        parts.append(piece.text.decode("utf-8", "replace"))
        if piece.takes:
            kind = "d" if piece.base == 10 else "X" if piece.upper else "x"
            shape = f"{piece.prefix.decode()}{piece.least}-{piece.most}{kind}"
            parts.append("{}" if isinstance(next(operands), Slot) else f"{{{shape}}}")
    return "".join(parts)


def _made(node: Node | Terminator, numbers: dict[int, int]) -> str:
    """Return the results of *node*, numbered now, with their types."""
    results: list[object] = []
    for name in ("found", "to", "failed"):
        part = getattr(node, name, None)
        results += part if isinstance(part, tuple) else [part]
    if isinstance(node, MapRead | QueuePop):
        results += node.texts
    shown = []
    for result in results:
        if isinstance(result, Value):
            numbers[result.number] = len(numbers)
            shown.append(f"%{numbers[result.number]}:{result.type}")
        elif isinstance(result, Slot):
            shown.append(result.name)
    return ", ".join(shown)


def _operand(operand: object, numbers: dict[int, int]) -> str:
    if isinstance(operand, Value):
        return f"%{numbers.get(operand.number, -1)}"
    if isinstance(operand, Slot):
        return operand.name
    return repr(operand)


def _part(name: str, part: object, numbers: dict[int, int]) -> str:
    if isinstance(part, tuple):
        return f"{name}=({', '.join(_operand(one, numbers) for one in part)})"
    if isinstance(part, Value | Slot):
        return f"{name}={_operand(part, numbers)}"
    if name in ("map", "what", "name", "space"):
        return str(part)
    if part in (None, False, 0) and name != "event":
        return ""
    return f"{name}={part!r}"


def _map(layout: MapLayout) -> str:
    shape = f"{layout.kind} {layout.name}"
    if layout.key:
        shape += f" key {_fields(layout.key)}"
    return f"{shape} value {_fields(layout.value)}" if layout.value else shape


def _event(event: EventLayout) -> str:
    template = f" {event.template!r}" if event.template else ""
    return f"event {event.id} {event.name}[{event.size}] {_fields(event.fields)}{template}"


def _fields(layout: tuple[Field, ...]) -> str:
    return "(" + ", ".join(f"{one.name}:{one.kind}{8 * one.size}@{one.offset}" for one in layout) + ")"
