"""The work on one target: attach and detach as transactions. It runs in the hand (see `hand.py`).

Attach: read and plan while the target runs; stop it and map our memory; write the detours while it runs; stop it again,
move threads out of the way, write the jumps, let go. Everything that can fail comes before the first jump is written.
Detach: stop, restore the code, let go; once no thread is in a detour any more, unmap our memory.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.area import Area, map_area
from kprobes.engines.process.arming import Armed, Objects, arrange
from kprobes.engines.process.breakpoints import Breakpoints
from kprobes.engines.process.detours import Builder, CrowdedError, Detours, merged_pages, settle, with_victims
from kprobes.engines.process.handlers import Handlers
from kprobes.engines.process.hooks import programs_of
from kprobes.engines.process.layout import OWNER_TABLE_SIZE, SharedLayout, is_keyed, layout_for, slots_of
from kprobes.engines.process.memory import ProcessMemory, free_rooms
from kprobes.engines.process.owners import ThreadPointers, choose_mode, give_blocks
from kprobes.engines.process.patch import move_threads, places, ways_out, write_patches
from kprobes.engines.process.registry import Identity, Registry, format_journal, format_registry
from kprobes.engines.process.release import check_free, clean, free, leftovers, restore
from kprobes.engines.process.stops import Proof, Stops
from kprobes.engines.process.stubs import routines
from kprobes.engines.process.world import Clock, World
from kprobes.errors import SyscallError, TargetError, UnsafeSiteError, UnsupportedError
from kprobes.model.layout import align_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.arch.x86_64.patch import Patch as Jump
    from kprobes.engines.process.arming import Arrangement
    from kprobes.engines.process.detours import CodeArea
    from kprobes.engines.process.memory import Room
    from kprobes.engines.process.procfs import Mapping
    from kprobes.engines.process.registry import Patch
    from kprobes.engines.process.threads import StoppedThreads
    from kprobes.model.plan import Plan

TRIES = 20
RETRY_S = 0.002
PATIENCE_S = 0.3  # a controller that was killed dies within a moment


@dataclass(slots=True)
class Outcome:
    """What an attach brought: how each site is armed, and for how long the target stood still, milliseconds."""

    armed: list[Armed] = field(default_factory=list)
    pauses_ms: list[float] = field(default_factory=list)
    mode: str = ""
    layout: SharedLayout = field(default_factory=lambda: SharedLayout(0, 0))


class Worker:
    """Attaches *plan* to the process *target* and detaches it; *owner* is the controller.

    *held* is the only thread of a program that has just been started: it stays stopped until it is attached. *ended*
    is told the wait status of what ends while breakpoints are served.

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
        # Made early: the longer a clock has measured when it is asked, the better.
        self._clock = Clock() if any(one.kind == "world" for one in plan.maps) else None

    def attach(self) -> Outcome:
        """Put every site in place.

        Raises:
            UnprobeableError, UnsupportedError, TargetError, SyscallError: nothing has changed then.
        """
        mappings = self._clean_mappings()
        rooms = free_rooms(mappings)
        handlers = Handlers(self.plan.natives, {}, "")
        arrangement, settled = self._settle(mappings, rooms, handlers.size)
        jumps = [jump for _, area_jumps in settled for jump in area_jumps]
        layout = layout_for(self.plan, 3 * len(jumps))
        area = Area(layout)
        threads_known = self._map(area, merged_pages([code for code, _ in settled]))
        try:
            handlers.mode, handlers.symbols = threads_known.mode, self._place_maps(area)
            self.detours = Builder(
                arrangement,
                routines(layout, area.base, area.table, threads_known.tid_offset),
                handlers,
                layout.counter,
                self.memory.read,
                programs_of(self.plan),
            ).build(settled)
            for code in self.detours.areas:
                self.memory.write(code.start, bytes(code.content))
            self._write_registry(area)
            self._arm(area)
        except BaseException:
            with contextlib.suppress(TargetError, SyscallError):
                self._unmap(area)
            raise
        self.area = area
        self.attached = True
        self.outcome.armed = arrangement.armed
        self.outcome.mode = threads_known.mode
        self.outcome.layout = layout
        self.outcome.pauses_ms = self.stops.pauses_ms
        self.stops.run()
        return self.outcome

    def _settle(
        self, mappings: Sequence[Mapping], rooms: Sequence[Room], handlers_size: int
    ) -> tuple[Arrangement, list[tuple[CodeArea, list[Jump]]]]:
        """Decide how each site is armed and where its detour stands; again where it turns out to be too crowded."""
        crowded: set[int] = set()
        while True:
            objects, wanted = Objects(self.target.pid, mappings), range(len(self.plan.sites))
            found = arrange(self.plan, wanted, objects, self.memory, rooms, crowded=crowded)
            try:
                return found, settle(with_victims(found.jumps), found.sites, rooms, handlers_size=handlers_size)
            except CrowdedError as error:
                if error.addresses <= crowded:
                    raise UnsupportedError("no free memory for detours in reach of the code") from None
                crowded |= error.addresses

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
            bases = {one: values.fs_base for one, values in threads.registers.items()}
            return choose_mode(bases, self.memory, wiped=area.wiped)

    def _place_maps(self, area: Area) -> dict[str, int]:
        """Fill in the maps' beginnings; return their addresses in the target by name."""
        found = {}
        private = area.table + OWNER_TABLE_SIZE
        for number, one in enumerate(self.plan.maps):
            if one.kind == "frames":
                found[one.name] = private
                private += align_up(one.value_size, 8)
                continue
            at = area.layout.region_at(number)
            if not area.layout.regions[number]:
                continue
            if one.kind == "world":
                World(area.shared, at, self._clock or Clock()).fill(self.target.pid, self.stops.mappings())
            elif is_keyed(one):
                struct.pack_into("<Q", area.shared, at, slots_of(one))
            else:
                area.shared[at : at + len(one.initial)] = one.initial
            found[one.name] = area.base + at
        return found

    def _write_registry(self, area: Area) -> None:
        patches = self.detours.patches
        registry = Registry(self.owner, self.target, tuple(area.pieces), area.layout.journal_at, len(patches))
        journal = format_journal(patches)
        area.shared[area.layout.journal_at : area.layout.journal_at + len(journal)] = journal
        page = format_registry(registry)
        area.shared[: len(page)] = page

    def _arm(self, area: Area) -> None:
        for attempt in range(TRIES):
            with self.stops.stopped() as threads:
                standing = list(places(threads, self.memory, self.stops.mappings()))
                try:
                    sends = ways_out(threads, standing, self.detours.patches, self.detours.moves)
                except UnsafeSiteError:
                    if attempt == TRIES - 1:
                        raise
                else:
                    give_blocks(threads, self.memory, area)
                    write_patches(self.memory, self.detours.patches, check_only=True)
                    move_threads(threads, self.memory, sends)
                    self._keep_for_breakpoints(threads)
                    write_patches(self.memory, self.detours.patches)
                    return
            time.sleep(RETRY_S)

    def _keep_for_breakpoints(self, threads: StoppedThreads) -> None:
        traps = self.detours.traps
        if traps:
            self.stops.keep(threads, traps)
            alone = self.owner.pid != os.getpid()
            self.breakpoints = Breakpoints(threads, traps, self.detours.patches, self._ended, alone=alone)

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
        return not self.stops.reap() or more

    def close(self) -> None:
        """Close what the worker holds; the target stays as it is."""
        if self.area is not None:
            self.area.close()
        self.memory.close()


def myself() -> Identity:
    """Return the identity of this process."""
    return Identity(os.getpid(), procfs.read_start_time(os.getpid()))
