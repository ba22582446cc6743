"""Detours: what a patch jumps to. Handlers' code, the moved instructions, and the way back.

A *body* is the code that runs before (or after) one moved instruction. It is a function from the address at which it
will stand to its bytes, and leaves every register, every flag and the stack as they were. Two kinds are made here: one
that only counts, and one that calls a compiled handler with a `struct pt_regs` in the shape the kernel has.

Stack of a handler's call, from the top: what the program has there, 128 bytes of its red zone, `struct pt_regs`, and
whatever the handler uses. Handlers use integer registers only, so vector and x87 state are never touched.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from kprobes.arch.x86_64 import assemble
from kprobes.arch.x86_64.decode import CALLS, NO_FALL_THROUGH, Flow, Instruction
from kprobes.arch.x86_64.registers import CALLER_SAVED, PT_REGS_SIZE, REGISTERS
from kprobes.arch.x86_64.relocate import Copy
from kprobes.errors import InternalError, UnsafeSiteError

if TYPE_CHECKING:
    from kprobes.arch.x86_64.patch import Patch


class Code(bytes):
    """The bytes of a body, with *nexts*: where in it 32-bit offsets stand that are to lead behind the instruction."""

    nexts: tuple[int, ...]

    def __new__(cls, content: bytes, nexts: tuple[int, ...] = ()) -> Code:
        """Return *content* with the places of its offsets."""
        made = super().__new__(cls, content)
        made.nexts = nexts
        return made


Body = Callable[[int], bytes]
# The same behind an instruction: where it will stand, and at which address the program goes on from there.
Behind = Callable[[int, int], bytes]

RED_ZONE = 128
GENERAL = ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di")
# Segment selectors of 64-bit user space: __USER_CS and __USER_DS in every Linux kernel but a Xen PV guest's.
USER_CS, USER_SS = 0x33, 0x2B
NO_SYSTEM_CALL = 2**64 - 1


class Flags:
    """How a body treats the flags: what it may lose of them."""

    DEAD = "dead"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Detour:
    """The *code* of a detour at address *at*.

    *entries*: the offset at which each moved instruction is continued, its handlers first. *resume*: for those offsets
    at which the program's state is complete, the original address that stands for it: a thread there can be put back.
    *pushed*: a thread that is put back has 8 bytes too many on its stack (see `Patch`).
    """

    at: int
    code: bytes
    entries: dict[int, int]
    resume: dict[int, int]
    pushed: bool = False


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What a body saves around the call of a handler.

    *keep*: the registers to put back afterwards: those that the handler clobbers and that aren't dead here. ax, di and
    si, which the call itself uses, are lost like the others if they are not among them.
    *show*: the fields of pt_regs that the handler reads. *flags*: `Flags.DEAD` where nobody reads them any more.
    *writable*: the handler may change registers, so all of *show* is loaded back. *skips*: a handler that returns
    LEFT has changed the instruction pointer; everything is then taken from pt_regs. *omits*: one that returns OMITTED
    wants the instruction left out; all registers must be *writable* then. *red_zone*: memory below the
    stack pointer is in use (it isn't at a function's entry). *align*: the handler wants its stack aligned to 16 bytes.
    *clear_direction*: the direction flag might be set here (see `liveness.may_set_direction`). *pushed*: as in `Patch`.
    """

    keep: tuple[str, ...] = CALLER_SAVED
    show: frozenset[str] = frozenset()
    flags: str = Flags.KEPT
    writable: bool = False
    skips: bool = False
    omits: bool = False
    red_zone: bool = True
    align: bool = False
    clear_direction: bool = False
    pushed: bool = False


EVERYTHING = frozenset({*GENERAL, "orig_ax", "ip", "cs", "flags", "sp", "ss"})


def full_policy(*, skips: bool = True, pushed: bool = False, clear_direction: bool = False) -> CallPolicy:
    """Return the policy that shows all registers and lets the handler change each of them.

    Of the flags it may change the arithmetic ones; all, if it returns non-zero.
    """
    return CallPolicy(
        keep=GENERAL,
        show=EVERYTHING,
        writable=True,
        skips=skips,
        align=True,
        clear_direction=clear_direction,
        pushed=pushed,
    )


