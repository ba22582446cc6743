"""What stands of ours in one target: memory, detours, jumps, and who serves its breakpoints.

`Ground` is what an attach, objects that come later, and probes that rest all work on. It changes the target; what is to
be changed is decided elsewhere.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.area import map_area
from kprobes.engines.process.breakpoints import Breakpoints
from kprobes.engines.process.detours import Builder, Detours
from kprobes.engines.process.faults import FaultHandlers
from kprobes.engines.process.filling import place_maps
from kprobes.engines.process.handlers import Handlers
from kprobes.engines.process.hooks import fault_programs_of, programs_of
from kprobes.engines.process.memory import ProcessMemory
from kprobes.engines.process.owners import ThreadPointers, choose_mode, give_blocks
from kprobes.engines.process.patch import move_threads, places, ways_out, write_patches
from kprobes.engines.process.registry import MAX_AREAS, Registry, format_journal, format_registry
from kprobes.engines.process.release import VFORK_S, Patience, check_free, clean, free, leftovers
from kprobes.engines.process.stops import Proof, Stops
from kprobes.engines.process.stubs import routines
from kprobes.engines.process.world import Clock
from kprobes.errors import TargetError, UnsafeSiteError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.engines.process.area import Area
    from kprobes.engines.process.arming import Arrangement
    from kprobes.engines.process.procfs import Mapping
    from kprobes.engines.process.registry import Identity, Patch
    from kprobes.engines.process.release import Leftover
    from kprobes.engines.process.siting import Settled
    from kprobes.engines.process.threads import StoppedThreads
    from kprobes.model.plan import Plan

PATIENCE_S = 0.3  # a controller that was killed dies within a moment


class Ground:
    """What *owner* has in the process *target* for *plan*; the other parameters are those of `Worker`.

    *before* is there as well, and is not looked at: its jumps are read as the code that they stand for.

    `rendezvous` is the address of the loader's breakpoint, 0 for none. `listing_is_old`: what is armed has changed
    since it was told.

    Raises:
        SyscallError: the memory of the process can't be opened.
    """

    def __init__(
        self,
        target: Identity,
        plan: Plan,
        owner: Identity,
        *,
        held: int,
        ended: Callable[[int, int], None],
        exact_faults: bool,
        before: Ground | None = None,
    ) -> None:
        self.target = target
        self.plan = plan
        self.owner = owner
        self.memory = ProcessMemory(procfs.live_thread(target.pid))
        self.stops: Stops = before.stops.beside(self.memory) if before else Stops(target, self.memory, held=held)
        self._others: frozenset[int] = frozenset()
        if before is not None and before.stops.proof is not None:
            self.memory.hidden = before.detours.patches
            self._others = frozenset((before.stops.proof.inode,))
        self.exact_faults = exact_faults or bool(fault_programs_of(plan))
        self.mapped: Area | None = None
        self.detours: Detours = Detours()
        self.attached = False
        self.rendezvous = 0
        self.listing_is_old = False
        self.breakpoints: Breakpoints | None = None
        self.on_fault: FaultHandlers | None = None
        self.handlers = Handlers(plan.natives, {}, "")
        self.threads_known = ThreadPointers("", 0)
        self._ended = ended
        # Made early: the longer a clock has measured when it is asked, the better.
        self._clock = Clock() if any(one.kind == "world" for one in plan.maps) else None

    @property
    def area(self) -> Area:
        """Return our memory in the target.

        Raises:
            TargetError: there is none.
        """
        if self.mapped is None:
            raise TargetError("nothing is attached")
        return self.mapped

    def forget(self) -> None:
        """Forget the detours that were to be: nothing leads to them."""
        self.detours, self.rendezvous = Detours(), 0

    def clean_mappings(self) -> list[Mapping]:
        """Return the target's mappings, after undoing what a dead controller left behind."""
        mappings = self.stops.mappings()
        found = self._leftovers(mappings)
        if not found:
            return mappings
        check_free(self.target, found, patience_s=PATIENCE_S)
        clean(self.target)
        return self.stops.mappings()

    def _leftovers(self, mappings: Sequence[Mapping]) -> list[Leftover]:
        return [one for one in leftovers(self.memory, mappings) if one.inode not in self._others]

    def map(self, area: Area, pages: Sequence[tuple[int, int]]) -> None:
        """Map *area*, with code at *pages*, and say whose it is."""
        with self.stops.stopped() as threads:
            check_free(self.target, self._leftovers(self.stops.mappings()))
            with self.stops.calls(threads) as (calls, tid):
                map_area(calls, tid, self.memory, area, pages)
            self.stops.proof = Proof(area.base, os.fstat(area.file).st_ino)
            self.mapped = area
            self.write_registry()  # while nobody else can look: whoever comes now sees that the process is ours
            bases = {one: values.fs_base for one, values in threads.registers.items()}
            self.threads_known = choose_mode(bases, self.memory, wiped=area.wiped)

    def place_handlers(self) -> None:
        """Fill in the beginnings of the maps; the code of handlers goes by where they are."""
        mappings = self.stops.mappings()
        maps = place_maps(self.area, self.plan, self._clock, self.target.pid, mappings)
        self.handlers = Handlers(self.plan.natives, maps, self.threads_known.mode)

    def build(self, arrangement: Arrangement, settled: Settled) -> list[Patch]:
        """Write the detours of *settled* areas, which are mapped, and add them to `detours`; return their patches."""
        area = self.area
        found = Builder(
            arrangement,
            routines(area.layout, area.base, area.table, self.threads_known.tid_offset),
            self.handlers,
            area.layout.counter,
            self.memory.read,
            programs_of(self.plan),
            fault_programs_of(self.plan),
        ).build(settled)
        for code in found.areas:
            self.memory.write(code.start, bytes(code.content))
        self.detours.add(found)
        return found.patches

    def write_registry(self) -> None:
        """Write down what is ours, and which bytes are changed; it must never name memory that isn't ours."""
        area, patches = self.area, self.detours.patches
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
        self.listing_is_old = True

    def arm(self, patches: Sequence[Patch]) -> None:
        """Write *patches*, once no thread is in the way.

        Raises:
            UnsafeSiteError: one is, and doesn't go on.
        """
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
                        give_blocks(threads, self.memory, self.area)
                    write_patches(self.memory, patches, check_only=True)
                    move_threads(threads, self.memory, sends)
                    self.keep_for_breakpoints(threads)
                    write_patches(self.memory, patches)
                    return
            patience.rest()

    def keep_for_breakpoints(self, threads: StoppedThreads) -> None:
        """Keep the stopped *threads* ours when they run, where something must be served."""
        traps = self.detours.traps
        if traps or self.exact_faults:
            self.stops.keep(threads, traps, self.detours.resume)
            if not self.attached and fault_programs_of(self.plan):
                self.on_fault = FaultHandlers(self.detours, self.memory, self.area)
            threads.on_fault = self.on_fault
            alone = self.owner.pid != os.getpid()
            patches = self.detours.patches
            self.breakpoints = Breakpoints(
                threads, traps, patches, self._ended, alone=alone, rendezvous=self.rendezvous
            )

    def unmap(self, area: Area) -> bool:
        """Unmap our memory once nobody is in it; tell whether that could be done."""
        others = [piece for piece in area.pieces if piece not in area.code]
        if area.base:
            others.append((area.base, area.layout.size))
        return free(self.stops, area.code, others)

    def close(self) -> None:
        """Close what is held of the target; it stays as it is."""
        if self.mapped is not None:
            self.mapped.close()
        self.memory.close()
