"""Times of events as times of day: handlers have the monotonic clock of their kernel, people that on the wall.

The two drift apart: the one on the wall is set and corrected, and the monotonic one stands still while the machine
sleeps. So their distance is asked for anew every now and then.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SECOND = 1_000_000_000
EVERY_S = 1.0
_TRIES = 5


def own_offset() -> int:
    """Return by how many ns this machine's wall clock is ahead of its monotonic one.

    Who is taken off its processor while it asks is wrong by that time: the shortest of a few tries is believed.
    """
    tries = []
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        tries.append((after - before, wall - (before + after) // 2))
    return min(tries)[1]


class WallClock:
    """Turns times of `now()` into ns since 1970. *offset* tells the distance of the clocks, asked every *every_s*."""

    def __init__(self, offset: Callable[[], int] = own_offset, every_s: float = EVERY_S) -> None:
        self._ask = offset
        self._every_s = every_s
        self._due = 0.0
        self._offset = 0

    def wall_ns(self, time_ns: int) -> int:
        """Return the time of day of *time_ns* in ns since 1970."""
        now = time.monotonic()
        if now >= self._due:
            self._offset = self._ask()
            self._due = now + self._every_s
        return time_ns + self._offset


def format_utc(wall_ns: int) -> str:
    """Return *wall_ns* as `2026-11-21T18:50:00.123456789Z`."""
    seconds, rest = divmod(wall_ns, _SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def format_local(wall_ns: int) -> str:
    """Return *wall_ns* as the time of day here: `18:50:00.123456`."""
    seconds, rest = divmod(wall_ns, _SECOND)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1000:06d}"