@dataclass(frozen=True, slots=True)
class Guard:
    """Code around the call, for the engine to keep a handler from running inside a handler.

    *enter* runs when registers are saved and may use those in `CallPolicy.keep`, except di and si; it ends with the
    zero flag set if the handler may run. *leave* runs after the handler and must keep ax. Both get the address at
    which they stand.
    """

    enter: Body
    leave: Body


@dataclass(frozen=True, slots=True)
class Call:
    """The call of a handler: *handler*'s address and *context*, its second argument; the first is the pt_regs.

    *site*: what pt_regs says the instruction pointer is. *moved*: behind an instruction, by how many bytes
    that has moved the stack pointer: the fourth argument then.
    """

    handler: int
    context: int
    site: int
    policy: CallPolicy
    guard: Guard | None = None
    moved: int | None = None


def counter(slot: int, *, flags: str, dead: frozenset[str] = frozenset(), locked: bool = False) -> Body:
    """Return a body that adds 1 to the 8-byte counter at address *slot*.

    *locked*: several threads may count at once. *dead*: registers that may be lost.
    """
    return lambda at: _counted(at, flags, dead, lambda here: assemble.increment(here, slot, locked=locked))


def thread_counter(offset: int, *, flags: str, dead: frozenset[str] = frozenset()) -> Body:
    """Return a body that adds 1 to the counter *offset* bytes from the thread's fs base: exact without a lock."""
    return lambda at: _counted(at, flags, dead, lambda _here: assemble.increment_in_thread(offset))


_SKIP_RED_ZONE = assemble.add_address("sp", -RED_ZONE)
_UNSKIP_RED_ZONE = assemble.add_address("sp", RED_ZONE)
_PUSH_AX, _POP_AX = b"\x50", b"\x58"


def _counted(at: int, flags: str, dead: frozenset[str], count: Body) -> bytes:
    """Return *count* with the flags saved around it, as cheaply as may be."""
    if flags == Flags.DEAD:
        return count(at)
    head, tail = assemble.SAVE_ARITHMETIC_FLAGS, assemble.RESTORE_ARITHMETIC_FLAGS
    if "ax" not in dead:
        head = _SKIP_RED_ZONE + _PUSH_AX + head
        tail = tail + _POP_AX + _UNSKIP_RED_ZONE
    return head + count(at + len(head)) + tail


def handler_call(call: Call) -> Callable[[int], Code]:
    """Return a body that calls a handler, as its policy says.

    Raises:
        InternalError: the policy contradicts itself.
    """
    policy = call.policy
    if policy.omits and not (policy.writable and policy.flags == Flags.KEPT):
        raise InternalError("an instruction that may be left out needs all that the program has")
    if policy.skips and not (policy.writable and policy.show >= EVERYTHING):
        raise InternalError("a handler that changes the instruction pointer needs all of pt_regs")
    return lambda at: _handler_call(at, call)


def _handler_call(at: int, call: Call) -> Code:
    policy = call.policy
    code = bytearray(_save(policy))
    if "ip" in policy.show:
        code += assemble.store_constant(call.site, REGISTERS["ip"])
    code += assemble.copy("di", "sp") + assemble.load_constant("si", call.context)
    skip_at = 0
    if call.guard:
        code += call.guard.enter(at + len(code))
        code += b"\x0f\x85\0\0\0\0"
        skip_at = len(code)
    if call.moved is not None:
        code += assemble.load_constant("cx", call.moved % 2**64)
    if policy.align:
        code += assemble.copy("bx", "sp") + assemble.ALIGN_STACK
    code += _call(at + len(code), call.handler)
    if policy.align:
        code += assemble.copy("sp", "bx")
    if call.guard:
        code += call.guard.leave(at + len(code))
    nexts: tuple[int, ...] = ()
    if policy.omits:
        code += _leave_out(policy)
        nexts = (len(code) - _AFTER_NEXT,) if policy.skips else (len(code) - 4,)
    if policy.skips:
        code += _leave_by_frame(policy)
    if skip_at:
        code[skip_at - 4 : skip_at] = struct.pack("<i", len(code) - skip_at)
    return Code(bytes(code) + _restore(policy), nexts)


