"""From the plan's sites to patches and the detours they lead to: everything that is decided before the target stops.

Sites come as file offsets. An object that is mapped several times (two linker namespaces) is armed in each place.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kprobes.engines.process.hooks import fault_programs_of, hooks_of, programs_of
from kprobes.engines.process.stubs import Live
from kprobes.errors import UnprobeableError
from kprobes.frozen import dataclass as frozen_dataclass
from kprobes.model.plan import Way

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence, Set

    from kprobes.arch.x86_64.image import Image
    from kprobes.arch.x86_64.patch import Patch as Jump
    from kprobes.arch.x86_64.sites import SitePlan
    from kprobes.engines.process.hooks import Hook
    from kprobes.engines.process.memory import ProcessMemory, Room
    from kprobes.engines.process.procfs import Mapping
    from kprobes.model.plan import CodeObject, Plan, Site


STAYS = "it may fault, and a jump would move its neighbours with it"
NO_ROOM = "no free memory where its jump leads"
ON_FAULTS = "the hand lets it run when the instruction faults"
CLOSELY = 500  # sites, at some 0.1 ms each


@dataclass(frozen=True, slots=True)
class Located:
    """Site number *number* of the plan at *address* of the target."""

    number: int
    address: int
    mapping: Mapping


@frozen_dataclass(frozen=True, slots=True)
class Armed:
    """How site *number* is armed: the *way* of `model.plan.Way` and *why*; *address* may lie behind an ENDBR64."""

    number: int
    address: int
    way: str
    why: str


@dataclass(frozen=True, slots=True)
class Faulting:
    """The instruction *code* and the numbers of the *sites* whose handlers run when it faults."""

    code: bytes
    sites: tuple[int, ...]


@dataclass(slots=True)
class Arrangement:
    """Every jump to be placed; by address the sites there, in the order of the plan, and what must be kept there.

    A number of *sites* from the plan's number of sites on stands for an exit of site number - that; `behind` are the
    numbers of what runs after the instruction. `taken` are the addresses of conditional jumps that are exits only where
    they are taken. `faults` are the instructions with handlers for their faults, by their addresses. *closely*: it pays
    to find out which registers are dead at each site. *omits*: instructions may be left out, so that nothing can be
    told dead by what comes after. `counters` are the sites that want a reference counter to be one more, by the
    site's address and the counter's.
    """

    jumps: list[Jump] = field(default_factory=list)
    armed: list[Armed] = field(default_factory=list)
    sites: dict[int, list[int]] = field(default_factory=dict)
    live: dict[int, Live] = field(default_factory=dict)
    behind: dict[int, list[int]] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    closely: bool = False
    omits: bool = False
    exact: bool = False
    crowded: Set[int] = frozenset()
    faults: dict[int, Faulting] = field(default_factory=dict)
    counters: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def bodies(self) -> dict[int, list[int]]:
        """Return by address what runs there, in as many copies as there may be."""
        found = dict(self.sites)
        for address, numbers in self.behind.items():
            found[address] = [*found.get(address, ()), *numbers, *numbers]
        return found


class Objects:
    """The executable mappings of the target by the file they show."""

    def __init__(self, pid: int, mappings: Sequence[Mapping]) -> None:
        self._pid = pid
        self._code = [mapping for mapping in mappings if mapping.executable]
        self._data = [one for one in mappings if one.permissions[1] == "w" and not one.shared and one.inode]
        self._found: dict[str, list[Mapping]] = {}
        self.images: dict[int, Image] = {}  # by the mapping's start: what `arrange` has decoded, for its next rounds

    def mappings_of(self, path: str) -> list[Mapping]:
        """Return the executable mappings of *path*, which is spelt as the target sees it, or any name of the file."""
        if path not in self._found:
            # Some file systems (btrfs, overlays) give the mapping another device than the file: names come first.
            named = path.removeprefix(f"/proc/{self._pid}/root")
            found = [mapping for mapping in self._code if mapping.path == named]
            self._found[path] = found or self._by_inode(path)
        return self._found[path]

    def _by_inode(self, path: str) -> list[Mapping]:
        try:
            seen = os.stat(f"/proc/{self._pid}/root{path}")  # noqa: PTH116
        except OSError:
            return []
        device = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}"
        return [mapping for mapping in self._code if (mapping.inode, mapping.device) == (seen.st_ino, device)]

    def is_mapped(self, site: Site) -> bool:
        """Tell whether the code of *site* is there."""
        try:
            return bool(self.locate(0, site))
        except UnprobeableError:
            return False

    def counter_of(self, located: Located, site: Site) -> int:
        """Return where the reference counter of *site* is that belongs to the code at *located*: in the file's private,
        writable memory, as the kernel looks for it.

        Raises:
            UnprobeableError: it isn't there.
        """
        code, at = located.mapping, site.counter
        found = [
            one
            for one in self._data
            if (one.inode, one.device, one.path) == (code.inode, code.device, code.path)
            if one.offset <= at and at + 2 <= one.offset + one.end - one.start
        ]
        if not found or at % 2:
            why = "lies at an odd offset" if at % 2 else "is not in writable memory of the file"
            raise UnprobeableError(site.name, f"its reference counter, {at:#x}, {why}")
        nearest = min(found, key=lambda one: abs(one.start - code.start))  # the file may be mapped several times
        return nearest.start + at - nearest.offset

    def locate(self, number: int, site: Site) -> list[Located]:
        """Return where *site* is in the target.

        Raises:
            UnprobeableError: nothing of the file is mapped, or no code at that offset.
        """
        at = site.address + site.offset
        if not site.path:
            found = [one for one in self._code if one.start <= at < one.end]
            places = [(one, at) for one in found]
        else:
            mappings = self.mappings_of(site.path)
            if not mappings:
                raise UnprobeableError(site.name, f"{site.path} is not mapped in process {self._pid}")
            places = [
                (one, one.start + at - one.offset)
                for one in mappings
                if one.offset <= at < one.offset + one.end - one.start
            ]
        if not places:
            raise UnprobeableError(site.name, "there is no executable code")
        return [Located(number, address, one) for one, address in places]


def arrange(
    plan: Plan,
    wanted: Iterable[int],
    objects: Objects,
    memory: ProcessMemory,
    rooms: Sequence[Room],
    *,
    crowded: Set[int] = frozenset(),
    exact: bool = False,
) -> Arrangement:
    """Plan the sites numbered *wanted*; *rooms* are where detours may go.

    Jumps from the addresses *crowded* have been found to lead where there is no room: a site of a glob is left out
    then, any other gets a breakpoint there. *exact*: no instruction that may fault moves together with others.

    Raises:
        UnprobeableError: a site can't be armed; the reason is the first one's.
    """
    by_mapping: dict[int, list[Located]] = {}
    for number in wanted:
        for located in objects.locate(number, plan.sites[number]):
            by_mapping.setdefault(located.mapping.start, []).append(located)
    result = Arrangement(crowded=crowded, exact=exact, closely=bool(plan.natives) and len(plan.sites) <= CLOSELY)
    result.omits = any(program.omits for program in plan.natives)
    known = {code.path: code for code in plan.objects}
    ranges = tuple(range(room.start, room.end) for room in rooms)
    for group in by_mapping.values():
        image = objects.images.get(group[0].mapping.start)
        if image is None:
            image = image_of(plan, group, memory, known.get(plan.sites[group[0].number].path))
            objects.images[group[0].mapping.start] = image
        _arrange_mapping(plan, group, image, ranges, result)
        for located in group:
            if plan.sites[located.number].counter:
                counter = objects.counter_of(located, plan.sites[located.number])
                result.counters.setdefault((located.address, counter), []).append(located.number)
    return result


def image_of(plan: Plan, group: Sequence[Located], memory: ProcessMemory, known: CodeObject | None) -> Image:
    """Return the code of the mapping that the sites of *group* lie in; *known* is what its file tells."""
    from kprobes.arch.x86_64.image import Image
    from kprobes.model.branches import unpack_branches

    mapping = group[0].mapping
    code = memory.read(mapping.start, mapping.end - mapping.start)
    return Image(
        mapping.start,
        code,
        _extents(plan, group, known),
        entries=_entries(mapping, known),
        read=memory.read_some,
        targets=unpack_branches(known.branches, code, mapping.offset, mapping.start) if known else None,
    )


def _arrange_mapping(
    plan: Plan, group: Sequence[Located], image: Image, rooms: tuple[range, ...], result: Arrangement
) -> None:
    from kprobes.arch.x86_64.patch import IN_PROCESS, Tactic
    from kprobes.arch.x86_64.sites import plan_sites

    forced = all(plan.probes[plan.sites[located.number].probe].ways == (Way.BREAKPOINT,) for located in group)
    # A moved call's return address is on the stack already: it would stay there if the call were left out.
    exclude = frozenset(IN_PROCESS if forced else (Tactic.CALL,) if result.omits else ())
    programs = programs_of(plan)
    group = _without_faults(plan, group, image, result)
    by_site: dict[int, list[Hook]] = {}
    for located in group:
        try:
            by_site[located.number] = hooks_of(plan, programs, located.number, located.address, image)
        except UnprobeableError as error:
            _leave_out(plan, located, error.reason, result)
    addresses = [hook.address for one in by_site.values() for hook in one]
    plans = plan_sites(image, addresses, room=rooms, exclude=exclude)
    if result.exact:
        stay = frozenset[int]()
        while inexact := frozenset(address for address in addresses if not _is_exact(plans[address])) - stay:
            stay |= inexact
            plans = plan_sites(image, addresses, room=rooms, exclude=exclude, stay=stay)
        plans |= {address: replace(plans[address], reason=STAYS) for address in stay if plans[address].patch}
    jumps: dict[int, Jump] = {}
    for located in group:
        _make_way(plan, located, by_site.get(located.number, []), plans, (image, rooms, result))
        hooks = by_site.get(located.number, [])
        refused = next((plans[hook.address] for hook in hooks if plans[hook.address].patch is None), None)
        if refused is not None:
            where = "" if refused.address == located.address else f"its exit at {refused.address:#x}: "
            _leave_out(plan, located, where + refused.reason, result, refused.error)
            continue
        refusal = _refusal_behind(hooks, plans)
        if refusal:
            _leave_out(plan, located, refusal, result, "EOPNOTSUPP")
            continue
        for hook in hooks:
            found = plans[hook.address]
            if found.patch is not None:
                jumps[found.patch.at] = found.patch
            _hang(hook, found.address, image, bool(plan.sites[hook.site].offset), result)
        if hooks:
            result.armed.append(_told(located, [plans[hook.address] for hook in hooks], hooks[0].is_exit))
    result.jumps += jumps.values()


def _without_faults(plan: Plan, group: Sequence[Located], image: Image, result: Arrangement) -> list[Located]:
    """Note the sites whose handlers run on a fault, for which no code changes; return the others."""
    faulting = fault_programs_of(plan)
    for located in group:
        if located.number not in faulting:
            continue
        from kprobes.arch.x86_64.sites import behind_endbr, misplaced
        from kprobes.arch.x86_64.tactics import instruction_at

        address = behind_endbr(image, located.address)
        refusal, error = misplaced(image, address)
        if refusal:
            _leave_out(plan, located, refusal, result, error)
            continue
        known = result.faults.get(address, Faulting(instruction_at(image, address).code, ()))
        result.faults[address] = replace(known, sites=(*known.sites, located.number))
        result.armed.append(Armed(located.number, address, Way.FAULT, ON_FAULTS))
    return [located for located in group if located.number not in faulting]


def _is_exact(found: SitePlan) -> bool:
    from kprobes.arch.x86_64.faulting import is_exact

    return found.patch is None or is_exact(found.patch)


def _refusal_behind(hooks: Sequence[Hook], plans: dict[int, SitePlan]) -> str:
    """Return why what is to run behind an instruction can't."""
    for hook in hooks:
        patch = plans[hook.address].patch
        if hook.after and patch is not None:
            from kprobes.arch.x86_64.behind import refusal_behind

            return refusal_behind(patch.instruction_at(plans[hook.address].address))
    return ""


