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
from kprobes.engines.process.area import Area, map_area, map_more_code
from kprobes.engines.process.arming import Armed
from kprobes.engines.process.breakpoints import Breakpoints
from kprobes.engines.process.detours import Builder, Detours, merged_pages
from kprobes.engines.process.faults import FaultHandlers
from kprobes.engines.process.filling import place_maps
from kprobes.engines.process.handlers import Handlers
from kprobes.engines.process.hooks import fault_programs_of, programs_of
from kprobes.engines.process.layout import SharedLayout, layout_for
from kprobes.engines.process.listing import format_listing, rows_of
from kprobes.engines.process.loader import find_rendezvous
from kprobes.engines.process.memory import HIGHEST, LOWEST, PAGE, ProcessMemory, Room, find_room, free_rooms
from kprobes.engines.process.muting import Resting
from kprobes.engines.process.owners import ThreadPointers, choose_mode, give_blocks
from kprobes.engines.process.patch import move_threads, places, ways_out, write_patches
from kprobes.engines.process.pending import LOOK_BESIDES_S, Pending
from kprobes.engines.process.registry import MAX_AREAS, Identity, Registry, format_journal, format_registry
from kprobes.engines.process.release import (
    VFORK_S,
    Patience,
    check_free,
    clean,
    free,
    free_if_left,
    leftovers,
    restore,
    wait_until_left,
)
from kprobes.engines.process.siting import MARGINS, Siting
from kprobes.engines.process.stops import Proof, Stops
from kprobes.engines.process.stubs import routines
from kprobes.engines.process.world import Clock
from kprobes.errors import InternalError, KprobesError, SyscallError, TargetError, UnsafeSiteError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kprobes.engines.process.arming import Arrangement, Objects
    from kprobes.engines.process.memory import Room
    from kprobes.engines.process.procfs import Mapping
    from kprobes.engines.process.registry import Patch
    from kprobes.engines.process.siting import Settled
    from kprobes.engines.process.threads import StoppedThreads
    from kprobes.model.listed import Listed
    from kprobes.model.plan import Plan

