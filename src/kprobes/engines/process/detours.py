"""The detours: the bytes of each. Where they stand is settled before (see `settling`).

A detour is the relocated instructions that a jump displaced; before those with a probe stands the code that counts the
hit.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kprobes.engines.process.faults import FaultSite
from kprobes.engines.process.memory import PAGE, REACH
from kprobes.engines.process.muting import JUMP_SIZE, Body
from kprobes.engines.process.patch import Resume
from kprobes.engines.process.registry import Patch
from kprobes.engines.process.stubs import Counting, Live
from kprobes.errors import InternalError
from kprobes.model.layout import align_up
from kprobes.model.plan import COUNT_ONLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from kprobes.arch.x86_64.decode import Instruction
    from kprobes.arch.x86_64.detour import Code
    from kprobes.arch.x86_64.patch import Patch as Jump
    from kprobes.engines.process.arming import Arrangement
    from kprobes.engines.process.handlers import Handlers
    from kprobes.engines.process.stubs import Slow

INT3 = b"\xcc"
ALIGNMENT = 16
KEEP_ALL = Live()
LONGEST = 15  # bytes of an instruction
HINTS = b"\x2e\x3e\xf2"  # prefixes of a conditional jump


@dataclass(slots=True)
class CodeArea:
    """Code to be mapped at *start*: *content* is filled from the front, *size* is the room it may take."""

    start: int
    size: int
    content: bytearray = field(default_factory=bytearray)

    @property
    def pages(self) -> tuple[int, int]:
        """Return (address, size) as mapped."""
        return self.start & -PAGE, align_up(self.start + self.size, PAGE) - (self.start & -PAGE)


@dataclass(frozen=True, slots=True)
class Group:
    """The *patches* of one jump, and the numbers of the *sites* whose hits come through it, with the *bodies* that run
    for each."""

    sites: frozenset[int]
    patches: tuple[Patch, ...]
    bodies: Mapping[int, Sequence[Body]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Copied:
    """Where in a detour an instruction is: the *body* that runs before it, and the *instruction* itself; both are one
    address where nothing does. *pop* as in `Resume`, of a thread there."""

    body: int
    instruction: int
    pop: int


@dataclass(slots=True)
class Detours:
    """All detours of one attach: their code, the bytes to write for them, where threads move to, and back from.

    `copies` tells by its address of each instruction where it is now.
    `traps` leads from the address of each breakpoint to its detour, `faults` from that of each instruction to what runs
    when it faults.
    """

    areas: list[CodeArea] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    moves: dict[int, int] = field(default_factory=dict)
    resume: dict[int, Resume] = field(default_factory=dict)
    copies: dict[int, Copied] = field(default_factory=dict)
    traps: dict[int, int] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    routines: list[int] = field(default_factory=list)
    faults: dict[int, FaultSite] = field(default_factory=dict)

    def add(self, more: Detours) -> None:
        """Add *more*, in place: who serves the traps keeps his reference to them."""
        self.areas += more.areas
        self.patches += more.patches
        self.moves.update(more.moves)
        self.resume.update(more.resume)
        self.copies.update(more.copies)
        self.traps.update(more.traps)
        self.groups += more.groups
        self.routines += more.routines
        self.faults.update(more.faults)

    def drop(self, pieces: Iterable[tuple[int, int]]) -> None:
        """Forget, in place, all that stands in *pieces* of code, (start, size) each; no patch leads there any more."""
        ranges = [range(start, start + size) for start, size in pieces]

        def inside(address: int) -> bool:
            return any(address in one for one in ranges)

        self.areas[:] = [area for area in self.areas if not inside(area.start)]
        self.routines[:] = [address for address in self.routines if not inside(address)]
        for known in (self.moves, self.traps):
            for key in [key for key, address in known.items() if inside(address)]:
                del known[key]
        for address in [address for address, one in self.copies.items() if inside(one.instruction)]:
            del self.copies[address]
        for address in [address for address, one in self.faults.items() if inside(one.stub)]:
            del self.faults[address]
        gone = {back.address for address, back in self.resume.items() if inside(address)}
        for address in [address for address in self.resume if inside(address)]:
            del self.resume[address]
        self.groups[:] = [one for one in self.groups if not any(patch.head in gone for patch in one.patches)]


def merged_pages(areas: Sequence[CodeArea]) -> list[tuple[int, int]]:
    """Return the (address, size) to map for *areas*: whole pages, those that touch as one."""
    result: list[tuple[int, int]] = []
    for start, size in sorted(area.pages for area in areas):
        if result and start <= result[-1][0] + result[-1][1]:
            first = result[-1][0]
            result[-1] = (first, max(result[-1][0] + result[-1][1], start + size) - first)
        else:
            result.append((start, size))
    return result


@dataclass(slots=True)
class Builder:
    """Writes the code of settled areas. *routines* is the code of the routines, *counter* the offset of a site's hits
    in a block, *original* reads the target's code, *programs* gives a site's program (COUNT_ONLY: none), *on_fault* the
    one for its faults."""

    arrangement: Arrangement
    routines: bytes
    handlers: Handlers
    counter: Callable[[int], int]
    original: Callable[[int, int], bytes]
    programs: Sequence[int | None]
    on_fault: Mapping[int, int] = field(default_factory=dict)
    _bodies: dict[int, list[tuple[int, Body]]] = field(default_factory=dict)

    def build(self, settled: Sequence[tuple[CodeArea, list[Jump]]]) -> Detours:
        """Return the detours of all areas with the patches that lead to them, in an order safe to write."""
        result = Detours()
        where: dict[int, int] = {}
        for area, jumps in settled:
            result.areas.append(area)
            routines = self._routines(area, result)
            for jump in jumps:
                area.content += INT3 * (-len(area.content) % ALIGNMENT)
                where[id(jump)] = area.start + len(area.content)
                if jump.tactic == "breakpoint":
                    result.traps[jump.at] = where[id(jump)]
                self._add_detour(jump, area, routines, result)
        victims = {id(jump.victim) for _, jumps in settled for jump in jumps}
        for _, jumps in settled:
            for jump in jumps:
                if id(jump) not in victims:  # the jump it makes room for writes for both
                    patches = self._patches(jump, where)
                    result.patches += patches
                    result.groups.append(Group(self._sites_of(jump), tuple(patches), self._bodies_of(jump)))
        self._add_counters(result)
        if result.areas:
            self._add_faults(result)
        return result

    def _add_counters(self, result: Detours) -> None:
        """Let reference counters be one more as long as one of their sites is armed."""
        for (_, counter), numbers in self.arrangement.counters.items():
            sites = frozenset(numbers)
            heads = [group.patches[0].head for group in result.groups if group.sites & sites and group.bodies]
            if heads:  # a return probe of a function that is never left has nothing in place
                patch = Patch.counter(counter, heads[0])
                result.patches.append(patch)
                result.groups.append(Group(sites, (patch,)))

    def _add_faults(self, result: Detours) -> None:
        """Note what runs on faults; the handlers stand where *result* has put them."""
        for address, one in self.arrangement.faults.items():
            calls = [(number, self.handlers.entries[self.on_fault[number]]) for number in one.sites]
            result.faults[address] = FaultSite(one.code, tuple(calls), self.handlers.fault_stub)

    def _routines(self, area: CodeArea, result: Detours) -> int:
        """Return the address of the routines in reach of *area*; put them in, with the handlers, if there are none."""
        for routines in result.routines:
            if abs(routines - area.start) < REACH:
                return routines
        area.content += self.routines
        if not result.routines:
            self.handlers.place(area.content, area.start, area.start)
        result.routines.append(area.start)
        return area.start

    def _add_detour(self, jump: Jump, area: CodeArea, routines: int, result: Detours) -> None:
        from kprobes.arch.x86_64.detour import build

        at = area.start + len(area.content)
        bodies = _Bodies(self, routines, jump.pushed)
        behind = {
            address: bodies.behind(jump.instruction_at(address))
            for address in jump.sites
            if address in self.arrangement.behind
        }
        detour = build(jump, at, {address: bodies.body(address) for address in jump.sites}, behind)
        code = bytearray(detour.code)
        bodies.finish(code, at)
        area.content += code
        self._bodies[id(jump)] = [
            (number % self._count, Body(begin, end, bytes(code[begin - at : begin - at + JUMP_SIZE])))
            for number, begin, end in bodies.spans
        ]
        pop = 8 if detour.pushed else 0
        for offset in sorted(detour.resume):
            original = detour.resume[offset]
            result.moves[original] = at + offset
            result.resume[at + offset] = Resume(original, pop)
        for item in jump.instructions:
            there = [at + offset for offset, original in detour.resume.items() if original == item.address]
            result.copies[item.address] = Copied(min(there), max(there), pop)

    def _sites_of(self, jump: Jump) -> frozenset[int]:
        """Return the numbers of the sites that *jump* serves, whether themselves or their functions' exits."""
        addresses = (*jump.sites, *(jump.victim.sites if jump.victim is not None else ()))
        by_address = (self.arrangement.sites, self.arrangement.behind)
        return frozenset(
            number % self._count for address in addresses for one in by_address for number in one.get(address, ())
        )

    def _bodies_of(self, jump: Jump) -> dict[int, list[Body]]:
        """Return what runs for each of the sites that *jump* serves."""
        found: dict[int, list[Body]] = {}
        for one in (jump, jump.victim):
            for number, body in self._bodies.get(id(one), ()):
                found.setdefault(number, []).append(body)
        return found

    @property
    def _count(self) -> int:
        """Return how many sites there are: each has two programs."""
        return len(self.programs) // 2

    def _patches(self, jump: Jump, where: dict[int, int]) -> list[Patch]:
        victim = where[id(jump.victim)] if jump.victim is not None else 0
        writes = jump.writes(where[id(jump)], victim)
        heads = {jump.at: jump.start, **({jump.victim.at: jump.victim.start} if jump.victim is not None else {})}
        return [
            Patch(address, self.original(address, len(code)), code, heads.get(address, address))
            for address, code in writes
        ]