def _make_way(
    plan: Plan,
    located: Located,
    hooks: Sequence[Hook],
    plans: dict[int, SitePlan],
    around: tuple[Image, tuple[range, ...], Arrangement],
) -> None:
    """Give the hooks that stand where it is crowded another plan."""
    from kprobes.arch.x86_64.patch import IN_PROCESS
    from kprobes.arch.x86_64.sites import SitePlan, plan_site

    image, rooms, result = around
    for hook in hooks:
        found = plans[hook.address]
        if found.address not in result.crowded:
            continue
        if plan.probes[plan.sites[located.number].probe].is_glob:
            plans[hook.address] = SitePlan(found.address, "", NO_ROOM)
        elif found.tactic != "breakpoint":
            plans[hook.address] = plan_site(image, hook.address, room=rooms, exclude=frozenset(IN_PROCESS))


def _leave_out(plan: Plan, located: Located, reason: str, result: Arrangement, error: str = "") -> None:
    """Leave a site of a glob out; one that was asked for by name is an error, *error* the kernel's name of it."""
    site = plan.sites[located.number]
    if not plan.probes[site.probe].is_glob:
        raise UnprobeableError(site.name, reason, number=getattr(errno, error, 0))
    result.armed.append(Armed(located.number, located.address, "", reason))


