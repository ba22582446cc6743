"""Waiting until every handler has ended that runs at some moment: its thread may hold the address of a slot.

A block's guard is the stack pointer of its handler, 0 for none. A thread that is in handlers nearly all of the time is
hardly ever seen without one, so its block's counters are looked at too: each handler that runs has counted a hit
before. One that begins while another one runs on its thread, in a signal's handler, counts a miss right after; so hits
without misses that come in number say that later handlers ran, and that the one before them has ended.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kprobes.engines.process.layout import BLOCK_GUARD, CLAIM_COUNTER
from kprobes.model.layout import SITE_COUNTERS
from kprobes.model.plan import COUNT_ONLY

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable

    from kprobes.engines.process.layout import SharedLayout
    from kprobes.model.plan import Plan

# More hits than signal handlers can stand one in the other between the count of a hit and that of its miss.
_ENOUGH = 16
_SHARED = 0  # the block of threads without one: their hits say nothing about each other


class Passing:
    """The handlers of *plan* that run when this is made."""

    def __init__(self, view: mmap.mmap, layout: SharedLayout, plan: Plan) -> None:
        self._view = view
        self._layout = layout
        self._sites = _handled(plan)
        claimed = min(struct.unpack_from("<Q", view, CLAIM_COUNTER)[0], layout.blocks)
        self._left = {block: self._progress(block) for block in range(max(claimed, 1)) if self._guard(block)}

    def are_over(self) -> bool:
        """Look again; return whether all of them have ended."""
        for block, before in list(self._left.items()):
            moved = block != _SHARED and self._progress(block) - before >= _ENOUGH
            if moved or not self._guard(block):
                del self._left[block]
        return not self._left

    def _guard(self, block: int) -> int:
        at = self._layout.blocks_at + block * self._layout.stride + BLOCK_GUARD
        return int(struct.unpack_from("<Q", self._view, at)[0])

    def _progress(self, block: int) -> int:
        """Return the hits of a block without the misses."""
        hits, missed = (self._counters(block, SITE_COUNTERS.index(kind)) for kind in ("hits", "missed"))
        return sum(hits[site] - missed[site] for site in self._sites)

    def _counters(self, block: int, kind: int) -> tuple[int, ...]:
        at = self._layout.blocks_at + block * self._layout.stride + self._layout.counter(0, kind)
        return struct.unpack_from(f"<{self._layout.sites}q", self._view, at)


def _handled(plan: Plan) -> tuple[int, ...]:
    """Return the sites where nothing is counted without a handler."""
    wanted: Iterable[int] = (site for one in plan.attachments if one.program != COUNT_ONLY for site in one.sites)
    only = {site for one in plan.attachments if one.program == COUNT_ONLY for site in one.sites}
    return tuple(sorted({*wanted} - only))
