"""Memory and texts: safe reads of integers and strings, and what else fills a byte buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.memory import copy, zero
from kprobes.compiler.back.native import memory
from kprobes.compiler.back.native.runtime import system_call
from kprobes.compiler.back.texts import const_text
from kprobes.compiler.ir.nodes import BuiltinText, ConstText, ReadBytes, ReadText
from kprobes.errors import InternalError
from kprobes.model.shared import BLOCK_COMM, WORLD_COMM, WORLD_MAY_CALL

if TYPE_CHECKING:
    from kprobes.compiler.back.fills import Fill
    from kprobes.compiler.back.native.part import NativePart
    from kprobes.compiler.ir.nodes import Load, Place

_SYS_PRCTL, _PR_GET_NAME = 157, 16
COMM_SIZE = 16


def read(part: NativePart, to: str, size: int, address: tuple[str, int, str, Place], *, text: bool = False) -> str:
    """Read *size* bytes, or a string, at *address* (operand, offset, space, place) to *to*; note a fault. Return an i64
    that is negative where it failed."""
    base, offset, space, place = address
    if space == "kernel":
        raise part.unsupported("memory of the kernel", place, "")
    if offset:
        base = part.text.let(f"add i64 {base}, {offset}")
    part.world(0)
    function = (memory.read_text if text else memory.read)(part.text.module)
    stack = part.register("sp")
    said = part.text.let(f"call i64 {function}(ptr {to}, i64 {base}, i64 {size}, i64 {stack}, ptr %block)")
    part.fault(said)
    return said


def _tell(part: NativePart, node: Load | ReadText, said: str) -> None:
    """Bind the node's `failed`, where it has one."""
    if node.failed is not None:
        part.bind(node.failed, part.text.let(f"icmp slt i64 {said}, 0"))


def load(part: NativePart, node: Load) -> None:
    """Read an integer."""
    bits = node.to.type.bits
    room = part.temporary("load", 8)
    said = read(part, room, max(bits, 8) // 8, (part.value(node.address), node.offset, node.space, node.place))
    _tell(part, node, said)
    part.bind(node.to, part.text.load(bits, room) if bits > 1 else _truth(part, room))


def _truth(part: NativePart, room: str) -> str:
    return part.text.let(f"icmp ne i8 {part.text.load(8, room)}, 0")


def fill_slot(part: NativePart, node: Fill) -> None:
    """Fill the node's slot, unless the one record that wants it is filled directly."""
    if node.slot not in part.sunk:
        fill(part, node, part.buffer(node.slot), 8)


def fill(part: NativePart, node: Fill, to: str, align: int) -> None:
    """Write the whole of the node's slot to *to*."""
    size = node.slot.size
    if isinstance(node, ReadText | ReadBytes):
        address = (part.value(node.address), node.offset, node.space, node.place)
        said = read(part, to, size, address, text=isinstance(node, ReadText))
        if isinstance(node, ReadText):
            _tell(part, node, said)
    elif isinstance(node, ConstText):
        const_text(part.text, node.text, (to, align), size)
    elif isinstance(node, BuiltinText):
        if node.name != "comm":
            raise InternalError(f"{part.handler.name}: no text is called {node.name!r}")
        _comm(part, to, size, align)
    else:
        raise part.unsupported("a field of a tracepoint", node.place, "")


def _comm(part: NativePart, to: str, size: int, align: int) -> None:
    """Copy the thread's name: the block has it, or the thread is asked once, or the process's stands for it."""
    text = part.text
    own = text.offset("%block", BLOCK_COMM)
    ask, other, call, end = (text.label(word) for word in ("unnamed", "comm", "prctl", "named"))
    known = text.let(f"icmp ne i8 {text.load(8, own)}, 0")
    ways = [(own, text.block)]
    text.branch(known, end, ask)
    text.start(ask)
    is_own = text.let(f"icmp ne i64 {text.load(64, '%block')}, 0")
    may = text.let(f"icmp ne i32 {text.load(32, part.world(WORLD_MAY_CALL))}, 0")
    text.branch(text.let(f"and i1 {is_own}, {may}"), call, other)
    text.start(call)
    place = text.let(f"ptrtoint ptr {own} to i64")
    text.let(system_call(_SYS_PRCTL, str(_PR_GET_NAME), place))
    ways.append((own, text.block))
    text.jump(end)
    text.start(other)
    process = part.world(WORLD_COMM)
    ways.append((process, text.block))
    text.start(end)
    source = text.phi("ptr", ways)
    copy(text, (to, align), (source, 8), min(size, COMM_SIZE))
    if size > COMM_SIZE:
        zero(text, text.offset(to, COMM_SIZE), size - COMM_SIZE, min(align, 8))
    elif size < COMM_SIZE:
        text.store(8, "0", text.offset(to, size - 1))
