"""From the plan's sites to patches and the detours they lead to: everything that is decided before the target stops.

Sites come as file offsets. An object that is mapped several times (two linker namespaces) is armed in each place.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kprobes.engines.process.stubs import Live
from kprobes.errors import UnprobeableError
from kprobes.model.plan import COUNT_ONLY, Way

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kprobes.arch.x86_64.image import Image
    from kprobes.arch.x86_64.patch import Patch as Jump
    from kprobes.arch.x86_64.sites import SitePlan
    from kprobes.engines.process.memory import ProcessMemory, Room
    from kprobes.engines.process.procfs import Mapping
    from kprobes.model.plan import CodeObject, Plan, Site


RESULT = "ax"  # the register of a function's result
RETURN_HINT = "add --engine uprobe for this one"


@dataclass(frozen=True, slots=True)
class Located:
    """Site number *number* of the plan at *address* of the target."""

    number: int
    address: int
    mapping: Mapping


@dataclass(frozen=True, slots=True)
class Armed:
    """How site *number* is armed: the *way* of `model.plan.Way` and *why*; *address* may lie behind an ENDBR64."""

    number: int
    address: int
    way: str
    why: str


@dataclass(slots=True)
class Arrangement:
    """Every jump to be placed; by address the sites there, in the order of the plan, and what must be kept there.

    A number of *sites* from the plan's number of sites on stands for an exit of site number - that; `taken` are the
    addresses of conditional jumps that are exits only where they are taken.
    """

    jumps: list[Jump] = field(default_factory=list)
    armed: list[Armed] = field(default_factory=list)
    sites: dict[int, list[int]] = field(default_factory=dict)
    live: dict[int, Live] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)


class Objects:
    """The executable mappings of the target by the file they show."""

    def __init__(self, pid: int, mappings: Sequence[Mapping]) -> None:
        self._pid = pid
        self._code = [mapping for mapping in mappings if mapping.executable]
        self._found: dict[str, list[Mapping]] = {}

    def mappings_of(self, path: str) -> list[Mapping]:
        """Return the executable mappings of *path*, which is spelt as the target sees it, or any name of the file."""
        if path not in self._found:
            found = [mapping for mapping in self._code if mapping.path == path]
            self._found[path] = found or self._by_inode(path)
        return self._found[path]

    def _by_inode(self, path: str) -> list[Mapping]:
        try:
            seen = os.stat(f"/proc/{self._pid}/root{path}")  # noqa: PTH116
        except OSError:
            return []
        device = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}"
        return [mapping for mapping in self._code if (mapping.inode, mapping.device) == (seen.st_ino, device)]

    def locate(self, number: int, site: Site) -> list[Located]:
        """Return where *site* is in the target.

        Raises:
            UnprobeableError: nothing of the file is mapped, or no code at that offset.
        """
        if not site.path:
            found = [one for one in self._code if one.start <= site.address < one.end]
            places = [(one, site.address) for one in found]
        else:
            mappings = self.mappings_of(site.path)
            if not mappings:
                raise UnprobeableError(site.name, f"{site.path} is not mapped in process {self._pid}")
            places = [
                (one, one.start + site.address - one.offset)
                for one in mappings
                if one.offset <= site.address < one.offset + one.end - one.start
            ]
        if not places:
            raise UnprobeableError(site.name, "there is no executable code")
        return [Located(number, address, one) for one, address in places]


def arrange(
    plan: Plan, wanted: Iterable[int], objects: Objects, memory: ProcessMemory, rooms: Sequence[Room]
) -> Arrangement:
    """Plan the sites numbered *wanted*; *rooms* are where detours may go.

    Raises:
        UnprobeableError: a site can't be armed; the reason is the first one's.
    """
    by_mapping: dict[int, list[Located]] = {}
    for number in wanted:
        for located in objects.locate(number, plan.sites[number]):
            by_mapping.setdefault(located.mapping.start, []).append(located)
    result = Arrangement()
    known = {code.path: code for code in plan.objects}
    ranges = tuple(range(room.start, room.end) for room in rooms)
    for group in by_mapping.values():
        _arrange_mapping(plan, group, memory, ranges, known.get(plan.sites[group[0].number].path), result)
    return result


def _arrange_mapping(
    plan: Plan, group: Sequence[Located], memory: ProcessMemory, rooms: tuple[range, ...],
    known: CodeObject | None, result: Arrangement,
) -> None:  # fmt: skip
    from kprobes.arch.x86_64.image import Image
    from kprobes.arch.x86_64.liveness import dead_at
    from kprobes.arch.x86_64.patch import IN_PROCESS
    from kprobes.arch.x86_64.sites import plan_sites

    mapping = group[0].mapping
    image = Image(
        mapping.start,
        memory.read(mapping.start, mapping.end - mapping.start),
        _extents(plan, group, known),
        entries=_entries(mapping, known),
        read=memory.read_some,
    )
    forced = all(plan.probes[plan.sites[located.number].probe].ways == (Way.BREAKPOINT,) for located in group)
    exclude = frozenset(IN_PROCESS) if forced else frozenset[str]()
    hooks = [hook for located in group for hook in _hooks(plan, located, image)]
    plans = plan_sites(image, [hook.address for hook in hooks], room=rooms, exclude=exclude)
    jumps: dict[int, Jump] = {}
    for located in hooks:
        found = plans[located.address]
        if located.number >= len(plan.sites):
            _arrange_exit(located, found, image, plan, result)
            jumps |= {found.patch.at: found.patch} if found.patch is not None else {}
            continue
        if found.patch is None:
            if not plan.probes[plan.sites[located.number].probe].is_glob:
                raise UnprobeableError(plan.sites[located.number].name, found.reason)
            result.armed.append(Armed(located.number, located.address, "", found.reason))
            continue
        jumps[found.patch.at] = found.patch
        result.sites.setdefault(found.address, []).append(located.number)
        if found.address not in result.live:
            # At a function's entry nothing below the stack pointer is in use yet.
            flags = not dead_at(image, found.address, flags_only=True).flags
            result.live[found.address] = Live(flags=flags, red_zone=bool(plan.sites[located.number].offset))
        result.armed.append(Armed(located.number, found.address, _way(found), found.reason))
    result.jumps += jumps.values()


def _hooks(plan: Plan, located: Located, image: Image) -> list[Located]:
    """Return the places at which something is to run for one site: itself, and its function's exits."""
    from kprobes.arch.x86_64.decode import Flow
    from kprobes.arch.x86_64.leaving import exits_of

    programs = programs_of(plan)
    exit_number = located.number + len(plan.sites)
    hooks = [located] if programs[located.number] is not None else []
    program = programs[exit_number]
    if program is None:
        return hooks
    found = exits_of(image, located.address)
    if not found:
        raise UnprobeableError(
            plan.sites[located.number].name, "its end isn't known, so its exits can't be found", hint=RETURN_HINT
        )
    # What a tail call will return isn't known at the jump: such a call is a missed one.
    wants_result = RESULT in plan.natives[program].reads
    kept = [item for item in found if item.flow == Flow.RETURN or not wants_result]
    return [*hooks, *(Located(exit_number, item.address, located.mapping) for item in kept)]