def _leave_out(policy: CallPolicy) -> bytes:
    """Return code that, if the handler wants the instruction left out, goes on behind it: at once, or by way of the
    frame's instruction pointer where other registers are taken from there too."""
    aside, jump = b"\x48\x8d\x0d\0\0\0\0" + _SET_IP, b"\xe9\0\0\0\0"  # lea rcx, [rip + next]; mov [rsp + ip], rcx
    way = aside if policy.skips else _restore(policy) + jump
    return b"\xa8\x02\x0f\x84" + struct.pack("<i", len(way)) + way


def _call(at: int, handler: int) -> bytes:
    try:
        return assemble.call(at, handler)
    except UnsafeSiteError:
        return assemble.load_constant("ax", handler) + b"\xff\xd0"


def _frame(policy: CallPolicy) -> int:
    """Return the distance from the stack pointer in the body to that of the program, in bytes."""
    return PT_REGS_SIZE + (RED_ZONE if policy.red_zone else 0)


def _saved(policy: CallPolicy) -> tuple[str, ...]:
    """Return the general registers that are stored: kept, shown, or needed by the body itself."""
    own = {"bx"} if policy.align else set()
    return tuple(name for name in GENERAL if name in policy.keep or name in policy.show or name in own)


@lru_cache(maxsize=64)
def _save(policy: CallPolicy) -> bytes:
    """Return the code that lays out pt_regs at the stack pointer; it may clobber ax once that is stored."""
    frame = _frame(policy)
    code = bytearray(assemble.add_address("sp", -frame))
    for name in _saved(policy):
        code += assemble.store(name, REGISTERS[name])
    if _stores_flags(policy):
        code += assemble.PUSH_FLAGS + _POP_TO_FLAGS
    elif policy.flags == Flags.KEPT:
        code += assemble.SAVE_ARITHMETIC_FLAGS + assemble.store("ax", REGISTERS["flags"])
    if "sp" in policy.show:
        code += assemble.add_address("ax", frame + (8 if policy.pushed else 0))
        code += assemble.store("ax", REGISTERS["sp"])
    for name, value in (("orig_ax", NO_SYSTEM_CALL), ("cs", USER_CS), ("ss", USER_SS)):
        if name in policy.show:
            code += assemble.store_constant(value, REGISTERS[name])
    return bytes(code + assemble.CLEAR_DIRECTION) if policy.clear_direction else bytes(code)


# pop [rsp + n] adds to the stack pointer before it forms the address.
_POP_TO_FLAGS = b"\x8f\x84\x24" + struct.pack("<i", REGISTERS["flags"])
_PUSH_FLAGS_FIELD = b"\xff\xb4\x24" + struct.pack("<i", REGISTERS["flags"])
# mov ah, [flags]; mov al, [flags + 1]; and al, 8; add al, 0x78; sahf: bit 11 of the flags, the overflow, becomes bit 3
# of al, and 8 + 0x78 overflows where 0 + 0x78 does not. A third of the cost of popfq.
_FLAGS_FROM_FIELD = (
    b"\x8a\xa4\x24"
    + struct.pack("<i", REGISTERS["flags"])
    + b"\x8a\x84\x24"
    + struct.pack("<i", REGISTERS["flags"] + 1)
    + b"\x24\x08\x04\x78\x9e"
)


def _stores_flags(policy: CallPolicy) -> bool:
    """Tell whether the flags are stored in full: lahf knows neither the direction flag nor the rest."""
    return "flags" in policy.show or policy.clear_direction


@lru_cache(maxsize=64)
def _restore(policy: CallPolicy) -> bytes:
    """Return the code that puts flags, registers and stack back."""
    code = bytearray()
    kept = policy.flags == Flags.KEPT or policy.writable
    if policy.clear_direction:
        code += _PUSH_FLAGS_FIELD + assemble.POP_FLAGS
    elif kept and _stores_flags(policy):
        code += _FLAGS_FROM_FIELD
    elif policy.flags == Flags.KEPT:
        code += assemble.load("ax", REGISTERS["flags"]) + assemble.RESTORE_ARITHMETIC_FLAGS
    loaded = _saved(policy) if policy.writable else [name for name in _saved(policy) if _must_load(policy, name)]
    for name in loaded:
        code += assemble.load(name, REGISTERS[name])
    return bytes(code + assemble.add_address("sp", _frame(policy)))


def _must_load(policy: CallPolicy, name: str) -> bool:
    return name in policy.keep or (name == "bx" and policy.align)


