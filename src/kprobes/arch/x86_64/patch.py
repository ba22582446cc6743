"""A patch: the bytes that send control from a place in the code to a detour, and what moves out of their way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from kprobes.arch.x86_64 import assemble
from kprobes.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kprobes.arch.x86_64.decode import Instruction

LOWEST, HIGHEST = 0x1_0000, 0x7FFF_FFFF_F000
# No detour is larger; operands must be in reach from all over it.
DETOUR_LIMIT = 0x4000
BREAKPOINT_BYTE = b"\xcc"
JUMP_OPCODE = b"\xe9"
CALL_OPCODE = b"\xe8"


class Tactic:
    """How a site is armed. The words stand in `kprobes list`."""

    JUMP = "jump"
    CALL = "call"
    BLOCK = "block"
    PUN = "pun"
    ISLAND = "island"
    EVICTION = "eviction"
    BREAKPOINT = "breakpoint"
    REFUSED = "refused"


IN_PROCESS = (Tactic.JUMP, Tactic.CALL, Tactic.BLOCK, Tactic.PUN, Tactic.ISLAND, Tactic.EVICTION)


class Write(NamedTuple):
    """*code* goes to *address*."""

    address: int
    code: bytes


class Range(NamedTuple):
    """The addresses from *low* to *high*, both included."""

    low: int
    high: int

    def meet(self, other: Range) -> Range | None:
        """Return the addresses that lie in both, or None."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Range(low, high) if low <= high else None


@dataclass(frozen=True, slots=True)
class Patch:
    """One jump into one detour.

    *instructions* move to the detour, in whose copy the handlers of *sites* run, each before its instruction.
    The jump's opcode with its prefixes, *lead*, goes to *at*; of the four bytes of its offset the lowest *free* are
    written behind it, the others are instruction bytes that stand there already. *reach*: where the detour may
    begin. *pushed*: the jump is a call that has pushed the return address of the moved call. *extra*: writes that
    don't depend on the detour. *victim*: a patch without sites that makes room for this one; it needs a detour too.
    """

    tactic: str
    instructions: tuple[Instruction, ...]
    sites: tuple[int, ...]
    reach: Range
    at: int
    lead: bytes = JUMP_OPCODE
    free: int = 4
    pushed: bool = False
    extra: tuple[Write, ...] = ()
    victim: Patch | None = None

    def instruction_at(self, address: int) -> Instruction:
        """Return the moved instruction at *address*, of this patch or of its victim."""
        moved = (*self.instructions, *(self.victim.instructions if self.victim else ()))
        return next(item for item in moved if item.address == address)

    @property
    def start(self) -> int:
        """Return the address of the first instruction that moves."""
        return self.instructions[0].address

    @property
    def end(self) -> int:
        """Return the address behind the last instruction that moves, where the detour leads back to."""
        return self.instructions[-1].end

    def writes(self, detour: int, victim_detour: int = 0) -> tuple[Write, ...]:
        """Return what to write for a detour at *detour*, in an order in which each step leaves running code sound.

        Raises:
            InternalError: *detour* is not in *reach*, or a punned jump would not lead to it.
        """
        if self.tactic == Tactic.BREAKPOINT:
            return (Write(self.at, BREAKPOINT_BYTE),)
        if not self.reach.low <= detour <= self.reach.high:
            raise InternalError(f"detour {detour:#x} is out of the reach of the jump at {self.at:#x}")
        before = self.victim.writes(victim_detour) if self.victim else ()
        offset = assemble.distance(self.at + len(self.lead) + 4, detour).to_bytes(4, "little", signed=True)
        return (*before, Write(self.at, self.lead + offset[: self.free]), *self.extra)

    def overwrites(self, address: int) -> bool:
        """Tell whether the original byte at *address* is gone while the patch is in place."""
        if self.tactic == Tactic.BREAKPOINT:
            return address == self.at
        spans = [(self.at, len(self.lead) + self.free), *((write.address, len(write.code)) for write in self.extra)]
        return any(start <= address < start + size for start, size in spans)

    def touched(self) -> list[range]:
        """Return the addresses whose bytes are written, moved, or relied on: no other patch may write there."""
        jump_end = self.at + len(self.lead) + (0 if self.tactic == Tactic.BREAKPOINT else 4)
        if self.at == self.start and not self.extra:
            return [range(self.at, max(jump_end, self.end))]
        found = [range(self.at, jump_end), range(self.start, self.end)]
        found += [range(write.address, write.address + len(write.code)) for write in self.extra]
        return found + self.victim.touched() if self.victim else found


def reach_of(instructions: Iterable[Instruction], *anchors: int) -> Range | None:
    """Return where a copy of *instructions* may begin: within 2 GiB of all that it refers to, or None if nowhere.

    *anchors*: further addresses that must be in reach: the end of the jump that leads to the copy, and where it leads
    back to.
    """
    places = list(anchors)
    for item in instructions:
        if item.target is not None:
            places.append(item.target)
        elif item.data is not None:
            places.append(item.data)
    if not places:
        return Range(LOWEST, HIGHEST - DETOUR_LIMIT)
    low = max(max(places) + assemble.NEAR_LOW + DETOUR_LIMIT, LOWEST)
    high = min(min(places) + assemble.NEAR_HIGH, HIGHEST) - DETOUR_LIMIT
    return Range(low, high) if low <= high else None
