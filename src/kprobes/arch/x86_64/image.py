"""The code of one object, where it lies in a process: its functions, and at which addresses each may be entered.

An address is *entered* when control may come to it from elsewhere than from the instruction before. A jump that is
written over several instructions is only safe if none but the first of them is entered. Entered addresses are:

- targets of direct branches anywhere in the object (the cold part of a function jumps back into it);
- starts of functions, and the entries that the caller knows of (symbols without size, C++ landing pads);
- whatever follows an instruction that doesn't fall through: a block without a known way in has an unknown one;
- what the jump tables of the function lead to. A table is looked for at every address that the function loads by
  `lea`, as 4-byte offsets from the table and as 8-byte addresses, and read until an entry leaves the object or leads
  into the middle of an instruction: that gives more than the real targets, never fewer. Where a function jumps
  indirectly by a scaled index and no table can be found, it is said to be *opaque*, and nothing but its entry is known.

An address behind a call is a return address, and a landing pad has no other way in than unwinding; so the rule that
a patched region holds no call but at its end keeps both out of regions, also where nobody has named them.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from iced_x86 import Decoder, FlowControl, Mnemonic, OpKind, Register
from iced_x86 import Instruction as Native

from kprobes.arch.x86_64.decode import Flow, Instruction, branch_targets, decode
from kprobes.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

# What linkers and assemblers fill gaps with: int3, and nops of every length.
_PADDING = re.compile(rb"(?:\xcc|[\x66\x2e]*(?:\x90|\x0f\x1f(?:\x00|\x40.|\x44..|\x80.{4}|\x84.{5})))*", re.DOTALL)
_FAR_BRANCH = re.compile(rb"\xe9|\x0f[\x80-\x8f]")
_GOES_ON = Flow.NEXT
_SHORT_REACH = 128 + 2
_TABLE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Function:
    """One function, decoded whole.

    *index*: position in *instructions* by address. *entered*: the addresses in it at which control may arrive from
    elsewhere. *opaque*: it jumps by a table that can't be found, so there may be more of these. *pads*: runs of
    padding inside it, (start, end) each, that nothing runs. *leaps*: those of the instructions that don't just go on to
    the next. *has_tables*: its indirect jumps go by tables, as far as can be seen.
    """

    start: int
    end: int
    instructions: tuple[Instruction, ...]
    index: dict[int, int]
    entered: frozenset[int]
    opaque: bool
    pads: tuple[tuple[int, int], ...]
    leaps: tuple[Instruction, ...]
    has_tables: bool


class Image:
    """Executable bytes at their run-time addresses, decoded on demand and only once.

    *code* stands at *base*. *functions* are (start, end) extents, in any order; an end that isn't beyond its start
    means up to the next function. *entries* are further addresses at which code may be entered. *read* returns the
    live memory of the process at (address, size), shorter or empty where there is none; without it, jump tables
    can't be followed. *targets* are those of all direct branches in the code, where they are known already.
    """

    def __init__(
        self,
        base: int,
        code: bytes,
        functions: Iterable[tuple[int, int]],
        *,
        entries: Iterable[int] = (),
        read: Callable[[int, int], bytes] | None = None,
        targets: set[int] | None = None,
    ) -> None:
        self.base = base
        self.code = code
        self.end = base + len(code)
        self._read = read
        extents: dict[int, int] = {}
        for start, end in functions:
            if not base <= start < self.end:
                raise FormatError(f"function at {start:#x} lies outside the code at {base:#x}-{self.end:#x}")
            extents[start] = max(extents.get(start, 0), min(end, self.end))
        self.starts = sorted(extents)
        following = [*self.starts, self.end][1:]
        self.ends = [
            extents[start] if start < extents[start] else after
            for start, after in zip(self.starts, following, strict=True)
        ]
        self._known = {*self.starts, *entries}
        self._functions: dict[int, Function] = {}
        self._jumps: dict[int, list[int]] = {}
        self.exits: dict[int, tuple[Instruction, ...]] = {}  # by a function's start, see `leaving`
        self._targets = None if targets is None else targets | self._known
        self._far_targets: set[int] | None = None

    def bytes_at(self, address: int, size: int) -> bytes:
        """Return up to *size* bytes at *address*; fewer at the end of the code."""
        offset = address - self.base
        return self.code[offset : offset + size] if offset >= 0 else b""

    def extent(self, address: int) -> tuple[int, int] | None:
        """Return (start, end) of the innermost function that covers *address*, or None."""
        number = bisect_right(self.starts, address) - 1
        # An outer function may go on behind one that lies in it; names within a function are few and close.
        for candidate in range(number, max(number - 16, -1), -1):
            if address < self.ends[candidate]:
                return self.starts[candidate], self.ends[candidate]
        return None

    def gaps_between(self, low: int, high: int) -> list[tuple[int, int]]:
        """Return the runs of padding behind functions that end in [low, high), (start, end) each.

        Only where no function covers the gap, and none falls into it: nothing ever runs such bytes.
        """
        first, last = bisect_left(self.starts, low), bisect_left(self.starts, high)
        found: list[tuple[int, int]] = []
        for end in self.ends[max(first - 1, 0) : last + 1]:
            pad_end = self.padding_end(end)
            if low <= end < high and pad_end > end and self.extent(end) is None and self._is_closed(end):
                found.append((end, pad_end))
        return found

    def _is_closed(self, end: int) -> bool:
        """Tell whether the function that ends at *end* can't run on behind it."""
        before = self.function(end - 1)
        return before is not None and not before.instructions[-1].falls_through

    def padding_end(self, address: int) -> int:
        """Return the end of the padding that begins at *address*, before the next function: *address* if it is none."""
        number = bisect_right(self.starts, address)
        limit = self.starts[number] if number < len(self.starts) else self.end
        found = _PADDING.match(self.code, address - self.base, limit - self.base)
        end = self.base + found.end() if found else address
        # What somebody jumps to isn't padding, whatever it looks like.
        entered = self.known_targets().intersection(range(address, end)) if end > address else ()
        return min(entered, default=end)

    def known_targets(self) -> set[int]:
        """Return the targets of all direct branches in the object, function starts and known entries.

        Decodes the whole object the first time: about 0.25 µs an instruction.
        """
        if self._targets is None:
            self._targets = branch_targets(self.code, self.base) | self._known
        return self._targets

    def enters_head(self, start: int, end: int) -> bool:
        """Tell whether control may come into `(start, end)`, where *start* begins a function: the quick answer.

        It holds for a function's first bytes only: no switch leads into its own prologue. Branches from far away are
        found by their opcode bytes, wherever they stand, near ones by decoding the function before and the first bytes.
        """
        inner = range(start + 1, end)
        if self._targets is not None:
            return not self._targets.isdisjoint(inner)
        if self._far_targets is None:
            self._far_targets = _far_targets(self.code, self.base) | self._known
        if not self._far_targets.isdisjoint(inner):
            return True
        near = branch_targets(self.bytes_at(start, _SHORT_REACH + 5), start)
        before = self.extent(start - 1)
        if before and before[1] > start - _SHORT_REACH:
            near |= branch_targets(self.bytes_at(before[0], min(before[1], start) - before[0]), before[0])
        return not near.isdisjoint(inner)

    def function(self, address: int) -> Function | None:
        """Return the function that covers *address*, decoded, or None."""
        extent = self.extent(address)
        if extent is None:
            return None
        if extent[0] not in self._functions:
            self._functions[extent[0]] = self._analyse(*extent)
        return self._functions[extent[0]]

    def _analyse(self, start: int, end: int) -> Function:
        code = self.bytes_at(start, end - start)
        instructions = tuple(decode(code, start))
        index = {item.address: number for number, item in enumerate(instructions)}
        known = self.known_targets()
        entered = known.intersection(range(start, end))
        pads: list[tuple[int, int]] = []
        leaps = tuple([item for item in instructions if item.flow is not _GOES_ON])
        for item in leaps:
            if not item.falls_through:
                pad_end = min(self.padding_end(item.end), end) if item.end < end else item.end
                entered.add(pad_end)
                if pad_end > item.end:
                    pads.append((item.end, pad_end))
        opaque = has_tables = False
        if any(item.flow == Flow.JUMP_INDIRECT for item in leaps):
            table_targets, opaque = self._follow_tables(code, start, index)
            has_tables = opaque or bool(table_targets)
            entered |= table_targets
        return Function(start, end, instructions, index, frozenset(entered), opaque, tuple(pads), leaps, has_tables)

    def jumps_into(self, function: Function, start: int, end: int) -> bool:
        """Tell whether a direct jump or branch of *function* goes to an address from *start* to before *end*."""
        targets = self._jumps.get(function.start)
        if targets is None:
            jumps = (item.target for item in function.leaps if item.flow in (Flow.JUMP, Flow.BRANCH))
            targets = self._jumps[function.start] = sorted(target for target in jumps if target is not None)
        place = bisect_left(targets, start)
        return place < len(targets) and targets[place] < end

    def _follow_tables(self, code: bytes, start: int, index: Collection[int]) -> tuple[set[int], bool]:
        """Return where in the function its jump tables lead, and whether there are tables that can't be found.

        *index*: the addresses of the function's instructions.
        """
        bases: set[int] = set()
        switches = False
        for item in Decoder(64, code, ip=start):
            if item.mnemonic == Mnemonic.LEA and item.is_ip_rel_memory_operand:
                bases.add(item.ip_rel_memory_address)
            elif item.memory_index_scale == _WORD and item.memory_index != Register.NONE:
                bases.add(item.memory_displacement)
            if item.flow_control == FlowControl.INDIRECT_BRANCH:
                switches = switches or _is_switch(item)
        targets: set[int] = set()
        for base in bases:
            for table in self._read_table(base):
                led = takewhile(lambda place: place in index or not start <= place < start + len(code), table)
                targets |= {place for place in led if place in index}
        return targets, not targets and (switches or (self._read is None and bool(bases)))

    def _read_table(self, base: int) -> tuple[Iterator[int], Iterator[int]]:
        """Return what a table at *base* may lead to, as one of offsets and as one of addresses.

        Each ends before the first entry that leads out of the object.
        """
        raw = self._read(base, _WORD * _TABLE_LIMIT) if self._read else b""
        raw = raw[: len(raw) & -_WORD]
        offsets = struct.iter_unpack("<i", raw[: 4 * _TABLE_LIMIT])
        addresses = (address for (address,) in struct.iter_unpack("<Q", raw))
        return takewhile(self._holds, (base + offset for (offset,) in offsets)), takewhile(self._holds, addresses)

    def _holds(self, address: int) -> bool:
        return self.base <= address < self.end


_WORD = 8
_NOTRACK = Register.DS


def _is_switch(item: Native) -> bool:
    """Tell whether an indirect jump surely goes by a table: `notrack` says so, and so does a scaled index.

    Any other may be a tail call through a pointer, which leaves the function.
    """
    scaled = item.op0_kind == OpKind.MEMORY and item.memory_index != Register.NONE
    return scaled or item.segment_prefix == _NOTRACK


def _far_targets(code: bytes, base: int) -> set[int]:
    """Return where 32-bit jumps and branches in *code* go, and where those would that other bytes only look like."""
    ends = [found.end() for found in _FAR_BRANCH.finditer(code, 0, max(len(code) - 4, 0))]
    unpack = struct.Struct("<i").unpack_from
    return {base + end + 4 + unpack(code, end)[0] for end in ends}
