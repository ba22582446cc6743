"""The rules by which the kernel arms a kprobe on x86-64: what it copies, what it emulates, and when a jump will do.

Facts of the kernel's arch/x86/kernel/kprobes, told apart by its release where they changed:

- until 5.12 every probed instruction is copied and single-stepped by the trap flag, and what it did to the instruction
  pointer is repaired behind it;
- from 5.13 on, what changes the instruction pointer or the interrupt flag is emulated; other instructions are copied
  with an int3 behind them in place of the trap flag;
- from 6.9 on, shifts, mul, div, inc, dec and their like may be boosted too, and `int` and `ud` are refused.

A boosted copy ends with a jump back and traps no second time. An optimised probe has no trap at all: a 5-byte jump
leads to a detour that calls the handlers, and runs copies of all the instructions that the jump took.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kprobes.arch.x86_64.decode import Flow, Instruction, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a function that may be called indirectly begins with; where it isn't, the kernel has overwritten it by a nop.
_ENDBR = (b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6")
SLOT = 16  # bytes of an out-of-line slot (MAX_INSN_SIZE)
JUMP = 5
_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_CS_OVERRIDE, _ADDRESS_SIZE = 0x2E, 0x67
_ESCAPE = 0x0F
_INT3 = 0xCC


def _row(start: int, bits: str) -> frozenset[int]:
    return frozenset(start + place for place, bit in enumerate(bits) if bit == "1")


# Opcodes behind 0f whose copies may be boosted, a row of sixteen each; in the rows not named here there are none.
_BOOSTABLE_0F = frozenset[int]().union(
    _row(0x00, "0011001011000000"),
    _row(0x10, "0000000000000001"),
    _row(0x20, "1111000000000000"),
    _row(0x30, "0100000000000000"),
    _row(0x40, "1" * 16),
    _row(0x60, "1111111111110011"),
    _row(0x70, "0000111100000011"),
    _row(0x90, "1" * 16),
    _row(0xA0, "1101110011011101"),
    _row(0xB0, "1111111100011111"),
    _row(0xC0, "1100000011111111"),
    _row(0xD0, "0111010011011101"),
    _row(0xE0, "0110010011011101"),
    _row(0xF0, "0111010011101110"),
)
# Opcodes of one byte whose copies may not: bound, short branches, far calls, software interrupts, x87, loops, near
# calls and jumps, lock and hlt.
_NOT_BOOSTABLE = frozenset(
    (0x62, *range(0x70, 0x80), 0x9A, *range(0xCC, 0xCF), 0xD6, *range(0xD8, 0xE4), 0xE8, 0xE9, 0xEB, *range(0xF0, 0xF5))
)
# Before 6.9 these could not either: the groups of shifts, of test/not/neg/mul/div, and of inc/dec/call/jmp/push.
_NOT_BOOSTABLE_ONCE = _NOT_BOOSTABLE | frozenset((0xC0, 0xC1, *range(0xD0, 0xD4), 0xF6, 0xF7, 0xFE, 0xFF))
# In the groups, the fields of the ModRM byte that name an instruction to be boosted.
_GROUPS = {
    **dict.fromkeys((0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3), frozenset(range(8)) - {6}),
    **dict.fromkeys((0xF6, 0xF7), frozenset(range(8)) - {1}),
    0xFE: frozenset({0, 1}),
    0xFF: frozenset({0, 1, 4}),
}
_EMULATED = {
    0xFA: "cli changes the interrupt flag",
    0xFB: "sti changes the interrupt flag",
    0x9C: "pushf reads the interrupt flag",
    0x9D: "popf changes the interrupt flag",
    0xC2: "it returns",
    0xC3: "it returns",
    0xCA: "it returns",
    0xCB: "it returns",
    0xE8: "it calls: the return address is pushed, then the instruction pointer set",
    0xE9: "it jumps",
    0xEB: "it jumps",
    **dict.fromkeys(range(0xE0, 0xE4), "it branches by rcx"),
    **dict.fromkeys(range(0x70, 0x80), "it branches by the flags"),
}
_UNSUPPORTED = {0x9A: "a far call", 0xEA: "a far jump", 0xCF: "iret"}
_TRAPS = frozenset({0xCC, 0xCD, 0xCE})
_UNDEFINED = frozenset({b"\x0f\x0b", b"\x0f\xb9", b"\x0f\xff"})
_CALL_INDIRECT, _CALL_FAR, _JUMP_INDIRECT, _JUMP_FAR = 2, 3, 4, 5
_REGISTER_OPERAND = 3
_SS_LOADS = frozenset({0x17})  # pop ss
_MOV_TO_SEGMENT, _SS = 0x8E, 2


@dataclass(frozen=True, slots=True)
class KernelCode:
    """One function of the kernel: its bytes at *start*, up to the next symbol, as they are in memory.

    *exceptions*: addresses in it that the exception table lists. *reserved*: addresses that the kernel itself rewrites,
    and what for. *thunks*: where the trampolines of indirect jumps stand. *entry_text*: it belongs to the code by which
    the kernel is entered. *release*: of the kernel, as (6, 12).
    """

    start: int
    code: bytes
    exceptions: frozenset[int] = frozenset()
    reserved: Mapping[int, str] = field(default_factory=dict)
    thunks: range = range(0)
    entry_text: bool = False
    release: tuple[int, int] = (6, 12)

    @property
    def emulates(self) -> bool:
        """Tell whether the kernel emulates what leaves a copy."""
        return self.release >= (5, 13)

    @property
    def without_tables(self) -> bool:
        """Tell whether the kernel knows (6.6 and later) that code built with retpolines has no jump tables."""
        return self.release >= (6, 6) and bool(self.thunks)

    @property
    def boosts_groups(self) -> bool:
        """Tell whether the kernel looks at the ModRM byte of opcodes that stand for several instructions."""
        return self.release >= (6, 9)

    @property
    def end(self) -> int:
        """Return the address behind it."""
        return self.start + len(self.code)

    @property
    def entry(self) -> int:
        """Return the address of the first instruction behind an ENDBR64."""
        return self.start + (4 if self.code[:4] in _ENDBR else 0)

    def sweep(self) -> list[Instruction]:
        """Return its instructions, from its start on."""
        return decode(self.code, self.start)


def uncopied(item: Instruction, code: KernelCode) -> tuple[str, str]:
    """Return why the kernel makes no copy of *item*, and its error; empty if it does."""
    opcode, modrm = opcode_of(item)
    if code.boosts_groups and (opcode[0] in _TRAPS or opcode in _UNDEFINED):
        return "it raises a trap of its own", "EILSEQ"
    if opcode[0] == _INT3:
        return "it is an int3, whoever put it there", "EINVAL"
    if opcode[0] in _SS_LOADS or (opcode[0] == _MOV_TO_SEGMENT and _register(modrm) == _SS):
        return "it loads ss, which holds back the trap behind it", "EINVAL"
    return "", ""


def unsupported(item: Instruction, code: KernelCode) -> tuple[str, str]:
    """Return why the kernel refuses to probe *item*, and its error; empty if it doesn't."""
    why, error = uncopied(item, code)
    if not why and code.emulates:
        why, error = _unemulated(item), "EOPNOTSUPP"
    return (why, error) if why else ("", "")