def _unless_taken(branch: bytes) -> bytes:
    """Return a jump over what follows it, by 0 bytes so far, where the conditional jump *branch* is not taken."""
    place = next(place for place, byte in enumerate(branch) if byte not in HINTS)
    condition = branch[place + 1] if branch[place] == 0x0F else branch[place]
    return bytes((0x0F, 0x80 | (condition & 0xF ^ 1), 0, 0, 0, 0))


class _Bodies:
    """What runs before the instructions of one detour; the slow ways of counting are added when it is complete."""

    def __init__(self, builder: Builder, routines: int, pushed: bool) -> None:
        self._builder = builder
        self._routines = routines
        self._pushed = pushed
        self._counting = Counting(builder.handlers.mode, routines)
        self._slow: list[tuple[int, Slow]] = []
        self.spans: list[tuple[int, int, int]] = []  # the number of a site or of its second program, from, to

    def body(self, address: int) -> Callable[[int], bytes]:
        """Return the body for all probes at *address*, in their order."""
        numbers = self._builder.arrangement.sites.get(address, [])  # none: a site that was left out
        return lambda at: self._code(address, numbers, at)

    def behind(self, item: Instruction) -> Callable[[int, int], bytes]:
        """Return the body for all handlers that run behind *item*, in their order."""
        return lambda at, ip: self._code_behind(item, at, ip)

    def _code_behind(self, item: Instruction, at: int, ip: int) -> bytes:
        from kprobes.arch.x86_64.behind import stack_change
        from kprobes.arch.x86_64.decode import CALLS

        builder, code = self._builder, bytearray()
        moved = stack_change(item)
        # What was pushed in place of the call is where it belongs once the call has run.
        pushed = self._pushed and item.flow not in CALLS
        for number in builder.arrangement.behind[item.address]:
            program = builder.programs[number]
            if program is None or moved is None:
                raise InternalError(f"nothing can run behind {item.address:#x}")
            own = number if builder.handlers.programs[program].part == "return" else number - len(builder.programs) // 2
            call = builder.handlers.call(program, (own, ip), self._routines, KEEP_ALL, pushed=pushed, moved=moved)
            here = at + len(code)
            code += call(here)
            self.spans.append((number, here, at + len(code)))
        return bytes(code)

    def _code(self, address: int, numbers: Sequence[int], at: int) -> Code:
        from kprobes.arch.x86_64.detour import Code

        code, nexts = bytearray(), list[int]()
        live = self._builder.arrangement.live.get(address, KEEP_ALL)
        for number in numbers:
            program = self._builder.programs[number]
            here = at + len(code)
            if program is None:
                continue
            if program == COUNT_ONLY:
                part = bytearray()
                slow = self._counting.begin(part, here, self._builder.counter(number), live)
                self._slow.extend([(here, slow)] if slow else [])
                code += part
            else:
                called = self._call(program, (number, address), here, live)
                nexts += [len(code) + place for place in called.nexts]
                code += called
            self.spans.append((number, here, at + len(code)))
        return Code(bytes(code), tuple(nexts))

    def _call(self, program: int, site: tuple[int, int], at: int, live: Live) -> Code:
        builder = self._builder
        number, address = site
        sites = len(builder.programs) // 2
        skip = b""
        if number >= sites and address in builder.arrangement.taken:
            skip = _unless_taken(builder.original(address, LONGEST))
        if builder.handlers.programs[program].part == "exit":  # it counts by itself, as the site
            number -= sites
        call = builder.handlers.call(program, (number, address), self._routines, live, pushed=self._pushed)
        code = call(at + len(skip))
        if not skip:
            return code
        from kprobes.arch.x86_64.detour import Code

        shifted = tuple(len(skip) + place for place in code.nexts)
        return Code(skip[:-4] + struct.pack("<i", len(code)) + code, shifted)

    def finish(self, code: bytearray, at: int) -> None:
        """Append the slow ways to *code*, the whole detour, which stands *at*."""
        for begun_at, slow in self._slow:
            self._counting.finish(code, at, begun_at, slow)
