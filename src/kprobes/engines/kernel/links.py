"""One function per way into the kernel: each attaches a loaded program and returns the descriptors that hold it there.

A perf event's link holds the event, so its own descriptor is closed at once; without links (before Linux 5.15) the
event is what holds the program, and there are no cookies.
"""

from __future__ import annotations

import errno
import os

from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.files import read_bytes, read_text
from kprobes.engines.kernel.refusals import (
    file_refusal,
    kernel_refusal,
    no_cookies,
    place_of,
    tracepoint_refusal,
)
from kprobes.engines.kernel.syscall import PERF_TYPE_TRACEPOINT, AttachType, PerfEvent
from kprobes.errors import UnprobeableError, UnsupportedError
from kprobes.frozen import dataclass
from kprobes.model.plan import RETURN_WAYS, Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from kprobes.errors import KprobesError
    from kprobes.model.plan import Site

    P = TypeVar("P")

_PMUS = "/sys/bus/event_source/devices/"
_NO_LINK = (errno.EINVAL, errno.EOPNOTSUPP, syscall.ENOTSUPP, errno.E2BIG)


@dataclass(frozen=True, slots=True)
class Place:
    """A site with its number, the program that goes there (a descriptor) and the process that it is limited to."""

    number: int
    site: Site
    way: str
    program: int
    cookie: bool
    pid: int = -1


@dataclass(frozen=True, slots=True)
class Pmu:
    """A dynamic perf source: its type number, the bit of `config` that asks for the return, and that from which on a
    reference counter's offset stands (0: it knows none)."""

    type: int
    return_bit: int
    counter_bit: int = 0


def read_pmu(name: str) -> Pmu | None:
    """Return the perf source `kprobe` or `uprobe`, or None where the kernel has none."""
    number = read_bytes(f"{_PMUS}{name}/type")
    if number is None:
        return None
    bit = read_text(f"{_PMUS}{name}/format/retprobe").strip().rpartition(":")[2]
    counter = read_text(f"{_PMUS}{name}/format/ref_ctr_offset").strip().rpartition(":")[2].partition("-")[0]
    return Pmu(int(number), int(bit) if bit.isdigit() else 0, int(counter) if counter.isdigit() else 0)


def _counter(pmu: Pmu, site: Site) -> int:
    """Return the bits of `config` for the reference counter of *site*.

    Raises:
        UnsupportedError: this kernel can't count it up.
    """
    if not site.counter:
        return 0
    if not pmu.counter_bit or site.counter >> 64 - pmu.counter_bit:
        raise UnsupportedError(
            f"perf has no room for the reference counter at {site.counter:#x}", hint="--engine tracefs has"
        )
    return site.counter << pmu.counter_bit


def any_cpu() -> int:
    """Return a CPU that is online: a program on an event runs on all CPUs, whichever the event was opened on."""
    return min(os.sched_getaffinity(0))  # the kernel leaves out those that are offline


class Events:
    """Opens perf events and attaches programs to them; remembers what this kernel has."""

    def __init__(self) -> None:
        self._pmus: dict[str, Pmu | None] = {}
        self._cpu = any_cpu()
        self._links = True

    def pmu(self, name: str) -> Pmu:
        """Return a perf source.

        Raises:
            UnsupportedError: the kernel is built without it.
        """
        if name not in self._pmus:
            self._pmus[name] = read_pmu(name)
        found = self._pmus[name]
        if found is None:
            option = "CONFIG_KPROBE_EVENTS" if name == "kprobe" else "CONFIG_UPROBE_EVENTS"
            raise UnsupportedError(
                f"this kernel has no {name}s ({option} is off)", hint="use --vm: a kernel in a box that has them"
            )
        return found

    def open_kprobe(self, site: Site, way: str) -> int:
        """Return a perf event on a kernel address; the breakpoint is armed from now on."""
        pmu = self.pmu("kprobe")
        config = 1 << pmu.return_bit if way in RETURN_WAYS else 0
        if site.address:
            event = PerfEvent(pmu.type, config, 0, site.address + site.offset, -1, self._cpu)
            result = syscall.perf_event_open(event)
        else:
            symbol = f"{site.module}:{site.symbol}" if site.module else site.symbol
            name = syscall.buffer(symbol.encode() + b"\0")
            event = PerfEvent(pmu.type, config, syscall.address_of(name), site.offset, -1, self._cpu)
            result = syscall.perf_event_open(event)
        if result < 0:
            raise kernel_refusal(site, way, -result)
        return result

    def open_uprobe(self, site: Site, way: str, pid: int) -> int:
        """Return a perf event on an offset of a file, in one process or (*pid* -1) in all."""
        pmu = self.pmu("uprobe")
        config = (1 << pmu.return_bit if way in RETURN_WAYS else 0) | _counter(pmu, site)
        path = syscall.buffer(os.fsencode(site.path) + b"\0")
        cpu = self._cpu if pid < 0 else -1
        event = PerfEvent(pmu.type, config, syscall.address_of(path), site.address + site.offset, pid, cpu)
        result = syscall.perf_event_open(event)
        if result < 0:
            raise file_refusal(site, way, -result)
        return result

    def open_tracepoint(self, site: Site, number: int) -> int:
        """Return a perf event on the tracepoint whose id is *number*."""
        result = syscall.perf_event_open(PerfEvent(PERF_TYPE_TRACEPOINT, number, cpu=self._cpu))
        if result < 0:
            raise tracepoint_refusal(site, Way.TRACEPOINT, -result)
        return result

    def attach(self, event: int, place: Place) -> int:
        """Attach the program of *place* to a perf event, which this takes over; return what holds it there."""
        try:
            if self._links:
                link = syscall.link_perf_event(place.program, event, place.number)
                if link >= 0:
                    os.close(event)
                    return link
                if -link not in _NO_LINK:
                    raise _refusal(place, -link)
                if place.cookie:
                    raise no_cookies(place.site, place.way)
            result = syscall.perf_set_bpf(event, place.program)
            if result < 0:
                raise _refusal(place, -result)
        except BaseException:
            os.close(event)
            raise
        self._links = False
        return event


