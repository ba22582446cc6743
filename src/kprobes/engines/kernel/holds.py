"""What holds a loaded program in its places: descriptors, each of which can be let go and made anew."""

from __future__ import annotations

import os

from kprobes.engines.kernel import counts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Hold:
    """One descriptor that holds a program at *sites*; *attach* makes it, now and whenever it is needed again."""

    __slots__ = ("_attach", "fd", "sites")

    def __init__(self, sites: Sequence[int], attach: Callable[[], int]) -> None:
        self.sites = frozenset(sites)
        self._attach = attach
        self.fd = attach()

    def resume(self) -> None:
        """Put the program there again; nothing where it is."""
        if self.fd < 0:
            self.fd = self._attach()

    def let_go(self) -> None:
        """Take the program away from there; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Loaded:
    """One loaded program: its number in the plan, its descriptor, its sites, and what attaches it: its *holds*, and the
    names of its events in tracefs, if it has any."""

    __slots__ = ("_missed", "events", "fd", "holds", "program", "sites", "way")

    def __init__(self, program: int, way: str, fd: int) -> None:
        self.program = program
        self.way = way
        self.fd = fd
        self.sites: list[int] = []
        self.holds: list[Hold] = []
        self.events: list[str] = []
        self._missed = 0

    def hold(self, sites: Sequence[int], attach: Callable[[], int]) -> None:
        """Attach the program to *sites* by what *attach* returns."""
        self.holds.append(Hold(sites, attach))
        self.sites += sites

    def missed(self) -> int:
        """Return what the kernel counted as missed since the attach; -1 where it doesn't tell."""
        told = counts.missed(self.fd, self.way, [one.fd for one in self.holds if one.fd >= 0])
        return told if told < 0 else told + self._missed

    def let_go(self, holds: Sequence[Hold]) -> None:
        """Take the program off the places of some of its holds; their counts of what was missed are kept."""
        before = self.missed()
        for one in reversed(holds):
            one.let_go()
        self._missed += max(0, before - self.missed()) if before >= 0 else 0

    def detach(self) -> None:
        """Take the program off its sites; it stays loaded."""
        for one in reversed(self.holds):
            one.let_go()

    def close(self) -> None:
        """Detach and unload; idempotent."""
        self.detach()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
