"""Probes in objects that come and go: armed when the object is mapped, gone when it isn't any more.

The mappings are looked at every 20 ms as long as a session has such probes; nothing of the loader's is touched. An
object that comes back to where it was, with the same bytes, gets its jumps back; the detours are still there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kprobes.engines.process.arming import Located
    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.procfs import Mapping
    from kprobes.engines.process.registry import Patch

LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object's code is mapped: it is the same object only if all of this is the same."""

    start: int
    end: int
    inode: int

    @classmethod
    def of(cls, mapping: Mapping) -> Place:
        """Return the place of *mapping*."""
        return cls(mapping.start, mapping.end, mapping.inode)


class Pending:
    """Which of the sites numbered *wanted* wait for their object, and which patches belong to objects that may go."""

    def __init__(self, wanted: Iterable[int]) -> None:
        self.all = frozenset(wanted)
        self.waiting = set(self.all)
        self._armed: dict[Place, tuple[set[int], list[Patch]]] = {}
        self._dormant: dict[Place, tuple[set[int], list[Patch]]] = {}
        self._looked_at = 0.0

    def is_due(self) -> bool:
        """Tell whether it is time to look again."""
        now = time.monotonic()
        if not self.all or now < self._looked_at + LOOK_EVERY_S:
            return False
        self._looked_at = now
        return True

    def note_armed(self, located: Iterable[Located], patches: Sequence[Patch]) -> None:
        """Note that the sites *located* are armed, by those of *patches* that lie in the same objects."""
        for one in located:
            place = Place.of(one.mapping)
            if place not in self._armed:
                inside = [patch for patch in patches if place.start <= patch.address < place.end]
                self._armed[place] = (set(), inside)
            self._armed[place][0].add(one.number)
            self.waiting.discard(one.number)

    def give_up(self, numbers: Iterable[int]) -> None:
        """Wait no longer for the sites *numbers*."""
        self.waiting -= set(numbers)

    def take_gone(self, memory: ProcessMemory, mappings: Sequence[Mapping]) -> list[Patch]:
        """Return the patches whose object is no longer where it was; their sites wait again."""
        there = {Place.of(mapping) for mapping in mappings}
        gone = []
        for place, (numbers, patches) in list(self._armed.items()):
            if place in there and all(
                memory.read_some(one.address, len(one.written)) == one.written for one in patches[:1]
            ):
                continue
            self._dormant[place] = self._armed.pop(place)
            self.waiting |= numbers & self.all
            gone += patches
        return gone

    def take_back(self, memory: ProcessMemory, mappings: Sequence[Mapping]) -> list[Patch]:
        """Return the patches of objects that are back where they were, to be written again."""
        back = []
        for place in {Place.of(mapping) for mapping in mappings} & self._dormant.keys():
            numbers, patches = self._dormant.pop(place)
            if all(memory.read_some(one.address, len(one.original)) == one.original for one in patches):
                self._armed[place] = (numbers, patches)
                self.waiting -= numbers
                back += patches
        return back