def _arrange_exit(located: Located, found: SitePlan, image: Image, plan: Plan, result: Arrangement) -> None:
    from kprobes.arch.x86_64.decode import Flow
    from kprobes.arch.x86_64.liveness import dead_at

    if found.patch is None:
        name = plan.sites[located.number - len(plan.sites)].name
        raise UnprobeableError(name, f"its exit at {located.address:#x}: {found.reason}", hint=RETURN_HINT)
    numbers = result.sites.setdefault(found.address, [])
    if located.number not in numbers:
        numbers.append(located.number)
    function = image.function(found.address)
    item = function.instructions[function.index[found.address]] if function else None
    branches = item is not None and item.flow == Flow.BRANCH
    if branches:
        result.taken.add(found.address)
    if found.address not in result.live:
        flags = branches or not dead_at(image, found.address, flags_only=True).flags
        result.live[found.address] = Live(flags=flags, red_zone=branches)


def programs_of(plan: Plan) -> list[int | None]:
    """Return by the number of a site what runs there (COUNT_ONLY: it is counted), None for nothing; then the same for
    the exits of each site's function."""
    found: list[int | None] = [None] * (2 * len(plan.sites))
    for attachment in plan.attachments:
        program = attachment.program
        shift = 0 if program == COUNT_ONLY or plan.natives[program].part == "entry" else len(plan.sites)
        for site in attachment.sites:
            found[site + shift] = program
    return found


def _way(found: SitePlan) -> str:
    return {
        "jump": Way.JUMP,
        "call": Way.JUMP_CALL,
        "block": Way.JUMP_BLOCK,
        "pun": Way.JUMP_PUNNED,
        "island": Way.JUMP_ISLAND,
        "eviction": Way.JUMP_EVICTION,
        "breakpoint": Way.BREAKPOINT,
    }[found.tactic]


def _extents(plan: Plan, group: Sequence[Located], known: CodeObject | None) -> list[tuple[int, int]]:
    """Return the functions of the mapping that are known, as addresses: the object's, or those of the sites."""
    mapping = group[0].mapping
    shift = mapping.start - mapping.offset
    if known is not None:
        extents = [(start + shift, end + shift) for start, end in known.functions]
        return [extent for extent in extents if mapping.start <= extent[0] < mapping.end]
    found = set()
    for located in group:
        site = plan.sites[located.number]
        start = located.address - site.offset
        if site.size:
            found.add((start, start + site.size))
    return sorted(extent for extent in found if mapping.start <= extent[0] < mapping.end)


def _entries(mapping: Mapping, known: CodeObject | None) -> list[int]:
    if known is None:
        return []
    addresses = (entry + mapping.start - mapping.offset for entry in known.entries)
    return [address for address in addresses if mapping.start <= address < mapping.end]
