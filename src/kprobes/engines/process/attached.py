"""A plan in place in a process: its counters are read from shared memory, without the target's help."""

from __future__ import annotations

import mmap
import os
import select
import struct
import time
from typing import TYPE_CHECKING

from kprobes.engines.process.layout import CLAIM_COUNTER, SharedLayout
from kprobes.engines.process.passing import Passing
from kprobes.engines.process.ring import Rings, split
from kprobes.engines.process.tables import read_region, take_old, take_region
from kprobes.engines.process.unwinding import read_trace
from kprobes.errors import SyscallError, TargetError
from kprobes.model.layout import META_WINDOW, SITE_COUNTERS, meta_of
from kprobes.model.plan import COUNT_ONLY, LinkStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.engines.process.arming import Armed
    from kprobes.engines.process.hand import Hand
    from kprobes.engines.process.ring import Found, Reader
    from kprobes.engines.process.worker import Outcome
    from kprobes.engines.process.world import World
    from kprobes.model.inherited import Inherited
    from kprobes.model.layout import MapLayout
    from kprobes.model.listed import Listed
    from kprobes.model.plan import Plan

KINDS = len(SITE_COUNTERS)
_HITS, _MISSED = SITE_COUNTERS.index("hits"), SITE_COUNTERS.index("missed")
FIRST_PAUSE_S, LAST_PAUSE_S = 0.001, 0.016
HANDLER_S = 2.0  # far longer than a handler runs, unless its thread is kept from running


