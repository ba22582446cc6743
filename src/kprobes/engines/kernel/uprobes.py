"""uprobes: one by one through perf, or all of a file by one link where the kernel can (uprobe.multi, since Linux 6.6).

The kernel looks at a probed instruction only when some process in the probe's scope has the file mapped. Where none
has, a uprobe on an instruction that the kernel does not support is accepted and never armed. So each file is mapped
here, executable but never executed, while its probes go in; and where the probe is limited to a process that has not
mapped the file yet, the probes are put on this process first, for a rehearsal.

One link for many places matters most on the way out: taking away perf uprobes costs a grace period each.

An instruction that begins with 0x62 in 64-bit code is one of AVX-512 (EVEX). The kernel does not know that encoding: it
takes the next opcode for one of the old ones, may accept it (seen on 6.18), and lets the program go on with damaged
memory. So such a place is refused here.

Source: kernel/events/uprobes.c (install_breakpoint, prepare_uprobe), Linux 6.18.
"""

from __future__ import annotations

import mmap
import os

from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.files import read_text
from kprobes.engines.kernel.links import find_refused
from kprobes.engines.kernel.refusals import file_refusal, place_of
from kprobes.engines.kernel.syscall import FileProbes
from kprobes.errors import UnprobeableError
from kprobes.frozen import replace
from kprobes.model.plan import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.kernel.links import Events, Place

_ELF64 = b"\x7fELF\x02"
_EVEX = 0x62


class MappedFile:
    """*path* mapped executable for as long as the context lasts; nothing where it can't be mapped."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._memory: mmap.mmap | None = None

    def __enter__(self) -> MappedFile:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return self
        try:
            self._memory = mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
        except (OSError, ValueError):
            pass  # not a regular file, empty, or on a noexec mount: the kernel will say so itself
        finally:
            os.close(fd)
        return self

    def __exit__(self, *_: object) -> None:
        if self._memory is not None:
            self._memory.close()

    def check(self, places: Sequence[Place]) -> None:
        """Look at the instructions of *places* where the file is one of 64-bit code.

        Raises:
            UnprobeableError: the kernel would accept one of them and damage the program.
        """
        memory = self._memory
        if memory is None or memory[:5] != _ELF64:
            return
        for place in places:
            offset = place.site.address + place.site.offset
            if offset < len(memory) and memory[offset] == _EVEX:
                raise UnprobeableError(
                    place_of(place.site),
                    "the kernel's uprobes break the AVX-512 instruction there",
                    hint="--engine process can probe it",
                )


def maps_file(maps: str, path: str) -> bool:
    """Return whether *maps*, the text of a /proc/PID/maps, has the file *path* mapped executable."""
    try:
        status = os.stat(path)  # noqa: PTH116  (pathlib takes longer to import than this whole module)
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) > 4 and "x" in fields[1] and fields[3] == device and int(fields[4]) == status.st_ino:
            return True
    return False


def attach_singly(events: Events, place: Place) -> int:
    """Attach the program of *place* through perf; return what holds it there."""
    path, pid = place.site.path, place.pid
    with MappedFile(path) as file:
        file.check((place,))
        if pid >= 0 and not maps_file(read_text(f"/proc/{pid}/maps"), path):
            os.close(events.open_uprobe(place.site, place.way, os.getpid()))
        return events.attach(events.open_uprobe(place.site, place.way, pid), place)


def attach_together(places: Sequence[Place]) -> int:
    """Attach the one program of *places*, which are in one file, by one link; return it.

    Raises:
        UnprobeableError: a place is refused; the error names it.
    """
    path, pid = places[0].site.path, places[0].pid
    with MappedFile(path) as file:
        file.check(places)
        if pid >= 0 and not maps_file(read_text(f"/proc/{pid}/maps"), path):
            os.close(_link([replace(place, pid=os.getpid()) for place in places]))
        return _link(places)


def _link(places: Sequence[Place]) -> int:
    link = _attempt(places)
    if link < 0:
        worst, number = find_refused(places, _attempt, -link)
        raise file_refusal(worst.site, worst.way, number)
    return link


def _attempt(places: Sequence[Place]) -> int:
    first = places[0]
    offsets = tuple(place.site.address + place.site.offset for place in places)
    cookies = tuple(place.number for place in places)
    flags = syscall.RETURN_FLAG if first.way == Way.URETPROBE else 0
    # pid 0 is "all processes" here, and -1 is it in a plan.
    probes = FileProbes(first.site.path, offsets, cookies, max(first.pid, 0), flags)
    return syscall.link_uprobe_multi(first.program, probes)


def close_all(descriptors: list[int]) -> None:
    """Close *descriptors*, the last one first, and empty the list."""
    while descriptors:
        os.close(descriptors.pop())
