"""What a hit brings along, by the way in: registers, arguments, return value, tracepoint record, and the call's frame.

- Kernel and user register ways get `struct pt_regs`. At a function's entry `sp` of x86 points at the return address.
- fentry and fexit get an array of u64: the arguments, then (fexit) the return value.
- A raw tracepoint gets its arguments as u64; a tracepoint gets its record.

A call's entry and exit are matched by its *frame*, a number that no other call in flight has:

- fentry and fexit: both parts run from one trampoline, on whose stack the context lies, so its address is the same
  for both. It is taken as the distance from a map's value, because the verifier lets a program subtract pointers but
  not multiply one.
- Kernel registers: `sp` at the entry. At the return it has been popped once where a call pushes the return address,
  hence the 8 on x86-64: seen so with kprobes on 5.10, 6.1, 6.12 and 7.2, and with kprobe.multi on 6.12 and 7.2. On
  arm64 nothing is pushed: seen so with kprobes on 6.1, 6.12 and 7.2; with kprobe.multi the caller's frame pointer
  tells a call (7.2).
- User registers: the same, mixed with the thread's id, since two processes can have the same stack addresses. `sp`
  has 47 bits and an id has 22: the five bits in which they overlap are the highest of `sp`, which hardly differ
  between stacks.

Where several sites share a table the site is mixed in too: after a tail call two functions return to the same frame.
"""

from __future__ import annotations

from kprobes.arch.registers import registers
from kprobes.compiler.back.arithmetic import convert
from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.reads import read
from kprobes.compiler.back.bpf.target import (
    ARRAY_WAYS,
    KERNEL_REGISTER_WAYS,
    REGISTER_WAYS,
    TRAMPOLINE_WAYS,
    USER_WAYS,
    frame_kind,
)
from kprobes.compiler.ir.nodes import U64, IntType
from kprobes.errors import InternalError
from kprobes.model.plan import MULTI_WAYS, RETURN_WAYS, Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.part import BpfPart
    from kprobes.compiler.ir.nodes import ReadContext, WriteContext

_MIX = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd


def read_context(part: BpfPart, node: ReadContext) -> None:
    """Bind the result of a ReadContext."""
    reader = _READERS.get(node.what)
    if reader is None:
        raise InternalError(f"{part.handler.name}: a hit has no {node.what!r}")
    value = reader(part, node)
    if node.what == "record":
        part.bind(node.to, value)
        return
    if part.way in TRAMPOLINE_WAYS and node.to.number in part.numbers:
        value = _as_number(part, value)
    part.bind(node.to, convert(part.text, U64, IntType(node.to.type.bits, node.to.type.signed), value))


def _as_number(part: BpfPart, value: str) -> str:
    """Return *value* such that the verifier forgets that it is a pointer, by adding it to a zero on the stack."""
    room = part.temporary("number", 8)
    part.text.do(f"store volatile i64 0, ptr {room}, align 8")
    part.add(room, value)
    return part.text.let(f"load volatile i64, ptr {room}, align 8")


def write_context(part: BpfPart, node: WriteContext) -> None:
    """Refuse: a BPF program can't change registers."""
    raise part.unsupported("changing the probed program", node.place, "use the process engine (-p PID) for that")


def word(part: BpfPart, offset: int) -> str:
    """Return the u64 at *offset* of the context."""
    return part.text.load(64, part.text.offset(part.context, offset))


def register(part: BpfPart, name: str) -> str:
    """Return a register of the probed code."""
    table = registers(part.handler.arch)
    value = part.text.load(8 * table.word_size, part.text.offset(part.context, table.offsets[name]))
    return value if table.word_size == 8 else part.text.let(f"zext i{8 * table.word_size} {value} to i64")


def _register(part: BpfPart, node: ReadContext) -> str:
    if part.way not in REGISTER_WAYS:
        raise part.unsupported(f"the register {node.name}", node.place, "probe with --way kprobe")
    return register(part, node.name)


