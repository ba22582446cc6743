"""Which instructions may fault by what the program does: divisions, and what reads or writes where a register points.

The stack and data at fixed places are taken to be there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iced_x86 import InstructionInfoFactory, Mnemonic, OpAccess, Register

from kprobes.arch.x86_64.decode import Flow, native

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kprobes.arch.x86_64.decode import Instruction
    from kprobes.arch.x86_64.patch import Patch

_DIVISIONS = frozenset({Mnemonic.DIV, Mnemonic.IDIV})
_THERE = frozenset({Register.RSP, Register.RIP, Register.EIP, Register.NONE})


def may_fault(item: Instruction) -> bool:
    """Tell whether *item* may fault in a program that goes on after it."""
    one = native(item)
    if one.mnemonic in _DIVISIONS or item.flow == Flow.STOP:
        return True
    used = InstructionInfoFactory().info(one).used_memory()
    return any(memory.access != OpAccess.NO_MEM_ACCESS and not {memory.base, memory.index} <= _THERE for memory in used)


def is_exact(patch: Patch) -> bool:
    """Tell whether a program that handles a fault of a moved instruction by its address finds the code around it as it
    was: nothing that may fault moves together with others."""
    patches = (patch, *((patch.victim,) if patch.victim is not None else ()))
    return all(len(one.instructions) == 1 or not _any_may_fault(one.instructions) for one in patches)


def _any_may_fault(instructions: Iterable[Instruction]) -> bool:
    return any(may_fault(item) for item in instructions)
