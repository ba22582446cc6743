"""Who a thread was: the kernel's records of trace events have its number alone.

Those that live are looked up in /proc. Of the others the kernel has kept the names and the processes when it switched
to another one while tracing (`saved_cmdlines`, `saved_tgids`); it prints the names from there. A thread that has
changed its name since the hit, by an exec, is called by the new one.
"""

from __future__ import annotations

import os
import re
import time

from kprobes.engines.kernel.files import read_bytes
from kprobes.engines.kernel.owners import FIRST_NAMESPACE, namespace
from kprobes.model.fetched import COMM_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# What the kernel prints.
IDLE, UNKNOWN = b"<idle>", b"<...>"
_PIECE = 1 << 16
# A thread is gone from /proc a moment before its CPU turns to another one, which is when the kernel keeps its name.
_LAST_SWITCH_S = 0.003
_WORK = re.compile(rb"[-+].*\Z", re.DOTALL)


class TraceThreads:
    """Names and processes of threads, by the tracefs at *root*. A resource: the kernel's files stay open, since a probe
    may see each of them opened."""

    def __init__(self, root: str) -> None:
        # The kernel's numbers are those of the first namespace: in another one /proc has others.
        self._has_proc = namespace() == FIRST_NAMESPACE
        self._names: dict[int, bytes] = {}
        self._processes: dict[int, int] = {}
        self._fds = [_opened(f"{root}/{name}") for name in ("saved_cmdlines", "saved_tgids")]

    def learn(self, threads: Iterable[int]) -> None:
        """Find out about *threads*, which have just been seen. A name may have changed since the last time."""
        wanted = {number for number in threads if number}
        if not wanted:
            return
        living = {thread: name for thread in wanted if (name := self._proc(thread, "comm"))}
        if self._has_proc and len(living) < len(wanted):
            time.sleep(_LAST_SWITCH_S)
        kept = _table(self._fds[0])
        unknown = wanted - self._processes.keys()
        tgids = _table(self._fds[1]) if unknown else {}
        for thread in wanted:
            if found := living.get(thread) or kept.get(thread):
                self._names[thread] = plain_name(found)
        for thread in unknown:
            process = int(tgids.get(thread, b"0")) or self._process(thread)
            if process:
                self._processes[thread] = process

    def name(self, thread: int) -> bytes:
        """Return the name of *thread*."""
        return self._names.get(thread, UNKNOWN) if thread else IDLE

    def process(self, thread: int) -> int:
        """Return the process of *thread*; itself where that isn't known."""
        return self._processes.get(thread, thread)

    def close(self) -> None:
        """Let go of the files; idempotent."""
        while self._fds:
            if (fd := self._fds.pop()) >= 0:
                os.close(fd)

    def _proc(self, thread: int, file: str) -> bytes:
        return (read_bytes(f"/proc/{thread}/{file}") or b"") if self._has_proc else b""

    def _process(self, thread: int) -> int:
        for line in self._proc(thread, "status").splitlines():
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
        return 0


def plain_name(name: bytes) -> bytes:
    """Return the *name* of a thread in /proc as the kernel itself has it: without what a worker works on, and cut."""
    name = name.rstrip(b"\n")
    return (_WORK.sub(b"", name) if name.startswith(b"kworker/") else name)[: COMM_SIZE - 1]


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _table(fd: int) -> dict[int, bytes]:
    """Return what a file says whose lines are a thread's number and something about it."""
    pieces: list[bytes] = []
    if fd >= 0:
        os.lseek(fd, 0, os.SEEK_SET)
        while piece := os.read(fd, _PIECE):
            pieces.append(piece)
    pairs = (line.partition(b" ") for line in b"".join(pieces).split(b"\n"))
    return {int(number): rest for number, _, rest in pairs if number.isdigit()}