def _refusal(place: Place, number: int) -> KprobesError:
    if place.way in (Way.UPROBE, Way.URETPROBE):
        return file_refusal(place.site, place.way, number)
    if place.way == Way.TRACEPOINT:
        if number == errno.EACCES:
            return UnprobeableError(place_of(place.site), "the handler reads beyond the fields of this tracepoint")
        return tracepoint_refusal(place.site, place.way, number)
    return kernel_refusal(place.site, place.way, number)


def attach_tracing(place: Place) -> int:
    """Attach an fentry or fexit program to the function that it was loaded for; return the link."""
    if place.cookie:
        attach_type = AttachType.FENTRY if place.way == Way.FENTRY else AttachType.FEXIT
        link = syscall.link_tracing(place.program, attach_type, place.number)
        if -link in _NO_LINK:
            raise no_cookies(place.site, place.way)
    else:
        link = syscall.raw_tracepoint_open(place.program, "")
    if link < 0:
        raise _tracing_refusal(place, -link)
    return link


def _tracing_refusal(place: Place, number: int) -> KprobesError:
    if number in (errno.EOPNOTSUPP, syscall.ENOTSUPP):
        return UnsupportedError(f"this kernel has no {place.way}", hint="a kprobe may work; `kprobes doctor` says what")
    return kernel_refusal(place.site, place.way, number)


def attach_raw_tracepoint(place: Place) -> int:
    """Attach a program to the raw tracepoint `category:name` (the category is for people); return the link."""
    link = syscall.raw_tracepoint_open(place.program, place.site.symbol.rpartition(":")[2])
    if link < 0:
        raise tracepoint_refusal(place.site, place.way, -link)
    return link


def attach_kprobe_multi(program: int, way: str, sites: Sequence[Site], numbers: Sequence[int]) -> int:
    """Attach one program to the sites *numbers* of *sites* by one link; return it. If one is refused, the error names
    it."""

    def attempt(part: Sequence[int]) -> int:
        flags = syscall.RETURN_FLAG if way == Way.KRETPROBE_MULTI else 0
        addresses = [sites[number].address for number in part]
        if all(addresses):
            return syscall.link_kprobe_multi(program, addresses, part, flags)
        return syscall.link_kprobe_multi(program, [sites[number].symbol for number in part], part, flags)

    link = attempt(numbers)
    if -link in (errno.EOPNOTSUPP, syscall.ENOTSUPP):
        raise UnsupportedError(f"this kernel has no {way} (CONFIG_FPROBE is off)")
    if link < 0:
        worst, error = find_refused(numbers, attempt, -link)
        raise kernel_refusal(sites[worst], way, error)
    return link


def find_refused(places: Sequence[P], attempt: Callable[[Sequence[P]], int], number: int) -> tuple[P, int]:
    """Return a place that is refused by itself, and its errno, where *attempt* at all *places* failed with *number*.

    *attempt* returns a link, which is closed, or minus the errno. Halves the places, so it takes some 10 attempts for
    1,000; gives the first place where they are refused only together.
    """
    while len(places) > 1:
        for half in (places[: len(places) // 2], places[len(places) // 2 :]):
            link = attempt(half)
            if link < 0:
                places, number = half, -link
                break
            os.close(link)
        else:
            break
    return places[0], number