def _unemulated(item: Instruction) -> str:
    opcode, modrm = opcode_of(item)
    if opcode[0] in _UNSUPPORTED:
        return f"{_UNSUPPORTED[opcode[0]]} can be neither copied nor emulated"
    if opcode[0] == 0xFF:
        kind = _register(modrm)
        if kind in (_CALL_FAR, _JUMP_FAR):
            return "a far branch can be neither copied nor emulated"
        if kind in (_CALL_INDIRECT, _JUMP_INDIRECT) and modrm >> 6 != _REGISTER_OPERAND:
            return "an indirect branch through memory is not emulated"
    if opcode == b"\x0f\x01" and modrm >> 6 == _REGISTER_OPERAND and _register(modrm) == 0:
        return "a virtual machine instruction"
    return ""


def emulated(item: Instruction) -> str:
    """Return why the kernel (5.13 and later) emulates *item* rather than run a copy; empty if it runs one."""
    opcode, modrm = opcode_of(item)
    if len(opcode) > 1:
        return "it branches by the flags" if opcode[1] & 0xF0 == 0x80 else ""
    if opcode[0] == 0xFF and _register(modrm) in (_CALL_INDIRECT, _JUMP_INDIRECT):
        return "it branches through a register"
    return _EMULATED.get(opcode[0], "")


def unboostable(item: Instruction, code: KernelCode) -> str:
    """Return why a copy of *item* can't end with a jump back, so that it has to trap; empty if it can."""
    if item.address in code.exceptions:
        return "it may fault: the exception table lists it"
    opcode, modrm = opcode_of(item)
    prefixes = prefixes_of(item)
    if len(opcode) > 1:
        return "" if len(opcode) == 2 and opcode[1] in _BOOSTABLE_0F else "its opcode is not on the kernel's list"
    if _CS_OVERRIDE in prefixes or _ADDRESS_SIZE in prefixes:
        return "it has a cs or address-size prefix"
    if opcode[0] in (_NOT_BOOSTABLE if code.boosts_groups else _NOT_BOOSTABLE_ONCE):
        return _LEAVES.get(item.flow, "its opcode is not on the kernel's list")
    group = _GROUPS.get(opcode[0]) if code.boosts_groups else None
    return "its opcode is not on the kernel's list" if group is not None and _register(modrm) not in group else ""


