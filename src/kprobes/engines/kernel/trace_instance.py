"""A part of tracefs that is ours: an instance with buffers of its own, and the probe events that are enabled in it.

Nobody else's trace is touched. Both outlive their maker, unlike what goes by descriptors: so the instance's name says
whose it is (see `owners`), a small shell waits for our end to take everything away if we can't, and each start takes
away what a dead owner has left all the same. What is enabled in an instance of ours was defined by us, whatever its
group.

Source: Documentation/trace/ftrace.rst, "Instances"; Documentation/trace/kprobetrace.rst.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from kprobes.engines.kernel.files import read_text
from kprobes.engines.kernel.owners import group_of, is_abandoned, namespace
from kprobes.errors import SyscallError, UnsupportedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Waits for a line (all is cleaned up) or the end of its input (the owner is dead), then takes away the instance and the
# events named. A dead process's own hold on them goes a moment after its pipe.
_GUARD = """
trap '' INT TERM HUP
cd "$1" || exit
read -r line && exit
instance=instances/$2
shift 2
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  [ -d "$instance" ] || break
  echo 0 > "$instance/events/enable"
  rmdir "$instance" && break
  sleep 0.1
done 2>/dev/null
for event; do echo "-:$event" >> dynamic_events; done 2>/dev/null
"""
# So long the kernel may take to let go of what was just closed.
_PATIENCE_S = 2.0
_PAUSE_S = 0.02
# The memory of all buffers together, of one by default, and what one needs.
_MOST_KB, _USUAL_KB, _LEAST_KB = 1 << 16, 1408, 64


class TraceInstance:
    """An instance with the clock of `now()` for the events *wanted* (group, empty for one of ours, and name); *names*
    are their `group/event`, in that order."""

    def __init__(self, root: str, wanted: Sequence[tuple[str, str]]) -> None:
        if not root or not os.access(f"{root}/instances", os.W_OK):
            raise UnsupportedError(
                "tracefs can't be written", hint="run as root; `kprobes doctor` says what works here"
            )
        remove_leftovers(root)
        self.root = root
        self.name = _make_instance(root)
        self.path = f"{root}/instances/{self.name}"
        self.names = _names_of(self.name, wanted)
        self._defined: list[str] = []
        self._is_open = True
        self._guard: tuple[int, int] | None = None
        try:
            self._guard = _spawn_guard(root, self.name, self.names)
            self.set("trace_clock", "mono")
            self._share_memory(os.cpu_count() or 1)
            # Readers are woken by the first event, not by a buffer that is half full.
            self.set("buffer_percent", "0", needed=False)
            self.set("options/record-tgid", "1", needed=False)
        except BaseException:
            self.close()
            raise

    def _share_memory(self, cpus: int) -> None:
        """Let the buffers of many CPUs be smaller than the kernel makes them, 1.4 MB each."""
        if _MOST_KB // cpus < _USUAL_KB:
            self.set("buffer_size_kb", str(max(_LEAST_KB, _MOST_KB // cpus)), needed=False)

    def set(self, file: str, text: str, *, needed: bool = True, append: bool = False) -> None:
        """Write *text* to *file* of the instance, or *append* it there.

        Raises:
            SyscallError: the kernel refuses it, and it is *needed*.
        """
        code = _write(f"{self.path}/{file}", text, append=append)
        if code and needed:
            raise SyscallError(f"writing {file} of a trace instance", code)

    def define(self, file: str, definition: str, name: str) -> int:
        """Define the event *name* by *definition*, in `kprobe_events` or `uprobe_events`; return 0 or the errno.

        Raises:
            UsageError: there is an event of this name.
        """
        if os.access(f"{self.root}/events/{name}", os.F_OK):
            raise UsageError(
                f"there is an event {name} already", hint="leave the group out, or give the event another name"
            )
        code = _write(f"{self.root}/{file}", f"{definition}\n", append=True)
        if not code:
            self._defined.append(name)
        return code

    def enable(self, name: str) -> int:
        """Let the event *name* be recorded; return 0 or the errno."""
        return _write(f"{self.path}/events/{name}/enable", "1")

    def disable(self, name: str) -> None:
        """Let the event *name* not be recorded, nor hit, until `enable`."""
        self.set(f"events/{name}/enable", "0")

    def filter(self, name: str, text: str) -> None:
        """Let only those hits of the event *name* be recorded that the filter *text* holds for.

        Raises:
            UsageError: the kernel doesn't take it; with what it says.
        """
        file = f"{self.path}/events/{name}/filter"
        code = _write(file, text)
        if code == errno.EINVAL:
            told = " ".join(read_text(file).split("\n", 1)[-1].replace("^", " ").split())
            raise UsageError(
                f"the kernel refuses the filter {text!r}: {told}", hint="docs/definitions.md has the rules"
            )
        if code:
            raise SyscallError(f"setting the filter of {name}", code)

    def format(self, name: str) -> str:
        """Return the text of the event's `format` file."""
        return read_text(f"{self.root}/events/{name}/format")

    def stop(self) -> None:
        """Let nothing be recorded any more; what was recorded stays. Idempotent."""
        if os.access(self.path, os.F_OK):
            _write(f"{self.path}/events/enable", "0")

    def close(self) -> None:
        """Take away the events and the instance; idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self.stop()
        _remove(self.path)
        while self._defined:
            _write(f"{self.root}/dynamic_events", f"-:{self._defined.pop()}\n", append=True)
        if self._guard is not None:
            pid, pipe = self._guard
            self._guard = None
            _dismiss(pid, pipe)


def remove_leftovers(root: str) -> list[str]:
    """Take away the instances, and their events, whose owner is gone; return the names of the events."""
    ours = namespace()
    removed: list[str] = []
    for name in _listed(f"{root}/instances"):
        if not is_abandoned(name.rpartition("_")[0], ours):
            continue
        path = f"{root}/instances/{name}"
        events = {
            line.strip().replace(":", "/") for line in read_text(f"{path}/set_event").splitlines() if line.strip()
        }
        events |= {f"{name}/{event}" for event in _listed(f"{root}/events/{name}") if event not in ("enable", "filter")}
        _write(f"{path}/events/enable", "0")
        _remove(path)
        removed += [
            event for event in sorted(events) if not _write(f"{root}/dynamic_events", f"-:{event}\n", append=True)
        ]
    return removed


def remove_all_leftovers(root: str) -> list[str]:
    """Take away all that dead processes of ours have left in the tracefs at *root*; return the names of the events."""
    from kprobes.engines.kernel.kretprobe_events import leftovers

    found = leftovers(read_text(f"{root}/kprobe_events"), namespace())
    removed = [name for name in found if not _write(f"{root}/dynamic_events", f"-:{name}\n", append=True)]
    return removed + remove_leftovers(root)


def _names_of(own: str, wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Return a `group/event` for each of *wanted*; two of one name become events of their own in further groups."""
    found: list[str] = []
    for group, event in wanted:
        name, turn = f"{group or own}/{event}", 0
        while not group and name in found:
            turn += 1
            name = f"{own}_{turn}/{event}"
        found.append(name)
    return found


