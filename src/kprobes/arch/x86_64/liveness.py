"""Which registers and flags nobody will read any more at a place in the code, so that a detour need not save them.

Conservative: what isn't proved dead is live. The walk goes forward from the place, along both sides of branches,
until each register is read (live) or overwritten (dead). At a return, a call and whatever else leaves the function,
every register still in question is live, also those that the ABI calls scratch: `gcc -fipa-ra`, part of -O2, keeps
values in scratch registers across calls of functions that it knows not to touch them, so that a probe that clobbered
them at such a function's entry would break the caller. Flags are different: no compiler carries them over a call or
return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iced_x86 import Decoder, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, RegisterExt, RflagsBits
from iced_x86 import Instruction as Native

from kprobes.arch.x86_64.assemble import NUMBERS
from kprobes.arch.x86_64.decode import CALLS, Flow, flow_of, skip_endbr
from kprobes.arch.x86_64.registers import SYSCALL_ARGUMENTS

if TYPE_CHECKING:
    from kprobes.arch.x86_64.image import Function, Image

# Instructions looked at, in all; what is still open then is live.
_BUDGET = 48
_WINDOW = 128

_ARITHMETIC = RflagsBits.OF | RflagsBits.SF | RflagsBits.ZF | RflagsBits.AF | RflagsBits.CF | RflagsBits.PF
# One word of bits: the registers by number from bit 0, the flags (as iced has them) from bit 16.
_FLAGS_SHIFT = 16
_FLAGS = _ARITHMETIC << _FLAGS_SHIFT
_REGISTERS = 0xFFFF & ~(1 << NUMBERS["sp"])
_READS = frozenset(
    {OpAccess.READ, OpAccess.COND_READ, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE}
)  # fmt: skip
_SHIFTS = frozenset(
    {
        Mnemonic.SHL, Mnemonic.SHR, Mnemonic.SAR, Mnemonic.SAL, Mnemonic.ROL, Mnemonic.ROR, Mnemonic.RCL,
        Mnemonic.RCR, Mnemonic.SHLD, Mnemonic.SHRD,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dead:
    """What may be clobbered: *registers* by the kernel's names, and whether all arithmetic *flags* may be."""

    registers: frozenset[str]
    flags: bool


_NONE: frozenset[str] = frozenset()
NOTHING = Dead(_NONE, False)


def dead_at(image: Image, address: int, *, flags_only: bool = False, budget: int = _BUDGET) -> Dead:
    """Return what is dead just before the instruction at *address* runs; at most *budget* instructions are looked at.

    *flags_only* looks at the flags alone, which takes but a few microseconds: the next comparison decides. At a
    function's entry the flags are dead unless the function itself reads them first (System V ABI, 3.2.1).
    """
    extent = image.extent(address)
    if extent is None:
        return NOTHING
    head = address == extent[0] or address == skip_endbr(image.bytes_at(extent[0], 4), extent[0])
    wanted = _FLAGS if flags_only else _REGISTERS | _FLAGS
    live, unknown = _walk(image, extent, (address, wanted), budget)
    flags_in_doubt = live if head else live | unknown
    dead = wanted & _REGISTERS & ~(live | unknown)
    names = frozenset(name for name, number in NUMBERS.items() if dead >> number & 1) if dead else _NONE
    return Dead(names, not flags_in_doubt & _FLAGS)


_SET_DIRECTION, _POP_FLAGS = b"\xfd", b"\x9d"


def may_set_direction(function: Function) -> bool:
    """Tell whether the direction flag might be set somewhere in *function*; elsewhere the ABI says that it is clear."""
    return any(item.code in (_SET_DIRECTION, _POP_FLAGS) for item in function.instructions)


