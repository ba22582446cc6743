"""What is done when objects come and go while their probes are registered (see `pending` for which are where)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kprobes.engines.process import procfs
from kprobes.engines.process.area import map_more_code
from kprobes.engines.process.arming import Armed
from kprobes.engines.process.detours import merged_pages
from kprobes.engines.process.loader import find_rendezvous
from kprobes.engines.process.memory import free_rooms
from kprobes.engines.process.pending import LOOK_BESIDES_S, Pending
from kprobes.engines.process.release import free_if_left
from kprobes.engines.process.siting import MARGINS
from kprobes.errors import KprobesError, SyscallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kprobes.engines.process.arming import Objects
    from kprobes.engines.process.ground import Ground
    from kprobes.engines.process.muting import Resting
    from kprobes.engines.process.procfs import Mapping
    from kprobes.engines.process.registry import Patch
    from kprobes.engines.process.siting import Siting


class Coming:
    """The sites of *ground*'s plan whose objects may come and go. *armed* is how each site is armed, and kept up to
    date; *resting* tells which are disabled."""

    def __init__(self, ground: Ground, siting: Siting, resting: Resting) -> None:
        plan = ground.plan
        self._ground = ground
        self._siting = siting
        self._resting = resting
        self.pending = Pending(n for n, site in enumerate(plan.sites) if plan.probes[site.probe].is_pending)
        self.armed: list[Armed] = []

    def note_armed(
        self,
        numbers: Iterable[int],
        objects: Objects,
        patches: Sequence[Patch],
        pieces: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Note that the sites *numbers* are armed: see `Pending.note_armed`."""
        located = self._siting.located(objects, self.pending.all & set(numbers))
        self.pending.note_armed(located, patches, pieces)

    def watch_loader(self) -> None:
        """Put a breakpoint where the loader tells that objects come and go; look again and again where it can't be."""
        ground = self._ground
        mappings = ground.stops.mappings()
        shadow = procfs.read_status(ground.target.pid, ground.memory.pid).shadow_stack
        found = find_rendezvous(ground.memory, procfs.read_auxiliary(ground.memory.pid), mappings)
        if found is None or shadow or any(one.address <= found.address < one.end for one in ground.detours.patches):
            return
        ground.rendezvous = found.address
        ground.detours.patches.append(found)
        ground.detours.traps[found.address] = found.address
        self.pending.look_every_s = LOOK_BESIDES_S

    def look_again(self) -> None:
        """Arm the sites whose object has come, forget those whose object has gone."""
        import kprobes.arch.x86_64.sites  # noqa: F401 - in time: the thread that has the next object loaded waits

        ground = self._ground
        mappings = ground.stops.mappings()
        if not ground.stops.is_ours(mappings):
            return
        there = {id(patch) for patch in ground.detours.patches}
        gone = {id(patch) for patch in self.pending.take_gone(ground.memory, mappings, there)}
        if gone:
            ground.detours.patches = [patch for patch in ground.detours.patches if id(patch) not in gone]
            ground.write_registry()
        back = self._resting.without(ground.detours.groups, self.pending.take_back(ground.memory, mappings))
        if back:
            ground.detours.patches += back
            ground.write_registry()
            ground.arm(back)
        self._forget_old_places()
        come = self._come(mappings)
        if come:
            try:
                self._arm_more(come, mappings)
            except (KprobesError, OSError) as error:
                self.armed += [Armed(n, 0, "", str(error)) for n in self.pending.note_failure(come)]
                ground.listing_is_old = True

    def _come(self, mappings: Sequence[Mapping]) -> list[int]:
        objects = self._siting.objects(mappings)
        return [number for number in self.pending.waiting if objects.is_mapped(self._ground.plan.sites[number])]

    def _forget_old_places(self) -> None:
        """Free the code for places where objects have been long ago."""
        ground = self._ground
        pieces = sorted(self.pending.forget_oldest())
        if not pieces:
            return
        area, before = ground.area, list(ground.area.code)
        area.code[:] = [piece for piece in before if piece not in pieces]
        ground.write_registry()  # it must never name memory that isn't ours any more
        if free_if_left(ground.stops, pieces):
            ground.detours.drop(pieces)
            return
        area.code[:] = before
        ground.write_registry()
        self.pending.keep(pieces)

    def _arm_more(self, numbers: Sequence[int], mappings: Sequence[Mapping]) -> None:
        ground = self._ground
        area = ground.area
        for margin in MARGINS:
            rooms = free_rooms(mappings, margin=margin)
            arrangement, settled = self._siting.settle(numbers, mappings, rooms, ground.handlers.size)
            pieces = merged_pages([code for code, _ in settled])
            try:
                with ground.stops.stopped() as threads, ground.stops.calls(threads) as (calls, _):
                    map_more_code(calls, area, pieces)
                break
            except SyscallError as error:
                if error.errno != errno.EEXIST or margin == MARGINS[-1]:
                    raise
                mappings = ground.stops.mappings()
        before = len(ground.detours.patches)
        try:
            patches = ground.build(arrangement, settled)
            ground.detours.patches[before:] = self._resting.without(ground.detours.groups, patches)
            ground.write_registry()
            self._resting.mute(ground.stops, ground.detours.groups)
            ground.arm(ground.detours.patches[before:])
        except BaseException:
            del ground.detours.patches[before:]
            self.pending.keep(pieces)
            ground.write_registry()
            raise
        self.note_armed(numbers, self._siting.objects(mappings), patches, pieces)
        come = frozenset(numbers)
        self.armed = [one for one in self.armed if one.number not in come] + arrangement.armed
        ground.listing_is_old = True
