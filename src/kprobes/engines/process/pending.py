"""Probes in objects that come and go: armed when the object is mapped, gone when it isn't any more.

The mappings are looked at whenever the loader says that it has changed them (see `loader.py`), and now and then
besides: every 20 ms where the loader can't be asked. An object that comes back to where it was, with the same bytes,
gets its jumps back as long as the detours are still there: those of the last few places are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence, Set

    from kprobes.engines.process.arming import Located
    from kprobes.engines.process.memory import ProcessMemory
    from kprobes.engines.process.procfs import Mapping
    from kprobes.engines.process.registry import Patch

LOOK_EVERY_S = 0.02
LOOK_BESIDES_S = 0.1
MOST_DORMANT = 4
MOST_FAILURES = 5  # an object may go while its code is looked at


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


@dataclass(slots=True)
class Placed:
    """What is armed in one place: the sites' numbers, their patches, and the code that was mapped for them alone,
    (start, size) each."""

    numbers: set[int]
    patches: list[Patch]
    pieces: frozenset[tuple[int, int]]


class Pending:
    """Which of the sites numbered *wanted* wait for their object, and which patches belong to objects that may go."""

    def __init__(self, wanted: Iterable[int]) -> None:
        self.all = frozenset(wanted)
        self.waiting = set(self.all)
        self.look_every_s = LOOK_EVERY_S
        self._armed: dict[Place, Placed] = {}
        self._dormant: dict[Place, Placed] = {}
        self._lost: set[tuple[int, int]] = set()
        self._failures: dict[int, int] = {}
        self._looked_at = 0.0

    def is_due(self) -> bool:
        """Tell whether it is time to look again."""
        now = time.monotonic()
        if not self.all or now < self._looked_at + self.look_every_s:
            return False
        self._looked_at = now
        return True

    def note_armed(
        self, located: Iterable[Located], patches: Sequence[Patch], pieces: Iterable[tuple[int, int]] = ()
    ) -> None:
        """Note that the sites *located* are armed, by those of *patches* that lie in the same objects.

        *pieces* is the code that was mapped for them and nothing else, (start, size) each.
        """
        own = frozenset(pieces)
        for one in located:
            place = Place.of(one.mapping)
            if place not in self._armed:
                inside = [
                    one for one in patches if place.start <= (one.head if one.counts else one.address) < place.end
                ]
                self._armed[place] = Placed(set(), inside, own)
            self._armed[place].numbers.add(one.number)
            self.waiting.discard(one.number)
            self._failures.pop(one.number, None)

    def keep(self, pieces: Iterable[tuple[int, int]]) -> None:
        """Take back what `forget_oldest` gave: the code can't go now."""
        self._lost.update(pieces)

    def note_failure(self, numbers: Sequence[int]) -> list[int]:
        """Note that the sites *numbers* could not be armed; return those that are not waited for any longer."""
        for number in numbers:
            self._failures[number] = self._failures.get(number, 0) + 1
        hopeless = [number for number in numbers if self._failures[number] >= MOST_FAILURES]
        self.waiting -= set(hopeless)
        return hopeless

    def dormant(self) -> list[Patch]:
        """Return the patches for places where no object is now."""
        return [patch for placed in self._dormant.values() for patch in placed.patches]

    def take_gone(self, memory: ProcessMemory, mappings: Sequence[Mapping], written: Set[int]) -> list[Patch]:
        """Return the patches whose object is no longer where it was; their sites wait again.

        *written* are the ids of the patches that are in place, if their object is.
        """
        there = {Place.of(mapping) for mapping in mappings}
        gone = []
        for place, placed in list(self._armed.items()):
            if place in there and all(
                memory.read_some(one.address, len(one.written)) == one.written
                for one in [patch for patch in placed.patches if id(patch) in written and not patch.counts][:1]
            ):
                continue
            self._dormant[place] = self._armed.pop(place)
            self.waiting |= placed.numbers & self.all
            gone += placed.patches
        return gone

    def take_back(self, memory: ProcessMemory, mappings: Sequence[Mapping]) -> list[Patch]:
        """Return the patches of objects that are back where they were, to be written again."""
        back = []
        for place in {Place.of(mapping) for mapping in mappings} & self._dormant.keys():
            placed = self._dormant.pop(place)
            code = [one for one in placed.patches if not one.counts]
            if all(memory.read_some(one.address, len(one.original)) == one.original for one in code):
                self._armed[place] = placed
                self.waiting -= placed.numbers
                back += placed.patches
            else:
                self._lost |= placed.pieces
        return back

    def forget_oldest(self) -> set[tuple[int, int]]:
        """Forget all but the last few places where objects have been; return the code that nothing needs any more."""
        forgotten, self._lost = self._lost, set()
        while len(self._dormant) > MOST_DORMANT:
            forgotten |= self._dormant.pop(next(iter(self._dormant))).pieces
        return forgotten.difference(*(one.pieces for one in (*self._armed.values(), *self._dormant.values())))
