"""A plan in place in this machine's kernel: its records, maps and counts."""

from __future__ import annotations

import time

from kprobes.engines.kernel.attach import Programs
from kprobes.engines.kernel.limits import allow_descriptors
from kprobes.engines.kernel.maps import KernelMap, parse_stack, wait_for_programs
from kprobes.engines.kernel.ring import EMPTY, Ring
from kprobes.errors import InternalError
from kprobes.model.layout import align_up, meta_of
from kprobes.model.plan import MULTI_WAYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.engines.kernel.attach import Kernel
    from kprobes.engines.kernel.ring import Span
    from kprobes.model.plan import Attachment, LinkStats, Plan

# How long to leave a record alone that a handler has reserved and not committed yet.
_BUSY_PAUSE_S = 0.0002


class KernelAttached:
    """A plan that is in place. All of it are descriptors of this process: it goes away with the process, however that
    ends."""

    def __init__(self, plan: Plan, kernel: Kernel) -> None:
        self._plan = plan
        self._maps: dict[str, KernelMap] = {}
        self._ring: Ring | None = None
        self._stacks: KernelMap | None = None
        self._programs: Programs | None = None
        self._last_stats: list[LinkStats] | None = None
        allow_descriptors(sum([_links(plan, attachment) for attachment in plan.attachments]))
        try:
            for layout in plan.maps:
                self._add_map(KernelMap(layout))
            self._programs = Programs(plan, kernel, {name: made.fd for name, made in self._maps.items()})
        except BaseException:
            self.close()
            raise

    def _add_map(self, made: KernelMap) -> None:
        self._maps[made.layout.name] = made
        if made.layout.kind == "ring":
            self._ring = Ring(made.fd, made.layout.max_entries)
        elif made.layout.kind == "stacks":
            self._stacks = made

    def poll(self, timeout_s: float) -> list[bytes]:
        """Return the ring records that are there, waiting up to *timeout_s* s for the first; no ring headers."""
        return self.poll_raw(timeout_s).records()

    def poll_raw(self, timeout_s: float) -> Span:
        """Return the same records as one span of bytes, for a decoder that takes thousands at a time."""
        if self._ring is None:
            time.sleep(max(0, timeout_s))
            return EMPTY
        deadline = time.monotonic() + timeout_s
        while True:
            span = self._ring.poll_raw(deadline - time.monotonic())
            if span.data or time.monotonic() >= deadline:
                return span
            if self._ring.pending:
                time.sleep(_BUSY_PAUSE_S)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a record for up to *timeout_s* seconds, taking none; return whether one may be there."""
        if self._ring is None:
            time.sleep(max(0, timeout_s))
            return False
        return self._ring.wait(timeout_s)

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs of a map; an array map of one entry gives one pair with the key `b""`."""
        if name not in self._maps:
            raise InternalError(f"the plan has no map {name!r}")
        return self._maps[name].read()

    def take_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return what `read_map` would, and leave nothing of it; what handlers add meanwhile is in what is returned or
        in what is left. Of `count`, `histogram` and `avg` only those that are `windowed`.
        """
        made = self._maps.get(name)
        if made is None:
            raise InternalError(f"the plan has no map {name!r}")
        if not made.layout.windowed:
            return made.take()
        window = self._maps[meta_of(made.layout).name].begin_window()
        wait_for_programs()
        return made.take_old(window)

    def read_stack(self, stack_id: int) -> tuple[int, ...]:
        """Return the addresses of a stack, innermost first; empty where it is gone."""
        if self._stacks is None or stack_id < 0:
            return ()
        value = self._stacks.lookup(stack_id.to_bytes(4, "little"))
        return parse_stack(value) if value else ()

    def link_stats(self) -> list[LinkStats]:
        """Return what the kernel counted, one entry for each load of a program."""
        if self._last_stats is not None:
            return self._last_stats
        return self._programs.stats() if self._programs is not None else []

    def unmatched(self) -> dict[int, int]:
        """Return by site how many calls were entered and haven't returned: their data is still there."""
        found = {}
        for attachment in self._plan.attachments:
            for relocation in self._plan.programs[attachment.program].relocations:
                made = self._maps.get(relocation.map)
                if made is not None and made.layout.kind in ("calls", "frames") and attachment.sites:
                    found[made.layout.name] = (attachment.sites[0], made)
        return {site: _calls_in(made) for site, made in found.values()}

    def set_enabled(self, sites: frozenset[int], enabled: bool) -> None:
        """Let the probes at *sites* rest, or go on; no handler runs there after they were told to rest.

        Raises:
            UnsupportedError: one link serves another site besides.
        """
        if self._programs is not None and self._last_stats is None:
            self._programs.set_enabled(sites, enabled=enabled)

    def detach(self) -> None:
        """Detach every probe; no handler runs after it returns. Ring, maps and link counts stay readable."""
        if self._programs is not None and self._last_stats is None:
            self._last_stats = self.link_stats()
            self._programs.detach()

    def close(self) -> None:
        """Detach, unload, and free ring and maps; idempotent."""
        if self._programs is not None:
            self._programs.close()
            self._programs = None
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        for made in self._maps.values():
            made.close()
        self._maps.clear()
        self._stacks = None


def _calls_in(made: KernelMap) -> int:
    """Return of how many calls *made* keeps data."""
    pairs = made.read()
    if made.layout.kind == "calls":
        return len(pairs)
    ends = [field.offset + field.size for field in made.layout.value]
    step = 1 + align_up(max(ends, default=0), 8) // 8  # a slot is the key, 0 while it is free, and the value
    return sum(1 for key in memoryview(pairs[0][1]).cast("Q")[::step] if key)


def _links(plan: Plan, attachment: Attachment) -> int:
    """Return how many descriptors hold *attachment* at most."""
    return 1 if plan.programs[attachment.program].way in MULTI_WAYS else len(attachment.sites)
