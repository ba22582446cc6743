"""What a hit brings along, what it may change, and the builtins that are numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.arch.x86_64 import registers as x86_64
from kprobes.compiler.back.arithmetic import convert
from kprobes.compiler.back.native import runtime
from kprobes.compiler.back.native.reads import read
from kprobes.compiler.back.native.stacks import stack
from kprobes.compiler.ir.nodes import U64
from kprobes.errors import InternalError
from kprobes.model.shared import (
    BLOCK_PID,
    BLOCK_RANDOM,
    BLOCK_TID,
    CLOCK,
    WORLD_GID,
    WORLD_MAY_CALL,
    WORLD_PID,
    WORLD_UID,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.back.native.part import NativePart
    from kprobes.compiler.ir.nodes import Builtin, ReadContext, WriteContext

_CPU_BITS = 0xFFF


def read_context(part: NativePart, node: ReadContext) -> None:
    """Bind the result of a ReadContext."""
    if node.what == "register":
        value = part.register(node.name)
    elif node.what == "argument":
        value = _argument(part, node)
    elif node.what == "return":
        value = part.register(x86_64.RETURN)
    elif node.what == "function":
        value = part.register(x86_64.INSTRUCTION_POINTER)
    else:
        raise part.unsupported("a field of a tracepoint", node.place, "")
    part.bind(node.to, convert(part.text, U64, node.to.type, value))


def _argument(part: NativePart, node: ReadContext) -> str:
    if node.index < len(x86_64.ARGUMENTS):
        return part.register(x86_64.ARGUMENTS[node.index])
    room = part.temporary("load", 8)
    offset = x86_64.STACK_ARGUMENTS_OFFSET + 8 * (node.index - len(x86_64.ARGUMENTS))
    read(part, room, 8, (part.register(x86_64.STACK_POINTER), offset, "user", node.place))
    return part.text.load(64, room)


def write_context(part: NativePart, node: WriteContext) -> None:
    """Change a register, leave the probed function, or leave the probed instruction out."""
    text = part.text
    if node.what == "register":
        if node.source is None:
            raise InternalError(f"{part.handler.name}: a register is written without a value")
        value = convert(text, node.source.type, U64, part.value(node.source))
        part.set_register(node.name, value)
        if x86_64.ALIASES.get(node.name, node.name) in ("ip", "sp"):
            part.leave()
    elif node.what == "return":
        if node.source is not None:
            part.set_register(x86_64.RETURN, convert(text, node.source.type, U64, part.value(node.source)))
        stack = part.register(x86_64.STACK_POINTER)
        address = text.load(64, text.let(f"inttoptr i64 {stack} to ptr"))
        part.set_register(x86_64.INSTRUCTION_POINTER, address)
        part.set_register(x86_64.STACK_POINTER, text.let(f"add i64 {stack}, {x86_64.WORD_SIZE}"))
        part.leave()
    else:
        part.omit()


def builtin(part: NativePart, node: Builtin) -> None:
    """Bind the result of a builtin."""
    make = NUMBERS.get(node.name)
    if make is None:
        raise part.unsupported(f"{node.name}()", node.place, "")
    part.bind(node.to, convert(part.text, U64, node.to.type, make(part)))


def _cycles(part: NativePart) -> str:
    return part.text.let('call i64 asm sideeffect "rdtsc; shlq $$32, %rdx; orq %rdx, %rax", "={ax},~{rdx},~{flags}"()')


def _now(part: NativePart) -> str:
    text = part.text
    ticks = _cycles(part)
    slot = text.offset(part.world(0), text.load(64, part.world(CLOCK)))
    begin, base, scale = (text.load(64, text.offset(slot, offset)) for offset in (0, 8, 16))
    passed = text.let(f"sext i64 {text.let(f'sub i64 {ticks}, {begin}')} to i128")
    product = text.let(f"mul i128 {passed}, {text.let(f'zext i64 {scale} to i128')}")
    elapsed = text.let(f"trunc i128 {text.let(f'ashr i128 {product}, 32')} to i64")
    return text.let(f"add i64 {base}, {elapsed}")


def _wide(part: NativePart, pointer: str) -> str:
    return part.text.let(f"zext i32 {part.text.load(32, pointer)} to i64")


def _known_or_asked(part: NativePart, known: str, ask: str, other: str) -> str:
    """Return the u32 at *known* if it isn't 0, else what the expression *ask* gives where system calls are allowed,
    else *other*."""
    text = part.text
    unknown, asked, fallback, end = (text.label(word) for word in ("unknown", "asked", "other", "known"))
    value = _wide(part, known)
    ways = [(value, text.block)]
    text.branch(text.let(f"icmp ne i64 {value}, 0"), end, unknown)
    text.start(unknown)
    may = text.let(f"icmp ne i32 {text.load(32, part.world(WORLD_MAY_CALL))}, 0")
    text.branch(may, asked, fallback)
    text.start(asked)
    ways.append((text.let(ask), text.block))
    text.jump(end)
    text.start(fallback)
    ways.append((_wide(part, other) if other else "0", text.block))
    text.start(end)
    return text.phi("i64", ways)


def _tid(part: NativePart) -> str:
    part.world(0)
    ask = f"call i64 {runtime.own_id(part.text.module)}(ptr %block)"
    return _known_or_asked(part, part.text.offset("%block", BLOCK_TID), ask, "")


def _pid(part: NativePart) -> str:
    ask = f"call i64 {runtime.own_process(part.text.module)}(ptr %block)"
    return _known_or_asked(part, part.text.offset("%block", BLOCK_PID), ask, part.world(WORLD_PID))


def _cpu(part: NativePart) -> str:
    # The kernel keeps the CPU's number in the low 12 bits of TSC_AUX, the node above.
    number = part.text.let('call i64 asm sideeffect "rdtscp", "={cx},~{rax},~{rdx}"()')
    return part.text.let(f"and i64 {number}, {_CPU_BITS}")


def _random(part: NativePart) -> str:
    text = part.text
    place = text.offset("%block", BLOCK_RANDOM)
    state = text.load(64, place)
    seed = text.let('call i64 asm sideeffect "rdtsc", "={ax},~{rdx}"()')
    fresh = text.let(f"add i64 {text.let(f'mul i64 {seed}, -7046029254386353131')}, 1")
    state = text.let(f"select i1 {text.let(f'icmp eq i64 {state}, 0')}, i64 {fresh}, i64 {state}")
    for op, bits in (("shl", 13), ("lshr", 7), ("shl", 17)):
        state = text.let(f"xor i64 {state}, {text.let(f'{op} i64 {state}, {bits}')}")
    text.store(64, state, place)
    return text.let(f"lshr i64 {state}, 32")


def _fault_word(place: int) -> Callable[[NativePart], str]:
    return lambda part: part.text.load(64, part.text.offset("%regs", x86_64.PT_REGS_SIZE + 8 * place))


NUMBERS: dict[str, Callable[[NativePart], str]] = {
    "now": _now,
    "cycles": _cycles,
    "pid": _pid,
    "tid": _tid,
    "cpu": _cpu,
    "random": _random,
    "fault_signal": _fault_word(0),
    "fault_address": _fault_word(1),
    "stack": stack,
    "user_stack": stack,
    "host_pid": lambda part: _wide(part, part.world(WORLD_PID)),
    "uid": lambda part: _wide(part, part.world(WORLD_UID)),
    "gid": lambda part: _wide(part, part.world(WORLD_GID)),
}
