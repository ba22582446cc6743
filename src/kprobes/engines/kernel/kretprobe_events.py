"""Return probes with a `maxactive` of their own: only tracefs takes one, a perf event does not. Before Linux 6.7 only
tracefs tells their misses, too.

A tracefs event outlives its maker, unlike everything else here. So its group says whose it is (the process, by number,
start time and pid namespace), a small shell waits for our end to take the events away if we can't, and each start takes
away what a dead owner has left all the same.

Source: Documentation/trace/kprobetrace.rst; kernel/trace/trace_kprobe.c, Linux 5.10 to 6.18.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kprobes.engines.kernel.files import read_bytes, read_text
from kprobes.engines.kernel.owners import group_of, is_abandoned, namespace
from kprobes.engines.kernel.refusals import kernel_refusal
from kprobes.errors import UnsupportedError, UsageError
from kprobes.model.plan import Way

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kprobes.model.plan import Site

_MOST = 4096  # KRETPROBE_MAXACTIVE_MAX

# Waits for a line (we have cleaned up) or the end of its input (we are dead), then removes the events of its group.
# A dead process's own hold on the events goes a moment after its pipe.
_GUARD = """
trap '' INT TERM HUP
cd "$1" && read -r line && exit
for try in 1 2 3 4 5 6 7 8 9 10; do
  left=
  while read -r definition rest; do
    case "$definition" in
      *:"$2"/*) echo "-:${definition#*:}" 2>/dev/null >> kprobe_events || left=1 ;;
    esac
  done < kprobe_events
  [ "$left" ] || exit
  sleep 0.1
done
"""


def leftovers(events: str, ours: str) -> list[str]:
    """Return the `GROUP/EVENT` names in the text of kprobe_events whose owner is gone, one of the namespace *ours*."""
    found = []
    for line in events.splitlines():
        name = line.split(maxsplit=1)[0].partition(":")[2] if line.strip() else ""
        if is_abandoned(name.partition("/")[0], ours):
            found.append(name)
    return found


def parse_profile(profile: str) -> dict[str, int]:
    """Return event name -> misses, of the text of kprobe_profile (name, hits, misses)."""
    rows = [line.split() for line in profile.splitlines()]
    return {row[0]: int(row[2]) for row in rows if len(row) == 3 and row[2].isdigit()}


class KretprobeEvents:
    """The return probes that this process has defined in tracefs at *root*; a resource."""

    def __init__(self, root: str) -> None:
        if not os.access(f"{root}/kprobe_events", os.W_OK):
            raise UnsupportedError("maxactive needs tracefs, which can't be written", hint="run as root")
        self._root = root
        self._group = group_of(os.getpid())
        self._names: list[str] = []
        self._guard: tuple[int, int] | None = None
        for name in leftovers(read_text(f"{root}/kprobe_events"), namespace()):
            self._write(f"-:{name}")

    def define(self, site: Site, maxactive: int) -> tuple[str, int]:
        """Define a return probe on the function of *site* with room for *maxactive* calls; return name and perf id.

        Raises:
            UsageError: more than the kernel takes.
            UnprobeableError, SymbolNotFoundError, SyscallError: refused.
        """
        if not 0 < maxactive <= _MOST:
            raise UsageError(f"maxactive {maxactive} is out of range", hint=f"the kernel takes 1 to {_MOST}")
        if self._guard is None:
            self._guard = _spawn_guard(self._root, self._group)
        event = f"r{len(self._names)}_{os.getpid()}"
        module = f"{site.module}:" if site.module else ""
        place = f"{site.address + site.offset:#x}" if site.address else f"{module}{site.symbol}"
        code = self._write(f"r{maxactive}:{self._group}/{event} {place}")
        if code:
            raise kernel_refusal(site, Way.KRETPROBE, code)
        self._names.append(event)
        return event, int(read_bytes(f"{self._root}/events/{self._group}/{event}/id") or b"0")

    def missed(self, names: Iterable[str]) -> int:
        """Return how many calls the events *names* have missed: kernels before 6.7 tell it nowhere else."""
        misses = parse_profile(read_text(f"{self._root}/kprobe_profile"))
        return sum(misses.get(name, 0) for name in names)

    def _write(self, line: str) -> int:
        """Append *line* to kprobe_events; return 0 or the errno."""
        try:
            fd = os.open(f"{self._root}/kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            return error.errno or 0
        try:
            os.write(fd, f"{line}\n".encode())
        except OSError as error:
            return error.errno or 0
        finally:
            os.close(fd)
        return 0

    def close(self) -> None:
        """Remove the events, once what used them is closed; idempotent."""
        while self._names:
            self._write(f"-:{self._group}/{self._names.pop()}")
        if self._guard is not None:
            pid, pipe = self._guard
            os.write(pipe, b"done\n")
            os.close(pipe)
            os.waitpid(pid, 0)
            self._guard = None


def _spawn_guard(root: str, group: str) -> tuple[int, int]:
    """Start the shell that outlives us; return its process and the pipe whose end wakes it."""
    reading, writing = os.pipe()
    # Seen from the shell, `/proc/self` would be itself.
    place = root.replace("/proc/self/", f"/proc/{os.getpid()}/")
    actions = [(os.POSIX_SPAWN_DUP2, reading, 0)]
    try:
        pid = os.posix_spawn(
            "/bin/sh", ["sh", "-c", _GUARD, "sh", place, group], {"PATH": "/usr/bin:/bin"}, file_actions=actions
        )
    finally:
        os.close(reading)
    return pid, writing