def _hang(hook: Hook, address: int, image: Image, inside: bool, result: Arrangement) -> None:
    """Note that *hook* runs at *address* (behind an ENDBR64), which lies *inside* of a function or begins it."""
    numbers = (result.behind if hook.after else result.sites).setdefault(address, [])
    if hook.number not in numbers:
        numbers.append(hook.number)
    if hook.after:  # its handler reads what the instruction left, whether the program does or not
        result.live[address] = Live(red_zone=inside)
        return
    if hook.conditional:
        result.taken.add(address)
    # Nothing below the stack pointer is in use at a function's entry, and none of its own any more at an exit.
    red_zone = hook.conditional if hook.is_exit else inside
    known = Live(red_zone=inside) if address in result.behind else result.live.get(address)
    if known is None:
        found = _live(hook, address, image, red_zone=red_zone, inside=inside, closely=result.closely)
        result.live[address] = replace(found, flags=True, dead=frozenset()) if result.omits else found
    elif (red_zone, hook.conditional) > (known.red_zone, known.flags):
        flags = known.flags or hook.conditional
        result.live[address] = replace(known, flags=flags, red_zone=known.red_zone or red_zone)


def _live(hook: Hook, address: int, image: Image, *, red_zone: bool, inside: bool, closely: bool) -> Live:
    from kprobes.arch.x86_64.liveness import dead_at, may_set_direction

    dead = dead_at(image, address, flags_only=not closely)
    # The ABI wants the direction flag clear where a function begins and where it is left.
    direction = inside and not hook.is_exit
    if direction and closely:
        function = image.function(address)
        direction = function is None or may_set_direction(function)
    return Live(flags=hook.conditional or not dead.flags, red_zone=red_zone, direction=direction, dead=dead.registers)


def _told(located: Located, plans: Sequence[SitePlan], by_exits: bool) -> Armed:
    """Return how a site is armed: as its entry is, or as the first of its exits that is a breakpoint."""
    first = plans[0]
    told = next((one for one in plans if one.tactic == "breakpoint"), first)
    exits = plans if by_exits else plans[1:]
    why = told.reason if told is first and not by_exits else f"its exit at {told.address:#x}: {told.reason}"
    if exits and told.tactic != "breakpoint":
        why += f"; {len(exits)} exit{'s' if len(exits) > 1 else ''} by jumps"
    return Armed(located.number, located.address if by_exits else first.address, _way(told), why)


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