def _walk(image: Image, extent: tuple[int, int], start: tuple[int, int], budget: int) -> tuple[int, int]:
    """Return the bits that are read before they are written, and those of which that couldn't be found out.

    *start*: the address to begin at, and the bits in question.
    """
    live = unknown = 0
    pending = [start]
    seen: dict[int, int] = {}
    while pending:
        place, mask = pending.pop()
        mask &= ~(live | unknown | seen.get(place, 0))
        if not mask:
            continue
        if not extent[0] <= place < extent[1]:
            unknown |= mask & ~_FLAGS
            continue
        seen[place] = seen.get(place, 0) | mask
        for item in Decoder(64, image.bytes_at(place, _WINDOW), ip=place):
            budget -= 1
            if budget < 0:
                unknown |= mask
                break
            reads, kills = _effects(item) if mask & _REGISTERS else _flag_effects(item)
            live |= mask & reads
            mask &= ~(reads | kills)
            flow = flow_of(item)
            if flow == Flow.NEXT and mask:
                continue
            ways, lost = _ways_on(item, flow, mask)
            unknown |= lost
            pending += [(way, mask) for way in ways if mask]
            break
    return live, unknown


def _ways_on(item: Native, flow: str, mask: int) -> tuple[list[int], int]:
    """Return where control goes after *item*, and the bits of *mask* that are out of sight from then on."""
    if flow in (Flow.BRANCH, Flow.LOOP):
        return [item.next_ip, item.near_branch_target], 0
    if flow == Flow.JUMP:
        return [item.near_branch_target], 0
    if flow in CALLS or flow == Flow.RETURN:
        return [], mask & ~_FLAGS
    return ([item.next_ip], 0) if flow == Flow.NEXT and not mask else ([], mask)


_INFO = InstructionInfoFactory()
_EVERYTHING = _REGISTERS | _FLAGS
_OPAQUE = frozenset({Mnemonic.SYSENTER, Mnemonic.INT, Mnemonic.XBEGIN, Mnemonic.INVALID})


# A system call takes six arguments and its number; rcx and r11 come back changed, the flags as they were.
_SYSTEM_CALL_READS = sum(1 << NUMBERS[name] for name in ("ax", *SYSCALL_ARGUMENTS))
_SYSTEM_CALL_KILLS = 1 << NUMBERS["cx"] | 1 << NUMBERS["r11"]


def _effects(item: Native) -> tuple[int, int]:
    """Return the bits that *item* reads, and those that it overwrites whatever happens."""
    if item.mnemonic in _OPAQUE:
        return _EVERYTHING, 0
    if item.mnemonic == Mnemonic.SYSCALL:
        return _SYSTEM_CALL_READS, _SYSTEM_CALL_KILLS
    reads, kills = _flag_effects(item)
    for used in _INFO.info(item).used_registers():
        register = used.register
        if not RegisterExt.is_gpr(register):
            continue
        bit = 1 << RegisterExt.number(RegisterExt.full_register(register))
        if used.access in _READS or RegisterExt.size(register) < _KILLING_SIZE:
            reads |= bit
        elif used.access == OpAccess.WRITE:
            kills |= bit
    return reads & _EVERYTHING, kills & ~reads


def _flag_effects(item: Native) -> tuple[int, int]:
    """Return the same as `_effects`, of the flags alone."""
    modified = item.rflags_modified & _ARITHMETIC
    reads = (item.rflags_read & _ARITHMETIC) << _FLAGS_SHIFT
    if not modified:
        return (_FLAGS, 0) if item.mnemonic in _OPAQUE else (reads, 0)
    return reads, 0 if _may_keep_flags(item) else modified << _FLAGS_SHIFT & ~reads


# Writing 32 bits clears the upper half; writing 8 or 16 keeps the rest, which so is read.
_KILLING_SIZE = 4


def _may_keep_flags(item: Native) -> bool:
    """Tell whether an instruction that is said to write flags may leave them: a shift by 0, a string of length 0."""
    if item.has_rep_prefix or item.has_repne_prefix:
        return True
    if item.mnemonic not in _SHIFTS:
        return False
    kind = item.op_kind(item.op_count - 1)
    return kind != OpKind.IMMEDIATE8 or item.immediate8 & 0x1F == 0
