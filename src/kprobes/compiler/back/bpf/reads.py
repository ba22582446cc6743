"""Memory and texts: safe reads of integers and strings by helpers, and what else fills a byte buffer.

The reading helpers leave the bytes behind a string's NUL alone, hence the zeroing before.
"""

from __future__ import annotations

from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.memory import zero
from kprobes.compiler.back.texts import const_text
from kprobes.compiler.ir.nodes import ConstText, ReadBytes, ReadText, RecordText
from kprobes.errors import InternalError
from kprobes.model.plan import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.part import BpfPart
    from kprobes.compiler.back.fills import Fill
    from kprobes.compiler.ir.nodes import BuiltinText, Load


def read(part: BpfPart, helper: str, to: str, size: int, address: tuple[str, int, str]) -> str:
    """Call *helper* (`probe_read_{}` or `probe_read_{}_str`) for *address* (operand, offset, space); note a fault.
    Return what it said: an i64 that is negative where it failed.

    The helpers fill the target with zeros where they fail (since Linux 5.5, which brought them).
    """
    text = part.text
    base, offset, space = address
    if offset:
        base = text.let(f"add i64 {base}, {offset}")
    if space != "any":
        said = call(text, helper.format(space), to, str(size), base)
        part.fault(said)
        return said
    kernel, user, after = text.label("kernel"), text.label("user"), text.label("read")
    text.branch(text.let(f"icmp slt i64 {base}, 0"), kernel, user)
    ways = []
    for label, kind in ((kernel, "kernel"), (user, "user")):
        text.start(label)
        ways.append((call(text, helper.format(kind), to, str(size), base), text.block))
        text.jump(after)
    text.start(after)
    said = text.phi("i64", ways)
    part.fault(said)
    return said


def tell(part: BpfPart, node: Load | ReadText, said: str) -> None:
    """Bind the node's `failed`, where it has one."""
    if node.failed is not None:
        part.bind(node.failed, part.text.let(f"icmp slt i64 {said}, 0"))


def load(part: BpfPart, node: Load) -> None:
    """Read an integer safely."""
    size = max(node.to.type.bits, 8) // 8
    room = part.temporary("load", 8)
    said = read(part, "probe_read_{}", room, size, (part.value(node.address), node.offset, node.space))
    tell(part, node, said)
    if node.to.type.bits == 1:
        byte = part.text.load(8, room)
        part.bind(node.to, part.text.let(f"icmp ne i8 {byte}, 0"))
    else:
        part.bind(node.to, part.text.load(node.to.type.bits, room))


def fill_slot(part: BpfPart, node: Fill) -> None:
    """Fill the node's slot, unless the one record that wants it is filled directly."""
    if node.slot not in part.sunk:
        fill(part, node, part.buffer(node.slot), 8)


def fill(part: BpfPart, node: Fill, to: str, align: int) -> None:
    """Write the whole of the node's slot to *to*."""
    size = node.slot.size
    if isinstance(node, ReadText):
        zero(part.text, to, size, align)
        said = read(part, "probe_read_{}_str", to, size, (part.value(node.address), node.offset, node.space))
        tell(part, node, said)
    elif isinstance(node, ReadBytes):
        read(part, "probe_read_{}", to, size, (part.value(node.address), node.offset, node.space))
    elif isinstance(node, RecordText):
        _record_text(part, node, to, align)
    elif isinstance(node, ConstText):
        const_text(part.text, node.text, (to, align), size)
    else:
        zero(part.text, to, size, align)  # 6.1 leaves what is behind the name as it was
        _builtin_text(part, node, to)


def _record_text(part: BpfPart, node: RecordText, to: str, align: int) -> None:
    """Follow a `__data_loc`. A context takes no variable offset, but a helper may read from it like from any memory."""
    if part.way != Way.TRACEPOINT:
        raise part.unsupported("a field of a tracepoint", node.place, "")
    text, size = part.text, node.slot.size
    if node.size:  # an array may be full to its last byte, without a NUL
        at, size = text.offset(part.context, node.offset), min(size, node.size + 1)
    else:
        where = text.load(32, text.offset(part.context, node.offset))
        low = text.let(f"zext i32 {text.let(f'and i32 {where}, 65535')} to i64")
        at = text.offset(part.context, low)
    zero(text, to, node.slot.size, align)
    read(part, "probe_read_{}_str", to, size, (text.let(f"ptrtoint ptr {at} to i64"), 0, "kernel"))


def _builtin_text(part: BpfPart, node: BuiltinText, to: str) -> None:
    if node.name != "comm":
        raise InternalError(f"{part.handler.name}: no text is called {node.name!r}")
    call(part.text, "get_current_comm", to, str(node.slot.size))  # can't fail for a task
