"""What must be known of an instruction behind which a handler is to run (a post handler).

It runs when the instruction has run: on both ways of a conditional jump, at the target of a jump, and at the first
instruction of what a call calls, with the return address pushed.
"""

from __future__ import annotations

from iced_x86 import InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register

from kprobes.arch.x86_64.decode import Flow, Instruction, native

_FOLLOWED = frozenset({Flow.NEXT, Flow.BRANCH, Flow.LOOP, Flow.JUMP, Flow.CALL})
_WRITES = frozenset({OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE, OpAccess.READ_COND_WRITE})
_STACK_POINTERS = frozenset({Register.RSP, Register.ESP, Register.SP, Register.SPL})


def refusal_behind(item: Instruction) -> str:
    """Return why no handler can run behind *item*, a few words; empty where one can."""
    if item.flow not in _FOLLOWED:
        return f"nothing can run behind `{item.text}`: where it leads is known only once it is there"
    if stack_change(item) is None:
        return f"nothing can run behind `{item.text}`: it moves the stack pointer to where only it knows"
    return ""


def stack_change(item: Instruction) -> int | None:
    """Return by how many bytes *item* moves the stack pointer; None where that depends on more than *item*."""
    one = native(item)
    if one.is_stack_instruction:
        sets_it = one.mnemonic in (Mnemonic.LEAVE, Mnemonic.ENTER) or one.op0_register in _STACK_POINTERS
        return None if sets_it else one.stack_pointer_increment
    used = InstructionInfoFactory().info(one).used_registers()
    if not any(entry.register in _STACK_POINTERS and entry.access in _WRITES for entry in used):
        return 0
    if one.op0_register != Register.RSP:
        return None
    if one.mnemonic in (Mnemonic.ADD, Mnemonic.SUB) and one.op_count == 2 and one.op1_kind in _IMMEDIATES:
        amount = one.immediate(1)
        signed = amount - (1 << 64) if amount >> 63 else amount
        return signed if one.mnemonic == Mnemonic.ADD else -signed
    if one.mnemonic == Mnemonic.LEA and one.memory_base == Register.RSP and one.memory_index == Register.NONE:
        displacement = one.memory_displacement
        return displacement - (1 << 64) if displacement >> 63 else displacement
    return None


_IMMEDIATES = frozenset({OpKind.IMMEDIATE8TO64, OpKind.IMMEDIATE32TO64})
