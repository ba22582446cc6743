"""Resting probes beside others in one detour: what runs for them is jumped over.

A jump serves all probes of the instructions that it displaces, and it stays as long as one of them is enabled. What a
detour runs for one probe is a *body*; while the probe rests, its first bytes are a jump to its end.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kprobes.engines.process.patch import places, write_patches
from kprobes.engines.process.registry import Patch
from kprobes.engines.process.release import Patience
from kprobes.errors import TargetError
from kprobes.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.process.detours import Group
    from kprobes.engines.process.stops import Stops

JUMP_SIZE = 5


@dataclass(frozen=True, slots=True)
class Body:
    """The code from *begin* to *end* of a detour that runs for one probe; *head* are its first bytes."""

    begin: int
    end: int
    head: bytes


class Resting:
    """Which *sites* are disabled, and what of detours is jumped over for it."""

    def __init__(self) -> None:
        self.sites: frozenset[int] = frozenset()
        self._muted: set[int] = set()

    def change(self, sites: frozenset[int], *, enabled: bool) -> None:
        """Note that *sites* are enabled, or disabled."""
        self.sites = self.sites - sites if enabled else self.sites | sites

    def without(self, groups: Sequence[Group], patches: Sequence[Patch]) -> list[Patch]:
        """Return those of *patches* that serve a site which isn't disabled."""
        rest = {id(one) for group in groups if group.sites <= self.sites for one in group.patches}
        return [patch for patch in patches if id(patch) not in rest]

    def mute(self, stops: Stops, groups: Sequence[Group]) -> None:
        """Let the detours that serve several sites run what those want that are not disabled.

        Raises:
            TargetError: as `mute`.
        """
        shared = [group for group in groups if len(group.sites) > 1]
        by_site = [(number, one) for group in shared for number, bodies in group.bodies.items() for one in bodies]
        bodies = [(number in self.sites, one) for number, one in by_site]
        resting = [one for rests, one in bodies if rests and one.begin not in self._muted]
        waking = [one for rests, one in bodies if not rests and one.begin in self._muted]
        mute(stops, resting, waking)
        self._muted = {one.begin for rests, one in bodies if rests}


def mute(stops: Stops, resting: Sequence[Body], waking: Sequence[Body]) -> None:
    """Let the bodies *resting* be jumped over, and those *waking* run again. Threads inside of one leave it as ever.

    Raises:
        TargetError: a thread stands where the jump is to be written, and doesn't go on.
    """
    bodies = [*resting, *waking]
    if not bodies:
        return
    patience = Patience()
    while True:
        with stops.stopped() as threads:
            mappings = stops.mappings()
            if not stops.is_ours(mappings):
                return
            standing = list(places(threads, stops.memory, mappings))
            inside = [one for one in standing if any(body.begin < one.ip < body.begin + JUMP_SIZE for body in bodies)]
            if not inside:
                write_patches(stops.memory, [_jump_over(body) for body in resting])
                write_patches(stops.memory, [_jump_over(body) for body in waking], undo=True)
                return
            if patience.is_over(threads, inside):
                why = f"a thread of process {stops.target.pid} stands in a probe and doesn't go on"
                raise TargetError(why, hint="try again")
        patience.rest()


def _jump_over(body: Body) -> Patch:
    jump = b"\xe9" + struct.pack("<i", body.end - body.begin - JUMP_SIZE)
    return Patch(body.begin, body.head, jump, body.begin)
