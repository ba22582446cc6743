"""What a plan takes over from the one that it is put in place of, in the same process."""

from __future__ import annotations

from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Inherited:
    """Pairs (before, now): *sites*, by number, whose counts go on, and *maps*, by name, whose content does. The sites
    *resting*, by their new numbers, begin disabled."""

    sites: tuple[tuple[int, int], ...] = ()
    maps: tuple[tuple[str, str], ...] = ()
    resting: frozenset[int] = frozenset()
