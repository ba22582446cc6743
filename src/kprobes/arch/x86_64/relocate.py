"""Re-encode instructions so that they do at another address what they did at their own.

Most instructions are copied byte for byte; in one with a RIP-relative operand only the displacement changes, so its
prefixes and its length stay. Branches become their 32-bit form. A call pushes the return address that it would have
pushed in its own place: the callee, `backtrace()` and C++ unwinding never see an address of the copy.

A copy differs from the original in these ways only: `syscall` leaves the copy's address in rcx, the x87 state records
the copy's address as that of its last instruction, and a fault in the copy happens at the copy's address (the offset
map leads back).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iced_x86 import Code, Encoder, Register

from kprobes.arch.x86_64 import assemble
from kprobes.arch.x86_64.decode import LONGEST, Flow, Instruction, native
from kprobes.errors import UnsafeSiteError

if TYPE_CHECKING:
    from collections.abc import Sequence

_int32 = struct.Struct("<i").pack
_ADDRESS_SIZE_PREFIX = 0x67


@dataclass(frozen=True, slots=True)
class Relocated:
    """A copy: its *code*, and the *offsets* in it by the original address of each instruction.

    A thread that stands at an original address goes on at `to + offsets[address]`, and the other way round.
    """

    code: bytes
    offsets: dict[int, int]


class Copy:
    """Code that grows at a fixed address: relocated instructions, and whatever else a detour puts between them.

    Jumps among the copied instructions stay in the copy: those to instructions that come later are filled in by
    `finish`.
    """

    __slots__ = ("_labels", "_moved", "_pending", "at", "code")

    def __init__(self, at: int, moved: Sequence[Instruction]) -> None:
        self.at = at
        self.code = bytearray()
        self._moved = {instruction.address for instruction in moved}
        self._labels: dict[int, int] = {}
        self._pending: list[tuple[int, int]] = []

    @property
    def here(self) -> int:
        """Return the address at which the next byte will stand."""
        return self.at + len(self.code)

    @property
    def labels(self) -> dict[int, int]:
        """Return the offset in the code at which each original address is continued."""
        return self._labels

    def mark(self, address: int) -> None:
        """Say that what follows is where the original *address* is continued."""
        self._labels[address] = len(self.code)

    def jump(self, target: int) -> None:
        """Add a jump to *target*, an original address; into the copy if it has been moved."""
        self.code += b"\xe9"
        self._offset(target)

    def branch(self, condition: int, target: int) -> None:
        """Add `jcc` to *target*, an original address; into the copy if it has been moved."""
        self.code += bytes((0x0F, 0x80 | condition))
        self._offset(target)

    def finish(self) -> bytes:
        """Fill in the jumps forward and return the code."""
        for place, target in self._pending:
            self.code[place : place + 4] = _int32(self._labels[target] - (place + 4))
        self._pending.clear()
        return bytes(self.code)

    def aim(self, place: int, target: int) -> None:
        """Let the 32-bit offset at *place* of the code lead to *target*, an original address that has not come yet."""
        if target in self._moved:
            self._pending.append((place, target))
        else:
            self.code[place : place + 4] = _int32(assemble.distance(self.at + place + 4, target))

    def _offset(self, target: int) -> None:
        if target in self._moved:
            self._pending.append((len(self.code), target))
            self.code += b"\0\0\0\0"
        else:
            self.code += _int32(assemble.distance(self.here + 4, target))

    def add(self, instruction: Instruction, *, pushed: bool = False) -> None:
        """Add *instruction*, relocated. *pushed*: the return address of this call is on the stack already.

        Raises:
            UnsafeSiteError: it can't be moved, or what it refers to is out of reach.
        """
        if instruction.refusal:
            raise UnsafeSiteError(f"{instruction.address:#x}", instruction.refusal)
        if instruction.flow in _EMITTERS:
            _EMITTERS[instruction.flow](self, instruction, pushed)
        elif instruction.data is not None:
            self.code += _with_operand(instruction, instruction.data, self.here)
        else:
            self.code += instruction.code


def relocate(instructions: Sequence[Instruction], to: int) -> Relocated:
    """Return *instructions* re-encoded to run at address *to*; control falls out of the end of the copy.

    RIP-relative operands keep their targets, branches among *instructions* stay in the copy, and calls push their
    original return addresses.

    Raises:
        UnsafeSiteError: an instruction can't be moved, or a target lies more than 2 GiB from the copy.

    Source: Intel SDM vol. 2, 2.2.1.6 (RIP-relative addressing).
    """
    copy = Copy(to, instructions)
    for instruction in instructions:
        copy.mark(instruction.address)
        copy.add(instruction)
    return Relocated(copy.finish(), copy.labels)


def _with_operand(instruction: Instruction, target: int, at: int) -> bytes:
    """Return the bytes of *instruction* at *at*, with its 32-bit offset pointing to *target*."""
    raw, place = instruction.code, instruction.operand_at
    offset = target - (at + len(raw))
    if not assemble.NEAR_LOW <= offset <= assemble.NEAR_HIGH:
        if _ADDRESS_SIZE_PREFIX not in raw[: place - 2]:
            raise UnsafeSiteError(
                f"{instruction.address:#x}", f"it refers to {target:#x}, more than 2 GiB away from the copy at {at:#x}"
            )
        # EIP-relative: the sum is cut to 32 bits, so that everything is in reach.
        offset = (offset + 2**31) % 2**32 - 2**31
    return raw[:place] + _int32(offset) + raw[place + 4 :]


def _target(instruction: Instruction) -> int:
    assert instruction.target is not None
    return instruction.target


def _jump(copy: Copy, instruction: Instruction, _pushed: bool) -> None:
    copy.jump(_target(instruction))


def _branch(copy: Copy, instruction: Instruction, _pushed: bool) -> None:
    copy.branch(instruction.code[instruction.operand_at - 1] & 0xF, _target(instruction))


def _loop(copy: Copy, instruction: Instruction, _pushed: bool) -> None:
    """`loop` and `jrcxz` have no 32-bit form: they hop over a short jump that skips the long one."""
    copy.code += instruction.code[: instruction.operand_at] + b"\x02\xeb\x05"
    copy.jump(_target(instruction))


def _transaction(copy: Copy, instruction: Instruction, _pushed: bool) -> None:
    """An aborted transaction goes on at the original handler: `xbegin` isn't a jump that could stay in the copy."""
    copy.code += _with_operand(instruction, _target(instruction), copy.here)