def _leave_by_frame(policy: CallPolicy) -> bytes:
    """Return code that, if the handler's result isn't 0, loads everything from pt_regs, ip and sp too.

    pt_regs ends with what iretq takes: ip, cs, flags, sp, ss. No other way sets them all without using memory below the
    program's stack pointer, where a signal handler could overwrite it.
    """
    leave = b"".join(assemble.load(name, REGISTERS[name]) for name in _saved(policy))
    leave += assemble.add_address("sp", REGISTERS["ip"]) + assemble.RETURN_FROM_INTERRUPT
    return b"\x85\xc0\x0f\x84" + struct.pack("<i", len(leave)) + leave


_SET_IP = assemble.store("cx", REGISTERS["ip"])
_AFTER_NEXT = 4 + len(_SET_IP)  # bytes behind the begin of the offset


def build(patch: Patch, at: int, before: Mapping[int, Body], after: Mapping[int, Behind] | None = None) -> Detour:
    """Return the detour of *patch* at address *at*.

    *before*: the body that runs ahead of each site's instruction, by the site's address (none for a site that is
    disabled); *after*: those that run behind it. Control that comes back to a moved instruction, by a branch among
    them, meets its bodies again.

    Raises:
        UnsafeSiteError: something is out of reach of *at*, or a body can't run after an instruction.
    """
    copy = Copy(at, patch.instructions)
    resume: dict[int, int] = {}
    for item in patch.instructions:
        _check_target(patch, item)
        copy.mark(item.address)
        resume[len(copy.code)] = item.address
        body = before.get(item.address)
        if body:
            _add_body(copy, item, body)
            resume[len(copy.code)] = item.address
        behind = after.get(item.address) if after else None
        if behind:
            _add_with_body(copy, item, behind, patch.pushed)
        else:
            copy.add(item, pushed=patch.pushed)
    last = patch.instructions[-1]
    if last.flow not in CALLS and last.flow not in NO_FALL_THROUGH:
        resume[len(copy.code)] = patch.end
        copy.jump(patch.end)
    return Detour(at, copy.finish(), copy.labels, resume, patch.pushed)


def _add_body(copy: Copy, item: Instruction, body: Body) -> None:
    begin = len(copy.code)
    code = body(copy.here)
    copy.code += code
    for place in code.nexts if isinstance(code, Code) else ():
        copy.aim(begin + place, item.end)


def _check_target(patch: Patch, item: Instruction) -> None:
    if item.target is None or not patch.overwrites(item.target):
        return
    if not any(one.address == item.target for one in patch.instructions):
        raise UnsafeSiteError(f"{item.address:#x}", "it jumps into bytes that the patch takes")


def _add_with_body(copy: Copy, item: Instruction, body: Behind, pushed: bool) -> None:
    """Add *item* and then *body*, on each way that control may take."""
    if item.flow == Flow.NEXT:
        copy.add(item)
        copy.code += body(copy.here, item.end)
    elif item.flow in (Flow.BRANCH, Flow.LOOP):
        _branch_with_body(copy, item, body)
    elif item.flow in (Flow.JUMP, Flow.CALL) and item.target is not None:
        if item.flow == Flow.CALL and not pushed:
            copy.code += assemble.push_constant(item.end)
        copy.code += body(copy.here, item.target)
        copy.jump(item.target)
    else:
        raise UnsafeSiteError(f"{item.address:#x}", f"no handler can run after `{item.text}` has left")


def _branch_with_body(copy: Copy, item: Instruction, body: Behind) -> None:
    """Add a branch with *body* on both its ways: on falling through first, then where it is taken."""
    assert item.target is not None
    if item.flow == Flow.BRANCH:
        copy.code += bytes((0x0F, 0x80 | item.code[item.operand_at - 1] & 0xF))
    else:
        copy.code += item.code[: item.operand_at] + b"\x02\xeb\x05\xe9"
    taken = len(copy.code)
    copy.code += b"\0\0\0\0"
    copy.code += body(copy.here, item.end)
    copy.code += b"\xe9"
    over = len(copy.code)
    copy.code += b"\0\0\0\0"
    copy.code[taken : taken + 4] = struct.pack("<i", len(copy.code) - taken - 4)
    copy.code += body(copy.here, item.target)
    copy.jump(item.target)
    copy.code[over : over + 4] = struct.pack("<i", len(copy.code) - over - 4)