def _make_instance(root: str) -> str:
    """Make an instance; return its name, which nobody else has: two threads of ours may make one at once."""
    owner, number = group_of(os.getpid()), 0
    while True:
        try:
            os.mkdir(f"{root}/instances/{owner}_{number}")  # noqa: PTH102  (no pathlib in the engine)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise SyscallError("making a trace instance", error.errno or 0) from error
        else:
            return f"{owner}_{number}"


def _listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))  # noqa: PTH208  (no pathlib in the engine)
    except OSError:
        return []


def _remove(path: str) -> None:
    """Remove an instance, as soon as nobody holds a file of it."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return os.rmdir(path)  # noqa: PTH106
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= end:
                return None
        time.sleep(_PAUSE_S)


def _write(path: str, text: str, *, append: bool = False) -> int:
    """Write *text* by one write; return 0 or the errno."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC))
    except OSError as error:
        return error.errno or errno.EIO
    try:
        os.write(fd, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        os.close(fd)
    return 0


def _spawn_guard(root: str, name: str, events: Sequence[str]) -> tuple[int, int]:
    """Start the shell that outlives us; return its process and the pipe whose end wakes it."""
    reading, writing = os.pipe()
    # Seen from the shell, `/proc/self` would be itself.
    place = root.replace("/proc/self/", f"/proc/{os.getpid()}/")
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _GUARD, "sh", place, name, *events],
            {"PATH": "/usr/bin:/bin"},
            file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)],
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    return pid, writing


def _dismiss(pid: int, pipe: int) -> None:
    """Tell the shell that all is cleaned up; it may have been killed."""
    with suppress(BrokenPipeError):
        os.write(pipe, b"done\n")
    os.close(pipe)
    with suppress(ChildProcessError):  # who ignores SIGCHLD has no children to wait for
        os.waitpid(pid, 0)
