"""Runs code on Unicorn from a given state: code, a data page and a stack at fixed places, all else unmapped."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import unicorn
from unicorn import x86_const as x86

PAGE = 0x1000
ORIGINAL = 0x5555_0000_0000
COPY = 0x5555_4000_0000
DATA = ORIGINAL + 0x10_0000
STACK = 0x7FFF_0000_0000
STACK_SIZE = 4 * PAGE
TOP = STACK + STACK_SIZE // 2

NAMES = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", *(f"r{number}" for number in range(8, 16)))
_IDS = {name: getattr(x86, f"UC_X86_REG_{name.upper() if name[0] == 'r' else 'R' + name.upper()}") for name in NAMES}
# Carry, parity, adjust, zero, sign, direction, overflow.
FLAGS = 0xCD5


@dataclass(slots=True)
class State:
    """General registers, flags, four vector registers, and the bytes of the data page and of the stack."""

    registers: dict[str, int]
    flags: int = 2
    vectors: tuple[int, ...] = (0, 0, 0, 0)
    data: bytes = bytes(PAGE)
    stack: bytes = bytes(STACK_SIZE)
    ip: int = 0
    fs: int = 0
    regions: dict[int, bytes] = field(default_factory=dict)


def arbitrary(seed: int) -> State:
    """Return a state that *seed* alone decides: wild registers, but sp, bp, si and di where memory is."""
    rng = random.Random(seed)
    registers = {
        name: rng.choice((rng.getrandbits(64), rng.getrandbits(8), 2**64 - rng.getrandbits(8))) for name in NAMES
    }
    registers["sp"] = TOP + 8 * rng.randrange(-8, 8)
    registers |= {"bp": TOP + 0x400, "si": DATA + 0x200, "di": DATA + 0x300}
    flags = rng.getrandbits(12) & 0x8D5 | 2
    vectors = tuple(rng.getrandbits(128) for _ in range(4))
    return State(registers, flags, vectors, rng.randbytes(PAGE), rng.randbytes(STACK_SIZE), fs=DATA)


def run(code: dict[int, bytes], state: State, *, start: int, inside: Callable[[int], bool], limit: int = 400) -> State:
    """Run from *start* until the instruction pointer is no longer *inside*, and return the state then.

    *code* is bytes by address; the pages around are mapped. *regions* of the result holds the code as it is then.
    """
    machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    machine.ctl_set_cpu_model(x86.UC_CPU_X86_HASWELL)
    pages = {address & -PAGE for base, raw in code.items() for address in range(base, base + len(raw) + 64, 64)}
    pages |= {DATA}
    for page in sorted(pages):
        machine.mem_map(page, PAGE)
    machine.mem_map(STACK, STACK_SIZE)
    for base, raw in code.items():
        machine.mem_write(base, raw)
    machine.mem_write(DATA, state.data)
    machine.mem_write(STACK, state.stack)
    for name, value in state.registers.items():
        machine.reg_write(_IDS[name], value)
    machine.reg_write(x86.UC_X86_REG_EFLAGS, state.flags | 2)
    machine.reg_write(x86.UC_X86_REG_FS_BASE, state.fs)
    for number, value in enumerate(state.vectors):
        machine.reg_write(x86.UC_X86_REG_XMM0 + number, value)
    steps = 0

    def watch(engine: unicorn.Uc, address: int, _size: int, _data: object) -> None:
        nonlocal steps
        steps += 1
        if not inside(address) or steps > limit:
            engine.emu_stop()

    machine.hook_add(unicorn.UC_HOOK_CODE, watch)
    try:
        machine.emu_start(start, 0)
    except unicorn.UcError as error:
        # A fetch from where nothing is mapped is a way out like any other; a bad access isn't.
        if error.errno != unicorn.UC_ERR_FETCH_UNMAPPED:
            raise
    return State(
        {name: machine.reg_read(number) for name, number in _IDS.items()},
        machine.reg_read(x86.UC_X86_REG_EFLAGS) & FLAGS,
        tuple(machine.reg_read(x86.UC_X86_REG_XMM0 + number) for number in range(4)),
        bytes(machine.mem_read(DATA, PAGE)),
        bytes(machine.mem_read(STACK, STACK_SIZE)),
        machine.reg_read(x86.UC_X86_REG_RIP),
        state.fs,
        {base: bytes(machine.mem_read(base, len(raw))) for base, raw in code.items()},
    )
