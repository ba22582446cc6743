"""What the native back is asked for."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_RING_BYTES = 1 << 22
CALLS = 16384
CALL_WAYS = 4


@dataclass(frozen=True, slots=True)
class NativeTarget:
    """Where a handler is to run: *sites* is the number of sites of the whole plan, *counted* that of which there are
    counters (see `model.shared.counted_sites`). *number* tells the plan's handlers apart.

    *ring_bytes* is the size of each thread's ring, *calls* bounds the calls in flight of a return probe.
    *after*: the exit part runs behind the probed instruction.
    """

    sites: int
    counted: int
    number: int = 0
    ring_bytes: int = DEFAULT_RING_BYTES
    calls: int = CALLS
    after: bool = False
