"""One plan in place of another, without a moment at which neither is there.

The new plan is made ready beside the old one: its memory is mapped, its detours are written. Then the target stands
still once: counters and maps go over, the old jumps give way to the new ones, and threads that are between a handler
and the instruction go on in the new detours, so that each hit is seen by one of the two, and by one only. A thread that
is inside of a handler runs on alone until it is out of it: nothing can be added to the old maps after that.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from kprobes.engines.process.layout import CLAIM_COUNTER, OWNER_TABLE_SIZE
from kprobes.engines.process.owners import give_blocks
from kprobes.engines.process.patch import Place, Resume, move_threads, places, ways_back, ways_out, write_patches
from kprobes.engines.process.release import Patience
from kprobes.errors import TargetError, UnsafeSiteError
from kprobes.model.layout import SITE_COUNTERS, align_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kprobes.engines.process.area import Area
    from kprobes.engines.process.ground import Ground
    from kprobes.engines.process.threads import StoppedThreads
    from kprobes.model.inherited import Inherited
    from kprobes.model.plan import Plan

ROUNDS = 40  # in each of which half of those that are in a handler leave it
PIECE = 1 << 20


def hand_over(old: Ground, new: Ground, inherited: Inherited) -> None:
    """Put the jumps of *new* in the place of those of *old*.

    Raises:
        TargetError: a thread is in the way and doesn't go on, or the code isn't what it was; *old* is in place then.
    """
    patience = Patience()
    while True:
        with new.stops.stopped() as threads:
            if not old.stops.is_ours(new.stops.mappings()):
                raise TargetError(f"process {new.target.pid} runs another program now")
            way, inside = _ways_over(threads, old, new)
            for _ in range(ROUNDS):
                if way is not None:
                    break
                threads.let_pass({place.tid for place in inside} & threads.registers.keys())
                way, inside = _ways_over(threads, old, new)
            if way is not None:
                give_blocks(threads, new.memory, new.area)
                _bequeath(old, new, inherited)
                _exchange(threads, old, new, way)
                return
            if patience.is_over(threads, inside):
                why = f"a thread of process {new.target.pid} stands in a probe and doesn't go on"
                raise TargetError(why, hint="try again", number=errno.EBUSY)
        patience.rest()


def _exchange(threads: StoppedThreads, old: Ground, new: Ground, way: Mapping[Place, Resume]) -> None:
    memory, hidden = new.memory, new.memory.hidden
    memory.hidden = ()
    changed = write_patches(memory, old.detours.patches[::-1], undo=True)
    try:
        write_patches(memory, new.detours.patches, check_only=True)
    except TargetError:
        write_patches(memory, [patch for patch in old.detours.patches if patch not in changed])
        memory.hidden = hidden
        raise
    move_threads(threads, memory, way)
    if old.breakpoints is not None:
        new.stops.set_free(threads)
    new.keep_for_breakpoints(threads)
    write_patches(memory, new.detours.patches)
    old.detours.patches = []
    old.stops.kept = new.stops.kept


# Where threads go on.


def _ways_over(threads: StoppedThreads, old: Ground, new: Ground) -> tuple[dict[Place, Resume] | None, Sequence[Place]]:
    """Return where each place goes on instead; None, with those that are in the way, where that can't be said now."""
    standing = list(places(threads, new.memory, new.stops.mappings()))
    back = ways_back(threads, standing, old.detours.patches, old.detours.resume)
    if back is None:
        return None, standing
    inside = [place for place in standing if place not in back and _is_in(place.ip, old.area.code)]
    if inside:
        return None, inside
    found = {place: _way_over(place, to, old, new) for place, to in back.items()}
    inside = [place for place, to in found.items() if to.pop < 0 or (to.pop and place.stored_at)]
    try:
        rest = [place for place in standing if place not in back]
        found |= ways_out(threads, rest, new.detours.patches, new.detours.moves)
    except UnsafeSiteError:
        return None, rest
    return (None, inside) if inside else (found, inside)


