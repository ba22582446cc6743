"""Which registers a function changes, so that a detour saves no others around its call."""

from __future__ import annotations

from iced_x86 import Decoder, InstructionInfoFactory, OpAccess, RegisterExt

from kprobes.arch.x86_64.assemble import NUMBERS
from kprobes.arch.x86_64.registers import CALLER_SAVED

_WRITES = frozenset({OpAccess.WRITE, OpAccess.COND_WRITE, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE})
_NAMES = {number: name for name, number in NUMBERS.items()}


def clobbered(code: bytes) -> frozenset[str]:
    """Return the caller-saved registers that any instruction of *code*, functions that keep to the ABI, writes.

    A function that calls another, outside of *code*, clobbers all of them.
    """
    factory = InstructionInfoFactory()
    found = set()
    for item in Decoder(64, code, ip=0):
        if item.is_call_near or item.is_call_near_indirect:
            return frozenset(CALLER_SAVED)
        for used in factory.info(item).used_registers():
            if used.access in _WRITES and RegisterExt.is_gpr(used.register):
                found.add(_NAMES[RegisterExt.number(RegisterExt.full_register(used.register))])
    return frozenset(found & set(CALLER_SAVED))