class ProcessAttached:
    """*plan* in place in the process that *hand* serves; *watch* is its pidfd, *pid* its id.

    `pauses_ms` are the times for which the target stood still, `armed` how each site was armed, `left` the addresses
    that could not be restored at detach because somebody else had changed them.
    """

    def __init__(
        self,
        plan: Plan,
        hand: Hand,
        watch: int,
        pid: int,
        *,
        exact_faults: bool = False,
        inherited: Inherited | None = None,
    ) -> None:
        self._plan = plan
        self._hand = hand
        self._watch = watch
        self._attached = True
        self._pid = pid
        found: Outcome
        found, process, file = hand.call("attach", plan, exact_faults, inherited)
        self._exact_faults = exact_faults
        self.pauses_ms: tuple[float, ...] = tuple(found.pauses_ms)
        self.armed: tuple[Armed, ...] = tuple(found.armed)
        self.mode: str = found.mode
        self.left: tuple[int, ...] = ()
        self._layout: SharedLayout = found.layout
        try:
            self._view: mmap.mmap | None = _open_view(process, file, self._layout.size)
        except SyscallError:
            self.detach()
            raise
        at = self._layout
        self._rings: Rings | None = None
        if at.rings:
            self._rings = Rings(self._view, at.ring_places)
        self._world = self._open_world()
        self._rest = select.poll()
        self._rest.register(watch, select.POLLIN)

    def _open_world(self) -> World | None:
        for number, layout in enumerate(self._plan.maps):
            if layout.kind == "world":
                from kprobes.engines.process.world import Clock, World

                return World(self._mapped(), self._layout.region_at(number), Clock())
        return None

    def hand_over(self, plan: Plan, inherited: Inherited) -> ProcessAttached:
        """Put *plan* in place of this one, without a moment at which neither is, and return it; what was counted and
        sent here stays readable.

        Raises:
            KprobesError: as `ProcessEngine.attach`; nothing has changed then.
        """
        found = ProcessAttached(
            plan, self._hand, self._watch, self._pid, exact_faults=self._exact_faults, inherited=inherited
        )
        self._attached = False
        return found

    def enable(self, *sites: int) -> None:
        """Let the disabled *sites* count and run their handlers again."""
        self.set_enabled(frozenset(sites), True)

    def disable(self, *sites: int) -> None:
        """Take the jumps of *sites* away until `enable`; their counters stay.

        Raises:
            TargetError: a thread is in the way, and doesn't go on.
        """
        self.set_enabled(frozenset(sites), False)

    def set_enabled(self, sites: frozenset[int], enabled: bool) -> None:
        """Disable or enable *sites*: see `disable`."""
        self._hand.call("set_enabled", tuple(sites), enabled)

    def refresh(self) -> None:
        """Bring `armed` up to date: sites of pending probes are armed when their object is mapped."""
        if self._attached and self._hand.is_open:
            self.armed = tuple(self._hand.call("armed"))

    def listing(self) -> list[Listed]:
        """Return what is armed now, and how; nothing once the target has been let go."""
        if not (self._attached and self._hand.is_open):
            return []
        found: list[Listed] = self._hand.call("listed")
        return found

    def poll(self, timeout_s: float) -> list[bytes]:
        """Return the records that are there, waiting up to *timeout_s* for the first, or for the target's end."""
        return [record for raw in self.poll_raw(timeout_s) for record in split(raw)]

    def poll_raw(self, timeout_s: float) -> list[bytes]:
        """Return the records that are there as they lie in the rings, one piece a ring; waits as `poll`."""
        return self._poll(timeout_s, Rings.take)

    def drain(self, timeout_s: float, read: Reader[Found]) -> list[Found]:
        """Return what *read* makes of the records that are there, right from the rings; waits as `poll`."""
        return self._poll(timeout_s, lambda rings: rings.drain(read))

    def _poll(self, timeout_s: float, take: Callable[[Rings], list[Found]]) -> list[Found]:
        """Take what is there; wait for it up to *timeout_s*.

        The target makes no system call to wake us, so the rings are looked at again and again, less and less often.
        """
        deadline = time.monotonic() + timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            if self._world is not None:
                self._world.refresh(self._pid)
            taken = take(self._rings) if self._rings is not None else []
            left_s = deadline - time.monotonic()
            if taken or left_s <= 0:
                return taken
            if self._rest.poll(max(1, int(min(pause_s, left_s) * 1000))):
                return take(self._rings) if self._rings is not None else []
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    def unmatched(self) -> dict[int, int]:
        """Return by site how many of the hits are calls that haven't returned: the returns are counted as hits of sites
        of their own, those of calls that began before the attach as missed there."""
        count = len(self._plan.sites)
        if self._layout.sites == count:
            return {}
        returns = {
            site
            for attachment in self._plan.attachments
            if attachment.program != COUNT_ONLY and self._plan.natives[attachment.program].part == "return"
            for site in attachment.sites
        }
        sums = self._counted()
        returned = {site: sums[count + site][_HITS] - sums[count + site][_MISSED] for site in returns}
        return {site: max(0, sums[site][_HITS] - returned[site]) for site in returns}

    def counters(self) -> list[tuple[int, ...]]:
        """Return (hits, missed, lost, faults) of each site, summed over all threads."""
        return self._counted()[: len(self._plan.sites)]

    def _counted(self) -> list[tuple[int, ...]]:
        """Return the counters of all sites, also of those that stand for returns."""
        layout, view = self._layout, self._mapped()
        sums = [0] * (KINDS * layout.sites)
        shape = struct.Struct(f"<{len(sums)}Q")
        claimed = min(struct.unpack_from("<Q", view, CLAIM_COUNTER)[0], layout.blocks)
        for block in range(claimed):
            values = shape.unpack_from(view, layout.blocks_at + block * layout.stride + layout.counter(0))
            sums = [total + value for total, value in zip(sums, values, strict=True)] if any(values) else sums
        return [tuple(sums[site :: layout.sites]) for site in range(layout.sites)]

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs of a map; the site counters come as one shard.

        Raises:
            TargetError: the plan has no such map.
        """
        for number, layout in enumerate(self._plan.maps):
            if layout.name == name and self._layout.regions[number]:
                return read_region(self._mapped(), self._layout.region_at(number), layout)
            if layout.name == name and layout.kind == "stats":
                values = [value & (1 << 64) - 1 for site in self.counters() for value in site]
                return [(b"", struct.pack(f"<{len(values)}Q", *values).ljust(layout.value_size, b"\0"))]
        raise TargetError(f"there is no map {name!r}")

    def take_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return what a map holds, and leave nothing of it (see `engines.port`).

        Raises:
            TargetError: the plan has no such map, or a thread stands inside of a handler that may still add to it.
        """
        layout, at = self._region(name)
        if not layout.windowed:
            return take_region(self._mapped(), at, layout)
        view = self._mapped()
        meta = self._region(meta_of(layout).name)[1] + META_WINDOW
        window = int.from_bytes(view[meta : meta + 8], "little") + 1
        view[meta : meta + 8] = window.to_bytes(8, "little")
        self._wait_for_handlers()
        return take_old(view, at, layout, window)

    def _region(self, name: str) -> tuple[MapLayout, int]:
        for number, layout in enumerate(self._plan.maps):
            if layout.name == name and self._layout.regions[number]:
                return layout, self._layout.region_at(number)
        raise TargetError(f"there is no map {name!r}")

    def _wait_for_handlers(self) -> None:
        """Wait until each handler has ended that runs now."""
        running = Passing(self._mapped(), self._layout, self._plan)
        deadline = time.monotonic() + HANDLER_S
        while not running.are_over() and not self._ended(0):
            if time.monotonic() > deadline:
                raise TargetError("a thread of the target stands inside of a handler", hint="try again when it runs")
            time.sleep(FIRST_PAUSE_S)

    def read_stack(self, stack_id: int) -> tuple[int, ...]:
        """Return the addresses of a stack, innermost first; empty where there is none."""
        for number, layout in enumerate(self._plan.maps):
            if layout.kind == "traces":
                return read_trace(self._mapped(), self._layout.region_at(number), layout, stack_id)
        return ()

    def link_stats(self) -> list[LinkStats]:
        """Return nothing: no kernel counts here, and what was missed stands in the site counters."""
        return []

    def detach(self) -> None:
        """Take the probes away; counters stay readable. A target that has ended has none any more."""
        if not self._attached:
            return
        self._attached = False
        if not self._hand.is_open:
            return
        try:
            self.left = tuple(self._hand.call("detach"))
        except TargetError:
            if not self._ended():
                raise

    @property
    def damaged(self) -> int:
        """Return how often a ring held what no handler writes, and was emptied."""
        return self._rings.damaged if self._rings is not None else 0

    def _ended(self, timeout_ms: int = 100) -> bool:
        poller = select.poll()
        poller.register(self._watch, select.POLLIN)
        return bool(poller.poll(timeout_ms))

    def close(self) -> None:
        """Take the probes away and free the shared memory; idempotent."""
        try:
            self.detach()
        finally:
            if self._rings is not None:
                self._rings.close()
                self._rings = None
            if self._view is not None:
                self._view.close()
                self._view = None

    def _mapped(self) -> mmap.mmap:
        if self._view is None:
            raise TargetError("the session is closed")
        return self._view


def _open_view(process: int, file: int, size: int) -> mmap.mmap:
    """Map the memfd that is descriptor *file* of *process*, the hand."""
    try:
        own = os.open(f"/proc/{process}/fd/{file}", os.O_RDWR | os.O_CLOEXEC)
        try:
            return mmap.mmap(own, size)
        finally:
            os.close(own)
    except OSError as error:
        raise SyscallError("opening the shared memory", error.errno or 0) from None