_LEAVES = {
    Flow.BRANCH: "a conditional branch would leave the copy",
    Flow.LOOP: "a loop would leave the copy",
    Flow.CALL: "a call would push the copy's address",
    Flow.JUMP: "a jump would leave the copy",
}


def copied(item: Instruction, at: int) -> bytes:
    """Return the bytes of the copy of *item* at *at*: a rip-relative operand keeps what it names, all else stays.

    Per-CPU variables are named by small numbers, so the distance is taken modulo 64 bits, as the processor does.
    """
    if item.data is None:
        return item.code
    place, size = item.operand_at, item.operand_size
    offset = (item.data - at - len(item.code) + (1 << 63)) % (1 << 64) - (1 << 63)
    return item.code[:place] + (offset % (1 << 32)).to_bytes(size, "little") + item.code[place + size :]


def boost_room(item: Instruction) -> bool:
    """Tell whether the slot has room for *item* and the jump back."""
    return SLOT - len(item.code) >= JUMP


def jump_region(code: KernelCode, address: int) -> list[Instruction]:
    """Return the instructions that a 5-byte jump at *address* takes the bytes of."""
    at = address - code.start
    return decode(code.code[at : at + JUMP - 1 + 15], address, cover=JUMP)


def why_no_jump(code: KernelCode, address: int, sweep: Sequence[Instruction]) -> str:
    """Return the first rule that forbids to optimise a probe at *address* into a jump; empty if none does.

    *sweep*: the instructions of the whole function, all of which the kernel looks at.
    """
    if code.entry_text:
        return "entry code: registers and stack are not set up yet"
    if code.end - address < JUMP:
        return f"only {code.end - address} bytes are left in the function, the jump takes {JUMP}"
    return _why_not_in_function(code, address, sweep) or _why_not_in_region(code, address)


def _why_not_in_function(code: KernelCode, address: int, sweep: Sequence[Instruction]) -> str:
    taken = range(address + 1, address + JUMP)
    for item in sweep:
        if item.address in code.exceptions:
            return (
                f"the exception table lists {item.address:#x} of this function, and its fix-up may jump anywhere in it"
            )
        if item.flow == Flow.JUMP_INDIRECT and not code.without_tables:
            return f"the function jumps indirectly at {item.address:#x}, perhaps into these bytes"
        if item.target is None or item.flow not in (Flow.JUMP, Flow.BRANCH, Flow.LOOP):
            continue
        if item.target in code.thunks and not code.without_tables:
            return f"the function jumps indirectly at {item.address:#x} (by a thunk), perhaps into these bytes"
        if item.target in taken or item.target == taken.stop:
            # The kernel's own check takes one byte more than the jump.
            return f"`{item.text}` at {item.address:#x} jumps into the bytes of the jump"
    return ""


def _why_not_in_region(code: KernelCode, address: int) -> str:
    region = jump_region(code, address)
    for item in region:
        why = uncopied(item, code)[0] or unboostable(item, code)
        if why:
            return f"`{item.text}` at {item.address:#x} can't run in the detour: {why}"
    for place in range(address, region[-1].end):
        if place in code.reserved:
            return f"the kernel rewrites {place:#x} itself: {code.reserved[place]}"
    return ""


def prefixes_of(item: Instruction) -> bytes:
    """Return the legacy prefixes of *item*."""
    count = 0
    while count < len(item.code) and item.code[count] in _PREFIXES:
        count += 1
    return item.code[:count]


def opcode_of(item: Instruction) -> tuple[bytes, int]:
    """Return the opcode bytes of *item*, escapes included, and the byte behind them (ModRM, where it has one)."""
    at = len(prefixes_of(item))
    raw = item.code
    if at < len(raw) and raw[at] & 0xF0 == 0x40:
        at += 1
    size = 1
    if raw[at : at + 1] == bytes((_ESCAPE,)):
        size = 3 if raw[at + 1 : at + 2] in (b"\x38", b"\x3a") else 2
    opcode = raw[at : at + size]
    return opcode, raw[at + size] if at + size < len(raw) else 0


def _register(modrm: int) -> int:
    return modrm >> 3 & 7