def _call(copy: Copy, instruction: Instruction, pushed: bool) -> None:
    if not pushed:
        copy.code += assemble.push_constant(instruction.end)
    copy.jump(_target(instruction))


def _call_indirect(copy: Copy, instruction: Instruction, pushed: bool) -> None:
    """Push the return address, then jump; an operand on the stack has moved away by those 8 bytes."""
    if not pushed:
        copy.code += assemble.push_constant(instruction.end)
    item = native(instruction)
    item.code = Code.JMP_RM64
    if item.memory_base in _STACK_POINTERS:
        item.memory_displacement += 8
        item.memory_displ_size = 8 if item.memory_base == Register.RSP else 4
    encoder = Encoder(64, LONGEST)
    try:
        encoder.encode(item, copy.here)
    except ValueError as error:
        place = f"{instruction.address:#x}"
        raise UnsafeSiteError(place, f"its operand is out of reach of the copy at {copy.here:#x}") from error
    copy.code += encoder.take_buffer()


_STACK_POINTERS = frozenset({Register.RSP, Register.ESP})

_EMITTERS = {
    Flow.JUMP: _jump,
    Flow.BRANCH: _branch,
    Flow.LOOP: _loop,
    Flow.TRANSACTION: _transaction,
    Flow.CALL: _call,
    Flow.CALL_INDIRECT: _call_indirect,
}