def _is_in(address: int, pieces: Sequence[tuple[int, int]]) -> bool:
    return any(start <= address < start + size for start, size in pieces)


def _way_over(place: Place, to: Resume, old: Ground, new: Ground) -> Resume:
    """Return where *place* goes on that would go on at *to* if nothing were there. What has run before an instruction
    doesn't run again."""
    before, now = old.detours.copies.get(to.address), new.detours.copies.get(to.address)
    if now is None:
        return to
    if before is not None and before.body < before.instruction == place.first:
        return Resume(now.instruction, to.pop - now.pop)
    begins = any(patch.address == to.address for patch in new.detours.patches)
    return to if begins else Resume(now.body, to.pop - now.pop)


# What goes over.


def _bequeath(old: Ground, new: Ground, inherited: Inherited) -> None:
    _add_counts(old, new, inherited)
    layouts = {one.name: number for number, one in enumerate(old.plan.maps)}
    for number, layout in enumerate(new.plan.maps):
        before = next((a for a, b in inherited.maps if b == layout.name), "")
        if before not in layouts:
            continue
        if layout.kind == "frames":
            _copy_private(old, new, layouts[before], number)
        else:
            source, target = old.area.layout.region_at(layouts[before]), new.area.layout.region_at(number)
            _copy_shared(old.area, new.area, (source, target, old.area.layout.regions[layouts[before]]))


def _add_counts(old: Ground, new: Ground, inherited: Inherited) -> None:
    """Let the counts of sites go on, in the block that belongs to no thread."""
    before, now = old.area, new.area
    claimed = min(struct.unpack_from("<Q", before.shared, CLAIM_COUNTER)[0], before.layout.blocks)
    pairs = list(inherited.sites)
    if before.layout.sites > len(old.plan.sites) and now.layout.sites > len(new.plan.sites):
        pairs += [(len(old.plan.sites) + one, len(new.plan.sites) + other) for one, other in inherited.sites]
    for one, other in pairs:
        for kind in range(len(SITE_COUNTERS)):
            at = [
                before.layout.blocks_at + block * before.layout.stride + before.layout.counter(one, kind)
                for block in range(claimed)
            ]
            total = sum(struct.unpack_from("<Q", before.shared, place)[0] for place in at) & (1 << 64) - 1
            struct.pack_into("<Q", now.shared, now.layout.blocks_at + now.layout.counter(other, kind), total)


def _copy_shared(old: Area, new: Area, what: tuple[int, int, int]) -> None:
    """Copy *what*, (from, to, bytes), as far as anything has been written there."""
    source, target, size = what
    for begin, end in _written(old.file, source, source + size):
        new.shared[target + begin - source : target + end - source] = old.shared[begin:end]


def _written(file: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of *file* that have pages; the others hold zeros, as new ones do."""
    at = begin
    while at < end:
        try:
            first = os.lseek(file, at, os.SEEK_DATA)
        except OSError:  # nothing from there on
            return
        if first >= end:
            return
        at = min(os.lseek(file, first, os.SEEK_HOLE), end)
        yield max(first, begin), at


def _copy_private(old: Ground, new: Ground, before: int, now: int) -> None:
    """Copy the calls that are under way: memory that is the process's own."""
    size = old.plan.maps[before].value_size
    source, target = _private_at(old.plan, old.area, before), _private_at(new.plan, new.area, now)
    for place in range(0, size, PIECE):
        content = new.memory.read(source + place, min(PIECE, size - place))
        if any(content):
            new.memory.write(target + place, content)


def _private_at(plan: Plan, area: Area, number: int) -> int:
    """Return the address of the map *number* in the target (see `filling`)."""
    before = [align_up(one.value_size, 8) for one in plan.maps[:number] if one.kind == "frames"]
    return area.table + OWNER_TABLE_SIZE + sum(before)
