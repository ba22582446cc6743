"""The buffers of a trace instance, one for each CPU: their events merged in the order of time.

A buffer is read page by page. An event that another CPU has recorded earlier may become visible a little later, so the
newest ones wait until nothing older can come: what is older than the moment at which reading began, less some slack.
"""

from __future__ import annotations

import os
import re
import select
import time

from kprobes.engines.kernel.files import read_text
from kprobes.engines.kernel.trace_pages import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # time, CPU, data of its page, where the event begins there
    Traced = tuple[int, int, bytes, int]

# Between the time that an event gets and its being there, its CPU does nothing else; an emulated one may be held up.
SLACK_NS = 2_000_000
# So many pages are read from one CPU before the others have their turn: a probe may see the reading itself.
_MOST_PAGES = 64
_FOREVER = 1 << 63
_PAGE_SIZE = re.compile(r"char data;\s*offset:(\d+);\s*size:(\d+);")
_LOSSES = re.compile(r"^(?:overrun|commit overrun|dropped events): (\d+)$", re.MULTILINE)


class TraceBuffers:
    """The buffers of the instance at *path*; *header* is the text of `events/header_page`. A resource."""

    def __init__(self, path: str, header: str) -> None:
        found = _PAGE_SIZE.search(header)
        self._page_size = int(found[1]) + int(found[2]) if found else 4096
        self._path = path
        self._fds: dict[int, int] = {}
        self._held: list[Traced] = []
        self._poll = select.poll()
        try:
            for name in os.listdir(f"{path}/per_cpu"):  # noqa: PTH208
                fd = os.open(f"{path}/per_cpu/{name}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._fds[int(name.removeprefix("cpu"))] = fd
                self._poll.register(fd, select.POLLIN)
        except BaseException:
            self.close()
            raise

    def wait(self, timeout_s: float) -> bool:
        """Wait for an event for up to *timeout_s* seconds; return whether one may be there."""
        if self._held:
            time.sleep(max(0.0, min(timeout_s, SLACK_NS / 1e9)))
            return True
        return bool(self._poll.poll(max(0.0, timeout_s) * 1000))

    def take(self, *, final: bool = False) -> list[Traced]:
        """Return the events that are there in the order of time; *final*: nothing more is recorded, so all of them.

        Raises:
            FormatError: a page is malformed.
        """
        horizon = _FOREVER if final else time.clock_gettime_ns(time.CLOCK_MONOTONIC) - SLACK_NS
        events = self._held
        for cpu, fd in self._fds.items():
            read, is_all = self._read(cpu, fd)
            events += read
            if not is_all:
                horizon = min(horizon, read[-1][0])
        events.sort(key=lambda one: one[0])
        ready = next((at for at, one in enumerate(events) if one[0] > horizon), len(events))
        self._held = events[ready:]
        return events[:ready]

    def _read(self, cpu: int, fd: int) -> tuple[list[Traced], bool]:
        """Return what the buffer of a CPU holds, and whether it is all of it."""
        events: list[Traced] = []
        for _ in range(_MOST_PAGES):
            try:
                data = os.read(fd, self._page_size)
            except BlockingIOError:
                return events, True
            if not data:
                return events, True
            page = Page(data)
            events += [(moment, cpu, data, start) for moment, start, _ in page.events]
        return events, not events

    def lost(self) -> int:
        """Return how many events found no room, or were overwritten before they were read."""
        texts: Iterable[str] = (read_text(f"{self._path}/per_cpu/cpu{cpu}/stats") for cpu in self._fds)
        return sum(int(number) for text in texts for number in _LOSSES.findall(text))

    def close(self) -> None:
        """Let go of the buffers; idempotent."""
        while self._fds:
            os.close(self._fds.popitem()[1])
