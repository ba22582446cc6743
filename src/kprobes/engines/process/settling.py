"""Where the detours stand.

Most may stand anywhere within 2 GiB of their code and lie side by side in one area; a punned jump leads to a small
window, and gets an area of its own unless an existing one reaches into the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.engines.process.detours import ALIGNMENT, CodeArea
from kprobes.engines.process.handlers import LONGEST_HANDLER
from kprobes.engines.process.memory import HIGHEST, LOWEST, PAGE, REACH, Room, find_room
from kprobes.engines.process.stubs import LONGEST_COUNT, ROUTINES_SIZE
from kprobes.errors import UnsupportedError
from kprobes.model.layout import align_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.arch.x86_64.patch import Patch as Jump

LONGEST_MOVED = 40  # bytes that one relocated instruction takes, at most
WIDE = 1 << 24  # a window at least this large counts as "anywhere near"
MOST_AREAS = 48  # the registry has room for so many, and some to spare


class CrowdedError(Exception):
    """There is no room for detours where some jumps lead; *addresses* are their sites."""

    def __init__(self, addresses: set[int]) -> None:
        super().__init__(f"{len(addresses)} places")
        self.addresses = addresses


def longest(jump: Jump, sites: dict[int, list[int]], *, handled: bool) -> int:
    """Return an upper bound of the bytes of the detour of *jump*; *handled*: it may call handlers."""
    probes = sum(len(sites.get(item.address, ())) for item in jump.instructions)
    each = LONGEST_HANDLER if handled else LONGEST_COUNT
    return align_up(8 + LONGEST_MOVED * len(jump.instructions) + each * probes, ALIGNMENT)


def moves_call(jump: Jump) -> bool:
    """Tell whether a call runs in the detour of *jump* that has pushed its return address by other means."""
    from kprobes.arch.x86_64.decode import CALLS

    last = jump.instructions[-1]
    return any(item.flow in CALLS and not (jump.pushed and item is last) for item in jump.instructions)


def with_victims(jumps: Sequence[Jump]) -> list[Jump]:
    """Return *jumps* and those that make room for them, each once."""
    found = {id(jump): jump for jump in jumps}
    for jump in jumps:
        if jump.victim is not None:
            found[id(jump.victim)] = jump.victim
    return list(found.values())


@dataclass(slots=True)
class _Group:
    """Jumps whose detours may lie in one place: anywhere in [*low*, *high*]."""

    low: int
    high: int
    jumps: list[Jump]


def settle(
    jumps: Sequence[Jump],
    sites: dict[int, list[int]],
    rooms: Sequence[Room],
    *,
    handlers_size: int = 0,
    always: bool = False,
) -> list[tuple[CodeArea, list[Jump]]]:
    """Decide where the detours of *jumps* stand: areas, each with its jumps; those with the routines come first.

    *handlers_size*: the bytes of all handlers' code, which stands in the first area; 0 where hits are only counted.
    *always*: there is such an area even where there is no jump.

    Raises:
        UnsupportedError: there is no free memory in reach of one.
        CrowdedError: there is none where some must lead, or too many lead to places of their own.
    """
    areas: list[tuple[CodeArea, list[Jump]]] = []
    free = list(rooms)
    windows = [(_window(jump), jump) for jump in jumps]
    wide = [jump for window, jump in windows if window >= WIDE]
    narrow = [jump for window, jump in sorted(windows, key=lambda one: one[0]) if window < WIDE]
    groups = _groups(wide, narrow)
    for group in groups or ([_Group(LOWEST, HIGHEST, [])] if always else []):
        detours = sum(longest(jump, sites, handled=bool(handlers_size)) for jump in group.jumps)
        size = align_up(ROUTINES_SIZE + (0 if areas else handlers_size) + detours, PAGE)
        start = find_room(free, Room(group.low, group.high + 1), size)
        if start is None:
            raise _no_room(group.jumps[0].at if group.jumps else group.low)
        areas.append((CodeArea(start, size), group.jumps))
        free = _without(free, start, start + size)
    crowded: set[int] = set()
    owners = {id(jump.victim): jump for jump in jumps if jump.victim is not None}
    for jump in narrow:
        size = longest(jump, sites, handled=bool(handlers_size))
        place = _place(free, reach_of(jump).start, reach_of(jump).end, size)
        if place is None or len(areas) >= MOST_AREAS:
            crowded.update(owners.get(id(jump), jump).sites)
            continue
        areas.append((CodeArea(place, size), [jump]))
        free = _without(free, place, place + size)
    if crowded:
        raise CrowdedError(crowded)
    return areas


def reach_of(jump: Jump) -> Room:
    """Return the addresses from `start` to `end`, both included, at which the detour of *jump* may begin.

    The detour jumps back, so it stands near the site also where nothing jumps to it (a breakpoint).
    """
    return Room(max(jump.reach.low, jump.at - REACH), min(jump.reach.high, jump.at + REACH))


def _window(jump: Jump) -> int:
    reach = reach_of(jump)
    return reach.end - reach.start


def _no_room(address: int) -> UnsupportedError:
    return UnsupportedError(
        f"no free memory for detours in reach of {address:#x}", hint="the program fills the addresses around its code"
    )


def _groups(wide: Sequence[Jump], narrow: Sequence[Jump]) -> list[_Group]:
    """Return groups for the *wide* jumps, and one for each *narrow* jump that none of them is near to."""
    groups: list[_Group] = []
    for jump in wide:
        reach = reach_of(jump)
        for group in groups:
            low, high = max(group.low, reach.start), min(group.high, reach.end)
            if high - low >= WIDE // 2:
                group.low, group.high = low, high
                group.jumps.append(jump)
                break
        else:
            groups.append(_Group(reach.start, reach.end, [jump]))
    for jump in narrow:
        low, high = reach_of(jump).end - REACH // 2, reach_of(jump).start + REACH // 2
        if not any(max(group.low, low) + WIDE <= min(group.high, high) for group in groups):
            groups.append(_Group(max(low, LOWEST), min(high, HIGHEST), []))
    return groups


def _place(rooms: Sequence[Room], low: int, high: int, size: int) -> int | None:
    """Return the lowest address from *low* to *high* with *size* free bytes, or None."""
    for room in rooms:
        place = max(room.start, low)
        if place <= high and place + size <= room.end:
            return place
    return None


def _without(rooms: Sequence[Room], start: int, end: int) -> list[Room]:
    result = []
    for room in rooms:
        if room.end <= start or end <= room.start:
            result.append(room)
            continue
        if room.start < start:
            result.append(Room(room.start, start))
        if end < room.end:
            result.append(Room(end, room.end))
    return result
