"""What /proc tells of a process: mappings, state, who traces it.

Parsers take text; the readers beside them open the file. A process can vanish at any moment: readers raise
`ProcessLookupError` or `FileNotFoundError`, which `target.py` turns into words.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SECCOMP_OFF = 0


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps: [*start*, *end*) shows *path* from file *offset*."""

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    path: str

    @property
    def executable(self) -> bool:
        """Tell whether code can run here."""
        return self.permissions[2] == "x"

    @property
    def shared(self) -> bool:
        """Tell whether writes reach the file, and other processes."""
        return self.permissions[3] == "s"

    @property
    def deleted(self) -> bool:
        """Tell whether the file has no name any more."""
        return self.path.endswith(" (deleted)")


@dataclass(frozen=True, slots=True)
class Status:
    """What we use of /proc/PID/status; the signal sets have bit n - 1 for signal n."""

    name: str
    state: str
    tracer: int
    uids: tuple[int, ...]
    seccomp: int
    filters: int
    pending: int
    blocked: int
    shadow_stack: bool


def _parse_mapping(line: str) -> Mapping:
    fields = line.split(None, 5)
    low, _, high = fields[0].partition("-")
    path = fields[5].rstrip("\n") if len(fields) > 5 else ""
    return Mapping(int(low, 16), int(high, 16), fields[1], int(fields[2], 16), fields[3], int(fields[4]), path)


def parse_maps(text: str) -> list[Mapping]:
    """Return the mappings in the text of /proc/PID/maps, in order of address."""
    return [_parse_mapping(line) for line in text.split("\n") if line]


def parse_status(text: str) -> Status:
    """Return what the text of /proc/PID/status or /proc/PID/task/TID/status says."""
    fields = {}
    for line in text.split("\n"):
        key, separator, value = line.partition(":")
        if separator:
            fields[key] = value.strip()
    pending = int(fields.get("SigPnd", "0"), 16) | int(fields.get("ShdPnd", "0"), 16)
    return Status(
        name=fields.get("Name", ""),
        state=fields.get("State", "?")[:1],
        tracer=int(fields.get("TracerPid", "0")),
        uids=tuple(int(uid) for uid in fields.get("Uid", "").split()),
        seccomp=int(fields.get("Seccomp", "0")),
        filters=int(fields.get("Seccomp_filters", "0")),
        pending=pending,
        blocked=int(fields.get("SigBlk", "0"), 16),
        shadow_stack="shstk" in fields.get("x86_Thread_features", "").split(),
    )


def parse_start_time(text: str) -> int:
    """Return the start time (clock ticks since boot) in the text of /proc/PID/stat; the name may hold anything."""
    return int(text[text.rindex(")") + 2 :].split()[19])


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - pathlib costs start-up time
        return file.read()


def read_maps(pid: int) -> list[Mapping]:
    """Return the mappings of *pid*."""
    return parse_maps(_read(f"/proc/{pid}/maps"))


def has_memory(pid: int) -> bool:
    """Tell whether *pid* has mappings: a process that ends gives them up a while before it counts as ended."""
    try:
        return bool(read_maps(live_thread(pid)))
    except PermissionError:
        return True
    except OSError:
        return False


def read_auxiliary(pid: int) -> bytes:
    """Return the auxiliary vector that the kernel gave the program of *pid*, as (key, value) pairs of 8 bytes each."""
    with open(f"/proc/{pid}/auxv", "rb") as file:  # noqa: PTH123
        return file.read()


def read_status(pid: int, tid: int = 0) -> Status:
    """Return the status of *pid*, or of its thread *tid*."""
    return parse_status(_read(f"/proc/{pid}/task/{tid}/status" if tid else f"/proc/{pid}/status"))


def switches(pid: int, tid: int) -> int:
    """Return how often the thread *tid* of *pid* has given up its processor."""
    lines = _read(f"/proc/{pid}/task/{tid}/status").split("\n")
    return sum(int(line.rpartition(":")[2]) for line in lines if "voluntary_ctxt_switches:" in line)


def read_start_time(pid: int) -> int:
    """Return the start time of *pid* in clock ticks since boot; with the pid it names a process for ever."""
    return parse_start_time(_read(f"/proc/{pid}/stat"))


def read_comm(pid: int, tid: int) -> bytes:
    """Return the name of a thread, at most 15 bytes."""
    with open(f"/proc/{pid}/task/{tid}/comm", "rb") as file:  # noqa: PTH123
        return file.read().rstrip(b"\n")


def process_ids() -> list[int]:
    """Return the ids of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def thread_ids(pid: int) -> list[int]:
    """Return the ids of the threads of *pid*."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - pathlib costs start-up time


def leader(tid: int) -> int:
    """Return the process that the thread *tid* belongs to; *tid* itself if that can't be told."""
    try:
        text = _read(f"/proc/{tid}/status")
    except OSError:
        return tid
    found = text.find("\nTgid:")
    return int(text[found + 6 :].split(None, 1)[0]) if found >= 0 else tid


def parent(pid: int) -> int:
    """Return the parent of the process *pid*, 0 if there is none."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return 0
    return int(text[text.rindex(")") + 2 :].split()[1])


def live_thread(pid: int) -> int:
    """Return a thread of *pid* that still has its memory: the first one, or another where that one has ended."""
    if read_status(pid).state not in "ZX":
        return pid
    for tid in thread_ids(pid):
        if tid != pid and read_status(pid, tid).state not in "ZX":
            return tid
    return pid


def blocked_syscall(pid: int, tid: int) -> tuple[int, int] | None:
    """Return (sp, ip) of a thread that sleeps in a system call, None where it runs or can't be asked."""
    fields = _read(f"/proc/{pid}/task/{tid}/syscall").split()
    if len(fields) < 3:
        return None
    return int(fields[-2], 16), int(fields[-1], 16)


def children_of(pid: int, tid: int) -> Iterator[int]:
    """Yield the processes that the thread *tid* started and that still exist."""
    for word in _read(f"/proc/{pid}/task/{tid}/children").split():
        yield int(word)