def _argument(part: BpfPart, node: ReadContext) -> str:
    if part.way in ARRAY_WAYS:
        if part.way in TRAMPOLINE_WAYS and node.index >= part.target.argument_count:
            raise part.unsupported(
                f"argument {node.index + 1} of a function of {part.target.argument_count}", node.place, ""
            )
        if part.way in TRAMPOLINE_WAYS and node.index in part.target.untyped:
            return _untyped_argument(part, node.index)
        return word(part, 8 * node.index)
    if part.way not in REGISTER_WAYS or part.way in RETURN_WAYS:
        raise part.unsupported("an argument", node.place, "")
    table = registers(part.handler.arch)
    arguments = table.arguments if part.way in USER_WAYS else table.kernel_arguments
    if node.index < len(arguments):
        return register(part, arguments[node.index])
    room, size = part.temporary("load", 8), table.word_size
    offset = table.stack_arguments_offset + size * (node.index - len(arguments))
    space = "user" if part.way in USER_WAYS else "kernel"
    if size < 8:
        part.text.store(64, "0", room)
    read(part, "probe_read_{}", room, size, (register(part, table.stack_pointer), offset, space))
    return part.text.load(64, room)


def _untyped_argument(part: BpfPart, index: int) -> str:
    """Return an argument whose type keeps the verifier from letting a program load it; a helper may read it.

    Pointers to pointers and functions are such, before Linux 5.17 pointers to integers too.
    """
    room = part.temporary("load", 8)
    address = part.text.let(f"ptrtoint ptr {part.text.offset(part.context, 8 * index)} to i64")
    call(part.text, "probe_read_kernel", room, "8", address)
    return part.text.load(64, room)


def _return(part: BpfPart, node: ReadContext) -> str:
    if part.way == Way.FEXIT:
        if part.target.argument_count in part.target.untyped:
            return _untyped_argument(part, part.target.argument_count)
        return word(part, 8 * part.target.argument_count)
    if part.way not in RETURN_WAYS:
        raise part.unsupported("the return value", node.place, "only a return probe has one")
    return register(part, registers(part.handler.arch).result)


def _record(part: BpfPart, node: ReadContext) -> str:
    if part.way != Way.TRACEPOINT:
        raise part.unsupported("a field of a tracepoint", node.place, "")
    bits = node.to.type.bits
    pointer = part.text.offset(part.context, node.index)
    if bits > 1:
        return part.text.load(bits, pointer)
    return part.text.let(f"icmp ne i8 {part.text.load(8, pointer)}, 0")


def _function(part: BpfPart, node: ReadContext) -> str:
    # At a kprobe of x86 the instruction pointer stands behind the breakpoint, also where a jump or ftrace took its
    # place.
    table = registers(part.handler.arch)
    if part.way == Way.KPROBE and table.trap_length:
        return part.text.let(f"sub i64 {register(part, table.instruction_pointer)}, {table.trap_length}")
    if part.way in (Way.KPROBE, Way.UPROBE):
        return register(part, table.instruction_pointer)
    if part.way in KERNEL_REGISTER_WAYS | TRAMPOLINE_WAYS:
        if not part.target.compare_exchange:  # the helper is younger (5.15 to 5.17)
            raise part.unsupported("the probed function's address", node.place, "a newer kernel can tell it")
        return call(part.text, "get_func_ip", part.context)
    raise part.unsupported("the probed function's address", node.place, "")


_READERS = {
    "register": _register,
    "argument": _argument,
    "return": _return,
    "record": _record,
    "function": _function,
}


def frame(part: BpfPart, base: str) -> str:
    """Return the frame of this call (i64); *base* is the address of some map value, the same in both parts."""
    text = part.text
    kind = frame_kind(part.way)
    if kind == "trampoline":
        own = text.let(f"ptrtoint ptr {part.context} to i64")
        number = text.let(f"sub i64 {own}, ptrtoint (ptr {base} to i64)")
    else:
        table = registers(part.handler.arch)
        # ftrace on arm64 tells the stack pointer at the entry only; a frame's address is as good there
        by_frame = bool(table.link) and part.way in MULTI_WAYS
        number = register(part, table.frame_pointer if by_frame else table.stack_pointer)
        if part.way in RETURN_WAYS and table.stack_arguments_offset:
            number = text.let(f"add i64 {number}, -{table.stack_arguments_offset}")
    if kind == "user":
        thread = text.let(f"shl i64 {call(text, 'get_current_pid_tgid')}, 42")
        number = text.let(f"xor i64 {number}, {thread}")
    if part.target.site is None:
        number = text.let(f"add i64 {number}, {text.let(f'mul i64 {part.site}, {_MIX - (1 << 64)}')}")
    return number
