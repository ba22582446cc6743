"""BPF instructions as text, in the style of the kernel's verifier log: for golden files and messages.

Source: Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.model.plan import Program

_ALU = ("+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=", "s>>=", "end")
_JUMP = {
    1: "==", 2: ">", 3: ">=", 4: "&", 5: "!=", 6: "s>", 7: "s>=", 10: "<", 11: "<=", 12: "s<", 13: "s<=",
}  # fmt: skip
_SIZES = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_ATOMICS = {0x00: "+=", 0x40: "|=", 0x50: "&=", 0xA0: "^="}


def disassemble(program: Program) -> Iterator[str]:
    """Yield one line per instruction: its index, its text."""
    names = {relocation.index: relocation for relocation in program.relocations}
    code = program.instructions
    index = 0
    while index < len(code) // 8:
        wide = code[index * 8] == 0x18
        relocation = names.get(index)
        if wide and relocation is not None:
            target = code[index * 8 + 1] & 15
            addend = f"+{relocation.addend}" if relocation.addend else ""
            what = f"{relocation.kind}[{relocation.map}]{addend}" if relocation.map else relocation.kind
            yield f"{index}: r{target} = {what} ll"
        else:
            yield f"{index}: {_instruction(code, index)}"
        index += 2 if wide else 1


def _instruction(code: bytes, index: int) -> str:
    opcode, registers, offset, immediate = struct.unpack_from("<BBhi", code, index * 8)
    target, source = registers & 15, registers >> 4
    family = opcode & 7
    if family in (4, 7):
        return _arithmetic(opcode, target, source, immediate)
    if family in (5, 6):
        return _jump(opcode, target, source, offset, immediate, index)
    size = _SIZES[opcode & 0x18]
    if opcode == 0x18:
        high = struct.unpack_from("<I", code, index * 8 + 12)[0]
        return f"r{target} = {high << 32 | immediate & 0xFFFFFFFF:#x} ll"
    if family == 1:
        return f"r{target} = *({size} *)(r{source} {offset:+d})"
    place = f"*({size} *)(r{target} {offset:+d})"
    if family == 2:
        return f"{place} = {immediate}"
    if opcode & 0xE0 == 0xC0:
        if immediate == 0xF1:
            return f"r0 = cmpxchg({place}, r0, r{source})"
        return f"lock {place} {_ATOMICS.get(immediate & 0xF0, '?')} r{source}"
    return f"{place} = r{source}"


def _arithmetic(opcode: int, target: int, source: int, immediate: int) -> str:
    letter = "r" if opcode & 7 == 7 else "w"
    operation = _ALU[opcode >> 4]
    if operation == "neg":
        return f"{letter}{target} = -{letter}{target}"
    if operation == "end":
        return f"{'be' if opcode & 8 else 'le'}{immediate} r{target}"
    return f"{letter}{target} {operation} {f'{letter}{source}' if opcode & 8 else immediate}"


def _jump(opcode: int, target: int, source: int, offset: int, immediate: int, index: int) -> str:
    operation = opcode >> 4
    if operation == 8:
        return f"call {immediate}"
    if operation == 9:
        return "exit"
    goto = f"goto {index + 1 + offset}"
    if operation == 0:
        return goto
    letter = "r" if opcode & 7 == 5 else "w"
    other = f"{letter}{source}" if opcode & 8 else str(immediate)
    return f"if {letter}{target} {_JUMP[operation]} {other} {goto}"
