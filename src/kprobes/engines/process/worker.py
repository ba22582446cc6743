"""The work on one target: attach and detach as transactions. It runs in the hand (see `hand.py`).

Attach: read and plan while the target runs; stop it and map our memory; write the detours while it runs; stop it again,
move threads out of the way, write the jumps, let go. Everything that can fail comes before the first jump is written.
Detach: stop, restore the code, let go; once no thread is in a detour any more, unmap our memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.area import Area
from kprobes.engines.process.arming import Armed
from kprobes.engines.process.coming import Coming
from kprobes.engines.process.detours import merged_pages
from kprobes.engines.process.ground import Ground
from kprobes.engines.process.handlers import Handlers
from kprobes.engines.process.layout import SharedLayout, layout_for
from kprobes.engines.process.listing import format_listing, rows_of
from kprobes.engines.process.memory import HIGHEST, LOWEST, PAGE, Room, find_room, free_rooms
from kprobes.engines.process.muting import Resting
from kprobes.engines.process.registry import MAX_AREAS, Identity
from kprobes.engines.process.release import restore, wait_until_left
from kprobes.engines.process.siting import MARGINS, Siting
from kprobes.errors import InternalError, SyscallError, TargetError, UnsupportedError
from kprobes.model.inherited import Inherited

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.engines.process.arming import Arrangement, Objects
    from kprobes.engines.process.breakpoints import Breakpoints
    from kprobes.engines.process.registry import Patch
    from kprobes.engines.process.siting import Settled
    from kprobes.model.listed import Listed
    from kprobes.model.plan import Plan

TRIES = 10
JOURNAL_EACH = 3  # writes of one jump, at most
LATE_JUMPS = 8  # of a site whose object is yet to come: it may be mapped several times, and has exits


@dataclass(slots=True)
class Outcome:
    """What an attach brought: how each site is armed, and for how long the target stood still, milliseconds."""

    armed: list[Armed] = field(default_factory=list)
    pauses_ms: list[float] = field(default_factory=list)
    mode: str = ""
    layout: SharedLayout = field(default_factory=lambda: SharedLayout(0, 0))


@dataclass(frozen=True, slots=True)
class _Found:
    """What is to be armed: the sites numbered *wanted*, and how; and our memory, which is mapped."""

    wanted: list[int]
    objects: Objects
    arrangement: Arrangement
    settled: Settled
    area: Area


class Worker:
    """Attaches *plan* to the process *target* and detaches it; *owner* is the controller.

    *held* is the only thread of a program that has just been started: it stays stopped until it is attached. *ended*
    is told the wait status of what ends while breakpoints are served. *exact_faults*: threads stay traced, so that a
    fault of an instruction's copy is told as one of the instruction itself. *before* is the worker in whose place this
    one's plan is put, with what is *inherited*.

    Raises:
        SyscallError: the memory of the process can't be opened.
    """

    def __init__(
        self,
        target: Identity,
        plan: Plan,
        owner: Identity,
        *,
        held: int = 0,
        ended: Callable[[int, int], None] = lambda _tid, _status: None,
        exact_faults: bool = False,
        before: Worker | None = None,
        inherited: Inherited | None = None,
    ) -> None:
        old = before.ground if before else None
        self.ground: Ground = Ground(target, plan, owner, held=held, ended=ended, exact_faults=exact_faults, before=old)
        self._before = before
        self._inherited = inherited or Inherited()
        self.plan = plan
        self.outcome = Outcome()
        self._siting = Siting(target.pid, plan, self.ground.memory, exact=self.ground.exact_faults)
        self._resting = Resting()
        self._coming = Coming(self.ground, self._siting, self._resting)
        self._pending = self._coming.pending

    @property
    def area(self) -> Area:
        """Return our memory in the target."""
        return self.ground.area

    @property
    def breakpoints(self) -> Breakpoints | None:
        """Return what serves breakpoints, if there are any."""
        return self.ground.breakpoints

    @property
    def armed(self) -> list[Armed]:
        """Return how each site is armed now."""
        return self._coming.armed

    def attach(self) -> Outcome:
        """Put every site in place.

        Raises:
            UnprobeableError, UnsupportedError, TargetError, SyscallError: nothing has changed then.
        """
        for tries_left in reversed(range(TRIES)):
            found = self._find_place()
            try:
                self._set_up(found)
                break
            except BaseException as error:
                with contextlib.suppress(TargetError, SyscallError):
                    self.ground.unmap(found.area)
                if not (tries_left and isinstance(error, TargetError) and self._has_gone(found)):
                    raise
                found.area.close()
                self.ground.forget()
        self.ground.attached = True
        self._coming.note_armed(found.wanted, found.objects, self.ground.detours.patches)
        self.outcome.armed = self._coming.armed = found.arrangement.armed
        self.outcome.mode = self.ground.threads_known.mode
        self.outcome.layout = found.area.layout
        self.outcome.pauses_ms = self.ground.stops.pauses_ms
        self.ground.stops.run()
        if self._before is not None:
            self._before._leave(self.ground)
            self._before = None
        return self.outcome

    def _leave(self, successor: Ground) -> None:
        """Free what nothing leads to any more."""
        old = self.ground
        old.attached = False
        if old.breakpoints is not None:
            old.breakpoints.send_on_strangers()
            old.breakpoints = None
        with contextlib.suppress(TargetError, SyscallError):
            old.unmap(old.area)
        successor.stops.take_lingering(old.stops)
        old.close()

    def _set_up(self, found: _Found) -> None:
        """Write all that was *found* to be needed, and the jumps in the end."""
        ground = self.ground
        ground.place_handlers()
        ground.build(found.arrangement, found.settled)
        if self._pending.all:
            self._coming.watch_loader()
        resting = self._inherited.resting
        if resting:
            self._resting.change(resting, enabled=False)
            ground.detours.patches = self._resting.without(ground.detours.groups, ground.detours.patches)
            self._resting.mute(ground.stops, ground.detours.groups)
        ground.write_registry()
        if self._before is None:
            ground.arm(ground.detours.patches)
            return
        from kprobes.engines.process.handover import hand_over  # few sessions ever need it

        hand_over(self._before.ground, ground, self._inherited)
        if ground.on_fault is not None:
            ground.on_fault.disabled = self._resting.sites

    def _has_gone(self, found: _Found) -> bool:
        """Tell whether an object that may come and go has gone since it was *found*."""
        now, located = self._siting.objects(self.ground.stops.mappings()), self._siting.located
        wanted = self._pending.all & set(found.wanted)
        return any(located(found.objects, {number}) != located(now, {number}) for number in wanted)

    def _find_place(self) -> _Found:
        """Plan the sites whose code is there, and map our memory.

        The target runs while its memory is looked at: if it maps something of its own where ours is to be, all is
        planned again.
        """
        mappings = self.ground.clean_mappings()
        for margin in MARGINS:
            objects = self._siting.objects(mappings)
            absent = {number for number in self._pending.all if not objects.is_mapped(self.plan.sites[number])}
            wanted = [number for number in range(len(self.plan.sites)) if number not in absent]
            rooms = free_rooms(mappings, margin=margin)
            size = Handlers(self.plan.natives, {}, "").size
            try:
                arrangement, settled = self._siting.settle(wanted, mappings, rooms, size)
            except TargetError:
                if not self._pending.all or margin == MARGINS[-1]:
                    raise
                mappings = self.ground.stops.mappings()  # an object has gone while its code was looked at
                continue
            jumps = sum(len(area_jumps) for _, area_jumps in settled) + LATE_JUMPS * len(self._pending.all)
            area = Area(layout_for(self.plan, JOURNAL_EACH * jumps + len(arrangement.counters) + MAX_AREAS))
            try:
                pages = merged_pages([code for code, _ in settled]) or [_any_page(rooms)]
                self.ground.map(area, pages)
            except SyscallError as error:
                if error.errno != errno.EEXIST or margin == MARGINS[-1]:
                    raise
                mappings = self.ground.stops.mappings()
            else:
                return _Found(wanted, objects, arrangement, settled, area)
        raise InternalError("no place was tried")

    def set_enabled(self, sites: frozenset[int], enabled: bool) -> None:
        """Put the jumps of *sites* in place, or take them away; their counters and detours stay. A jump that serves
        others too stays, and its detour leaves *sites* out.

        Raises:
            TargetError, UnsafeSiteError: a thread is in the way, and doesn't go on, or the code isn't what it was.
        """
        rested = self._resting.sites & sites
        self._resting.change(sites, enabled=enabled)
        if self.ground.on_fault is not None:
            self.ground.on_fault.disabled = self._resting.sites
        groups = [group for group in self.ground.detours.groups if group.sites & sites]
        there = {id(patch) for patch in (*self.ground.detours.patches, *(self._pending.dormant() if enabled else ()))}
        changing = [group for group in groups if enabled or group.sites <= self._resting.sites]
        patches = [patch for group in changing for patch in group.patches if (id(patch) in there) != enabled]
        if not enabled and patches:
            restore(self.ground.stops, patches, self.ground.detours.resume, let_go=False)
            changed = {id(patch) for patch in patches}
            self.ground.detours.patches = [patch for patch in self.ground.detours.patches if id(patch) not in changed]
            self.ground.write_registry()
        self._resting.mute(self.ground.stops, self.ground.detours.groups)
        if enabled and patches:
            self._arm_again(patches, rested)
        if not enabled and groups:
            wait_until_left(self.ground.stops, self.ground.area.code)
        self._write_listing()

    def _arm_again(self, patches: Sequence[Patch], rested: frozenset[int]) -> None:
        """Write *patches* of sites that *rested*, which go on resting where that fails."""
        ground = self.ground
        before = list(ground.detours.patches)
        ground.detours.patches += patches
        ground.write_registry()  # before they are written: whoever cleans up must know of each
        try:
            ground.arm(patches)
        except BaseException:
            ground.detours.patches = before
            ground.write_registry()
            self._resting.change(rested, enabled=False)
            if ground.on_fault is not None:
                ground.on_fault.disabled = self._resting.sites
            self._resting.mute(ground.stops, ground.detours.groups)
            raise

    def detach(self) -> list[Patch]:
        """Restore the code and free the memory; return the patches that somebody else has changed since."""
        if not self.ground.attached:
            return []
        left = restore(self.ground.stops, self.ground.detours.patches, self.ground.detours.resume)
        self.ground.attached = False
        if self.breakpoints is not None:
            self.breakpoints.send_on_strangers()
            self.ground.breakpoints = None
        self.ground.unmap(self.area)
        self.area.close()
        return left

    def idle(self) -> bool:
        """Serve breakpoints, let go of threads that could not be before; tell whether to be called again soon."""
        more = self.breakpoints is not None and self.breakpoints.serve()
        if self.ground.listing_is_old and self.ground.attached:
            self._write_listing()
        called = self.breakpoints is not None and self.breakpoints.loader_called
        if self.breakpoints is not None:
            self.breakpoints.loader_called = False
        if self.ground.attached and (self._pending.is_due() or called):
            self._coming.look_again()
        return not self.ground.stops.reap() or more

    def listed(self) -> list[Listed]:
        """Return what is armed now, and how, one entry a site."""
        in_place = {id(patch) for patch in self.ground.detours.patches}
        off: set[int] = set()
        for group in self.ground.detours.groups:
            if any(id(patch) not in in_place for patch in group.patches):
                off |= group.sites
        off |= self._resting.sites
        return rows_of(self.plan, self.armed, off, self._pending.waiting)

    def _write_listing(self) -> None:
        self.ground.listing_is_old = False
        area = self.ground.area
        content = format_listing(self.listed(), area.layout.listing_size)
        area.shared[area.layout.listing_at : area.layout.listing_at + len(content)] = content

    @property
    def looks_again(self) -> bool:
        """Tell whether objects are waited for, so that `idle` wants to be called every now and then."""
        return self.ground.attached and bool(self._pending.all)

    def close(self) -> None:
        """Close what the worker holds; the target stays as it is."""
        self.ground.close()


def _any_page(rooms: Sequence[Room]) -> tuple[int, int]:
    """Return a free page, for a session that has no detour yet."""
    found = find_room(rooms, Room(LOWEST, HIGHEST), PAGE)
    if found is None:
        raise UnsupportedError("there is no free memory in the process")
    return found, PAGE


def myself() -> Identity:
    """Return the identity of this process."""
    return Identity(os.getpid(), procfs.read_start_time(os.getpid()))