TRIES = 10
JOURNAL_EACH = 3  # writes of one jump, at most
LATE_JUMPS = 8  # of a site whose object is yet to come: it may be mapped several times, and has exits
PATIENCE_S = 0.3  # a controller that was killed dies within a moment


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
    fault of an instruction's copy is told as one of the instruction itself.

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
    ) -> None:
        self.target = target
        self.plan = plan
        self.owner = owner
        self.memory = ProcessMemory(procfs.live_thread(target.pid))
        self.stops = Stops(target, self.memory, held=held)
        self.area: Area | None = None
        self.detours = Detours()
        self.outcome = Outcome()
        self.attached = False
        self.breakpoints: Breakpoints | None = None
        self._ended = ended
        self._exact_faults = exact_faults or bool(fault_programs_of(plan))
        self._on_fault: FaultHandlers | None = None
        self._siting = Siting(target.pid, plan, self.memory, exact=self._exact_faults)
        self._listing_is_old = False
        self._rendezvous = 0
        self._resting = Resting()
        self._pending = Pending(n for n, site in enumerate(plan.sites) if plan.probes[site.probe].is_pending)
        # Made early: the longer a clock has measured when it is asked, the better.
        self._clock = Clock() if any(one.kind == "world" for one in plan.maps) else None

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
                    self._unmap(found.area)
                if not (tries_left and isinstance(error, TargetError) and self._has_gone(found)):
                    raise
                found.area.close()
                self.detours, self._rendezvous = Detours(), 0
        self.attached = True
        self._note_armed(found.wanted, found.objects, self.detours.patches)
        self.outcome.armed = found.arrangement.armed
        self.outcome.mode = self._threads_known.mode
        self.outcome.layout = found.area.layout
        self.outcome.pauses_ms = self.stops.pauses_ms
        self.stops.run()
        return self.outcome

    def _set_up(self, found: _Found) -> None:
        """Write all that was *found* to be needed, and the jumps in the end."""
        maps = place_maps(found.area, self.plan, self._clock, self.target.pid, self.stops.mappings())
        self._handlers = Handlers(self.plan.natives, maps, self._threads_known.mode)
        self._build(found.arrangement, found.settled)
        if self._pending.all:
            self._watch_loader()
        self._write_registry()
        self._arm(self.detours.patches)

    def _has_gone(self, found: _Found) -> bool:
        """Tell whether an object that may come and go has gone since it was *found*."""
        now, located = self._siting.objects(self.stops.mappings()), self._siting.located
        wanted = self._pending.all & set(found.wanted)
        return any(located(found.objects, {number}) != located(now, {number}) for number in wanted)

    def _find_place(self) -> _Found:
        """Plan the sites whose code is there, and map our memory.

        The target runs while its memory is looked at: if it maps something of its own where ours is to be, all is
        planned again.
        """
        mappings = self._clean_mappings()
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
                mappings = self.stops.mappings()  # an object has gone while its code was looked at
                continue
            jumps = sum(len(area_jumps) for _, area_jumps in settled) + LATE_JUMPS * len(self._pending.all)
            area = Area(layout_for(self.plan, JOURNAL_EACH * jumps + MAX_AREAS))
            try:
                pages = merged_pages([code for code, _ in settled]) or [_any_page(rooms)]
                self._threads_known = self._map(area, pages)
            except SyscallError as error:
                if error.errno != errno.EEXIST or margin == MARGINS[-1]:
                    raise
                mappings = self.stops.mappings()
            else:
                return _Found(wanted, objects, arrangement, settled, area)
        raise InternalError("no place was tried")

    def _build(self, arrangement: Arrangement, settled: Settled) -> list[Patch]:
        """Write the detours of *settled* areas, which are mapped, and add them to `detours`; return their patches."""
        area = self._area()
        found = Builder(
            arrangement,
            routines(area.layout, area.base, area.table, self._threads_known.tid_offset),
            self._handlers,
            area.layout.counter,
            self.memory.read,
            programs_of(self.plan),
            fault_programs_of(self.plan),
        ).build(settled)
        for code in found.areas:
            self.memory.write(code.start, bytes(code.content))
        self.detours.add(found)
        return found.patches

    def _area(self) -> Area:
        if self.area is None:
            raise TargetError("nothing is attached")
        return self.area

    def _note_armed(
        self,
        numbers: Iterable[int],
        objects: Objects,
        patches: Sequence[Patch],
        pieces: Sequence[tuple[int, int]] = (),
    ) -> None:
        located = self._siting.located(objects, self._pending.all & set(numbers))
        self._pending.note_armed(located, patches, pieces)

    def _clean_mappings(self) -> list[Mapping]:
        """Return the target's mappings, after undoing what a dead controller left behind."""
        mappings = self.stops.mappings()
        found = leftovers(self.memory, mappings)
        if not found:
            return mappings
        check_free(self.target, found, patience_s=PATIENCE_S)
        clean(self.target)
        return self.stops.mappings()

    def _map(self, area: Area, pages: Sequence[tuple[int, int]]) -> ThreadPointers:
        with self.stops.stopped() as threads:
            check_free(self.target, leftovers(self.memory, self.stops.mappings()))
            with self.stops.calls(threads) as (calls, tid):
                map_area(calls, tid, self.memory, area, pages)
            self.stops.proof = Proof(area.base, os.fstat(area.file).st_ino)
            self.area = area
            self._write_registry()  # while nobody else can look: whoever comes now sees that the process is ours
            bases = {one: values.fs_base for one, values in threads.registers.items()}
            return choose_mode(bases, self.memory, wiped=area.wiped)

    def _write_registry(self) -> None:
        area, patches = self._area(), self.detours.patches
        first, more = area.pieces[:MAX_AREAS], area.pieces[MAX_AREAS:]
        journal = format_journal(patches, more)
        if len(journal) > area.layout.blocks_at - area.layout.journal_at:
            raise UnsupportedError("too many probes in objects that come and go")
        entries = len(patches) + len(more)
        area.shared[area.layout.journal_at : area.layout.journal_at + len(journal)] = journal
        at = area.layout
        places = (at.journal_at, entries, at.listing_at, at.listing_size)
        page = format_registry(Registry(self.owner, self.target, tuple(first), *places))
        area.shared[: len(page)] = page
        self._listing_is_old = True

    def _arm(self, patches: Sequence[Patch]) -> None:
        patience = Patience(VFORK_S)
        while True:
            with self.stops.stopped() as threads:
                standing = list(places(threads, self.memory, self.stops.mappings()))
                try:
                    sends = ways_out(threads, standing, patches, self.detours.moves)
                except UnsafeSiteError:
                    if patience.is_over(threads):
                        raise
                else:
                    if not self.attached:
                        give_blocks(threads, self.memory, self._area())
                    write_patches(self.memory, patches, check_only=True)
                    move_threads(threads, self.memory, sends)
                    self._keep_for_breakpoints(threads)
                    write_patches(self.memory, patches)
                    return
            patience.rest()

    def _keep_for_breakpoints(self, threads: StoppedThreads) -> None:
        traps = self.detours.traps
        if traps or self._exact_faults:
            self.stops.keep(threads, traps, self.detours.resume)
            if not self.attached and fault_programs_of(self.plan):
                self._on_fault = FaultHandlers(self.detours, self.memory, self._area())
            threads.on_fault = self._on_fault
            alone = self.owner.pid != os.getpid()
            patches = self.detours.patches
            self.breakpoints = Breakpoints(
                threads, traps, patches, self._ended, alone=alone, rendezvous=self._rendezvous
            )

    def _watch_loader(self) -> None:
        """Put a breakpoint where the loader tells that objects come and go; look again and again where it can't be."""
        mappings = self.stops.mappings()
        shadow = procfs.read_status(self.target.pid, self.memory.pid).shadow_stack
        found = find_rendezvous(self.memory, procfs.read_auxiliary(self.memory.pid), mappings)
        if found is None or shadow or any(one.address <= found.address < one.end for one in self.detours.patches):
            return
        self._rendezvous = found.address
        self.detours.patches.append(found)
        self.detours.traps[found.address] = found.address
        self._pending.look_every_s = LOOK_BESIDES_S

    def set_enabled(self, sites: frozenset[int], enabled: bool) -> None:
        """Put the jumps of *sites* in place, or take them away; their counters and detours stay. A jump that serves
        others too stays, and its detour leaves *sites* out.

        Raises:
            TargetError: a thread is in the way, and doesn't go on.
        """
        self._resting.change(sites, enabled=enabled)
        if self._on_fault is not None:
            self._on_fault.disabled = self._resting.sites
        groups = [group for group in self.detours.groups if group.sites & sites]
        there = {id(patch) for patch in (*self.detours.patches, *(self._pending.dormant() if enabled else ()))}
        changing = [group for group in groups if enabled or group.sites <= self._resting.sites]
        patches = [patch for group in changing for patch in group.patches if (id(patch) in there) != enabled]
        if not enabled and patches:
            restore(self.stops, patches, self.detours.resume, let_go=False)
            changed = {id(patch) for patch in patches}
            self.detours.patches = [patch for patch in self.detours.patches if id(patch) not in changed]
            self._write_registry()
        self._resting.mute(self.stops, self.detours.groups)
        if enabled and patches:
            self.detours.patches += patches
            self._write_registry()
            self._arm(patches)
        if not enabled and groups:
            wait_until_left(self.stops, self._area().code)
        self._write_listing()

    def detach(self) -> list[Patch]:
        """Restore the code and free the memory; return the patches that somebody else has changed since."""
        if not self.attached or self.area is None:
            return []
        left = restore(self.stops, self.detours.patches, self.detours.resume)
        self.attached = False
        if self.breakpoints is not None:
            self.breakpoints.send_on_strangers()
            self.breakpoints = None
        self._unmap(self.area)
        self.area.close()
        return left

    def _unmap(self, area: Area) -> bool:
        """Unmap our memory once nobody is in it; tell whether that could be done."""
        others = [piece for piece in area.pieces if piece not in area.code]
        if area.base:
            others.append((area.base, area.layout.size))
        return free(self.stops, area.code, others)

    def idle(self) -> bool:
        """Serve breakpoints, let go of threads that could not be before; tell whether to be called again soon."""
        more = self.breakpoints is not None and self.breakpoints.serve()
        if self._listing_is_old and self.attached:
            self._write_listing()
        called = self.breakpoints is not None and self.breakpoints.loader_called
        if self.breakpoints is not None:
            self.breakpoints.loader_called = False
        if self.attached and (self._pending.is_due() or called):
            self._look_again()
        return not self.stops.reap() or more

    def listed(self) -> list[Listed]:
        """Return what is armed now, and how, one entry a site."""
        in_place = {id(patch) for patch in self.detours.patches}
        off: set[int] = set()
        for group in self.detours.groups:
            if any(id(patch) not in in_place for patch in group.patches):
                off |= group.sites
        off |= self._resting.sites
        return rows_of(self.plan, self.outcome.armed, off, self._pending.waiting)

    def _write_listing(self) -> None:
        self._listing_is_old = False
        area = self._area()
        content = format_listing(self.listed(), area.layout.listing_size)
        area.shared[area.layout.listing_at : area.layout.listing_at + len(content)] = content

    @property
    def looks_again(self) -> bool:
        """Tell whether objects are waited for, so that `idle` wants to be called every now and then."""
        return self.attached and bool(self._pending.all)

    def _look_again(self) -> None:
        """Arm the sites whose object has come, forget those whose object has gone."""
        import kprobes.arch.x86_64.sites  # noqa: F401 - in time: the thread that has the next object loaded waits

        mappings = self.stops.mappings()
        if not self.stops.is_ours(mappings):
            return
        there = {id(patch) for patch in self.detours.patches}
        gone = {id(patch) for patch in self._pending.take_gone(self.memory, mappings, there)}
        if gone:
            self.detours.patches = [patch for patch in self.detours.patches if id(patch) not in gone]
            self._write_registry()
        back = self._resting.without(self.detours.groups, self._pending.take_back(self.memory, mappings))
        if back:
            self.detours.patches += back
            self._write_registry()
            self._arm(back)
        self._forget_old_places()
        come = self._come(mappings)
        if come:
            try:
                self._arm_more(come, mappings)
            except (KprobesError, OSError) as error:
                self.outcome.armed += [Armed(n, 0, "", str(error)) for n in self._pending.note_failure(come)]
                self._listing_is_old = True

    def _come(self, mappings: Sequence[Mapping]) -> list[int]:
        objects = self._siting.objects(mappings)
        return [number for number in self._pending.waiting if objects.is_mapped(self.plan.sites[number])]

    def _forget_old_places(self) -> None:
        """Free the code for places where objects have been long ago."""
        pieces = sorted(self._pending.forget_oldest())
        if not pieces:
            return
        area, before = self._area(), list(self._area().code)
        area.code[:] = [piece for piece in before if piece not in pieces]
        self._write_registry()  # it must never name memory that isn't ours any more
        if free_if_left(self.stops, pieces):
            self.detours.drop(pieces)
            return
        area.code[:] = before
        self._write_registry()
        self._pending.keep(pieces)

    def _arm_more(self, numbers: Sequence[int], mappings: Sequence[Mapping]) -> None:
        area = self._area()
        for margin in MARGINS:
            rooms = free_rooms(mappings, margin=margin)
            arrangement, settled = self._siting.settle(numbers, mappings, rooms, self._handlers.size)
            pieces = merged_pages([code for code, _ in settled])
            try:
                with self.stops.stopped() as threads, self.stops.calls(threads) as (calls, _):
                    map_more_code(calls, area, pieces)
                break
            except SyscallError as error:
                if error.errno != errno.EEXIST or margin == MARGINS[-1]:
                    raise
                mappings = self.stops.mappings()
        before = len(self.detours.patches)
        try:
            patches = self._build(arrangement, settled)
            self.detours.patches[before:] = self._resting.without(self.detours.groups, patches)
            self._write_registry()
            self._resting.mute(self.stops, self.detours.groups)
            self._arm(self.detours.patches[before:])
        except BaseException:
            del self.detours.patches[before:]
            self._pending.keep(pieces)
            self._write_registry()
            raise
        self._note_armed(numbers, self._siting.objects(mappings), patches, pieces)
        come = frozenset(numbers)
        self.outcome.armed = [one for one in self.outcome.armed if one.number not in come] + arrangement.armed
        self._listing_is_old = True

    def close(self) -> None:
        """Close what the worker holds; the target stays as it is."""
        if self.area is not None:
            self.area.close()
        self.memory.close()


def _any_page(rooms: Sequence[Room]) -> tuple[int, int]:
    """Return a free page, for a session that has no detour yet."""
    found = find_room(rooms, Room(LOWEST, HIGHEST), PAGE)
    if found is None:
        raise UnsupportedError("there is no free memory in the process")
    return found, PAGE


def myself() -> Identity:
    """Return the identity of this process."""
    return Identity(os.getpid(), procfs.read_start_time(os.getpid()))
