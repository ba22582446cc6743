"""A small x86-64 assembler: just the instructions that detours need, encoded by hand.

Encoding through the decoder library costs microseconds an instruction; thousands of detours are built in one attach.

Source: Intel SDM vol. 2 (instruction reference); vol. 1, 3.4.3 (flags).
"""

from __future__ import annotations

import struct

from kprobes.errors import InternalError, UnsafeSiteError

# Numbers of the general registers in ModRM and SIB bytes, by the kernel's names.
NUMBERS: dict[str, int] = {
    "ax": 0, "cx": 1, "dx": 2, "bx": 3, "sp": 4, "bp": 5, "si": 6, "di": 7,
    "r8": 8, "r9": 9, "r10": 10, "r11": 11, "r12": 12, "r13": 13, "r14": 14, "r15": 15,
}  # fmt: skip

# Condition codes, the low nibble of jcc.
ZERO, NOT_ZERO = 0x4, 0x5

JUMP_SIZE = 5
SHORT_JUMP_SIZE = 2
NEAR_LOW, NEAR_HIGH = -(2**31), 2**31 - 1

PUSH_FLAGS = b"\x9c"
POP_FLAGS = b"\x9d"
CLEAR_DIRECTION = b"\xfc"
RETURN_FROM_INTERRUPT = b"\x48\xcf"
ALIGN_STACK = b"\x48\x83\xe4\xf0"  # and rsp, -16

_int32 = struct.Struct("<i").pack
_uint32 = struct.Struct("<I").pack
_uint64 = struct.Struct("<Q").pack


def distance(source: int, target: int) -> int:
    """Return the 32-bit offset from *source*, the end of an instruction, to *target*.

    Raises:
        UnsafeSiteError: they lie more than 2 GiB apart.
    """
    offset = target - source
    if not NEAR_LOW <= offset <= NEAR_HIGH:
        raise UnsafeSiteError(f"{target:#x}", f"it is more than 2 GiB away from the copy at {source:#x}")
    return offset


def jump(at: int, target: int) -> bytes:
    """Return `jmp rel32` from *at* to *target*: 5 bytes."""
    return b"\xe9" + _int32(distance(at + 5, target))


def call(at: int, target: int) -> bytes:
    """Return `call rel32` at *at* of *target*: 5 bytes."""
    return b"\xe8" + _int32(distance(at + 5, target))


def branch(at: int, condition: int, target: int) -> bytes:
    """Return `jcc rel32` at *at* to *target*: 6 bytes; *condition* is the low nibble of the opcode."""
    return bytes((0x0F, 0x80 | condition)) + _int32(distance(at + 6, target))


def short_jump(at: int, target: int) -> bytes:
    """Return `jmp rel8` from *at* to *target*, which is at most 127 bytes away: 2 bytes."""
    offset = target - (at + SHORT_JUMP_SIZE)
    if not -128 <= offset <= 127:
        raise InternalError(f"short jump from {at:#x} to {target:#x}")
    return b"\xeb" + offset.to_bytes(1, "little", signed=True)


def push_constant(value: int) -> bytes:
    """Return code that pushes the 64-bit *value* and changes no register and no flag: 5 or 13 bytes."""
    low, high = value & 0xFFFFFFFF, value >> 32
    code = b"\x68" + _uint32(low)
    if high == (0xFFFFFFFF if low >> 31 else 0):
        return code
    return code + b"\xc7\x44\x24\x04" + _uint32(high)


def load_constant(register: str, value: int) -> bytes:
    """Return `mov register, value`, the shortest of the forms for an unsigned 64-bit *value*; flags are kept."""
    number = NUMBERS[register]
    if value <= 0xFFFFFFFF:
        prefix = b"\x41" if number >= 8 else b""
        return prefix + bytes((0xB8 | number & 7,)) + _uint32(value)
    return bytes((0x48 | number >> 3, 0xB8 | number & 7)) + _uint64(value)


def copy(target: str, source: str) -> bytes:
    """Return `mov target, source` (64 bits): 3 bytes."""
    to, number = NUMBERS[target], NUMBERS[source]
    return bytes((0x48 | (number >> 3) << 2 | to >> 3, 0x89, 0xC0 | (number & 7) << 3 | to & 7))


def store(register: str, offset: int, base: str = "sp") -> bytes:
    """Return `mov [base + offset], register` (64 bits)."""
    return _memory(0x89, NUMBERS[register], offset, NUMBERS[base])


def load(register: str, offset: int, base: str = "sp") -> bytes:
    """Return `mov register, [base + offset]` (64 bits)."""
    return _memory(0x8B, NUMBERS[register], offset, NUMBERS[base])


def add_address(register: str, offset: int, base: str = "sp") -> bytes:
    """Return `lea register, [base + offset]`: an addition that keeps the flags."""
    return _memory(0x8D, NUMBERS[register], offset, NUMBERS[base])


def store_constant(value: int, offset: int) -> bytes:
    """Return code that stores the 64-bit *value* at `[rsp + offset]` and changes no register and no flag."""
    low, high = value & 0xFFFFFFFF, value >> 32
    if value < 2**31 or value >= 2**64 - 2**31:
        return _memory(0xC7, 0, offset, 4) + _uint32(low)
    halves = ((low, offset), (high, offset + 4))
    return b"".join(_memory(0xC7, 0, where, 4)[1:] + _uint32(half) for half, where in halves)


def _memory(opcode: int, register: int, offset: int, base: int) -> bytes:
    """Return a REX.W instruction with the operands *register* and `[base + offset]`."""
    head = bytes((0x48 | (register >> 3) << 2 | base >> 3, opcode))
    field = (register & 7) << 3 | base & 7
    index = b"\x24" if base & 7 == 4 else b""
    if offset == 0 and base & 7 != 5:
        return head + bytes((field,)) + index
    if -128 <= offset <= 127:
        return head + bytes((0x40 | field,)) + index + offset.to_bytes(1, "little", signed=True)
    return head + bytes((0x80 | field,)) + index + _int32(offset)


def increment(at: int, counter: int, *, locked: bool = False) -> bytes:
    """Return `inc qword [rip + x]` at *at* for the 8-byte *counter*; every flag but the carry changes."""
    head = b"\xf0\x48\xff\x05" if locked else b"\x48\xff\x05"
    return head + _int32(distance(at + len(head) + 4, counter))


def increment_in_thread(offset: int) -> bytes:
    """Return `inc qword fs:[offset]`: a counter at *offset* from the thread pointer; all flags but carry change."""
    return b"\x64\x48\xff\x04\x25" + _int32(offset)


def jump_to_table(at: int, slot: int) -> bytes:
    """Return `jmp [rip + x]`: a jump anywhere, by way of the 8-byte address stored at *slot*; 6 bytes."""
    return b"\xff\x25" + _int32(distance(at + 6, slot))


# Arithmetic flags alone cost a fraction of what pushfq and popfq do. The overflow flag isn't in AH: it goes by way
# of AL, where `add al, 0x7f` overflows again exactly if AL was 1.
SAVE_ARITHMETIC_FLAGS = b"\x9f\x0f\x90\xc0"  # lahf; seto al
RESTORE_ARITHMETIC_FLAGS = b"\x04\x7f\x9e"  # add al, 0x7f; sahf
