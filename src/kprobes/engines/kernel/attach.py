"""The programs of a plan loaded and its links made, all or nothing."""

from __future__ import annotations

import os

from kprobes.engines.kernel import counts, links, uprobes
from kprobes.engines.kernel.holds import Loaded
from kprobes.engines.kernel.links import Events, Place
from kprobes.engines.kernel.maps import wait_for_programs
from kprobes.engines.kernel.program import Binding, Loader
from kprobes.errors import InternalError, SymbolNotFoundError, UnsupportedError, UsageError
from kprobes.frozen import dataclass, replace
from kprobes.model.plan import BTF_WAYS, MULTI_WAYS, LinkStats, Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kprobes.engines.kernel.btf import KernelBtf
    from kprobes.engines.kernel.files import KernelFiles
    from kprobes.engines.kernel.kretprobe_events import KretprobeEvents
    from kprobes.model.plan import Attachment, Plan

_UNBOUND = Binding()

# Return probes of one handler that are worth an event in tracefs each, and the room that these get.
_FEW = 8
_LEAST_ROOM, _ROOM_PER_CPU = 64, 10
_UPROBES = frozenset({Way.UPROBE, Way.URETPROBE})


@dataclass(frozen=True, slots=True)
class Kernel:
    """What an attach needs of the running kernel: its small files and its type information."""

    files: KernelFiles
    btf: KernelBtf


class Programs:
    """The programs of a plan, loaded and attached: they hold everything that probes."""

    def __init__(self, plan: Plan, kernel: Kernel, maps: Mapping[str, int]) -> None:
        """Load the programs of *plan*, with *maps* (name -> descriptor), and attach them in order.

        Raises:
            PrivilegeError, UnsupportedError, UnprobeableError, VerifierError, SyscallError: nothing is left attached.
        """
        self.loaded: list[Loaded] = []
        self._plan = plan
        self._kernel = kernel
        self._events = Events()
        self._kretprobes: KretprobeEvents | None = None
        self._uprobe_multi: bool | None = None
        self._tells_missed: bool | None = None
        self._known: dict[tuple[int, Binding], Loaded] = {}
        self._maps = maps
        self._loader = Loader(maps)
        try:
            for attachment in plan.attachments:
                self._attach(attachment)
        except BaseException:
            self.close()
            raise
        finally:
            self._loader.close()

    def stats(self) -> list[LinkStats]:
        """Return what the kernel counted, one entry for each load of a program."""
        return [LinkStats(one.program, one.way, tuple(one.sites), self._missed(one)) for one in self.loaded]

    def _missed(self, loaded: Loaded) -> int:
        told = loaded.missed()
        if told < 0 and self._kretprobes is not None and len(loaded.events) == len(loaded.sites):
            return max(counts.recursion_misses(loaded.fd), 0) + self._kretprobes.missed(loaded.events)
        return told

    def set_enabled(self, sites: frozenset[int], *, enabled: bool) -> None:
        """Take the programs off *sites*, or put them there again. What is entered last is taken away first.

        Raises:
            UnsupportedError: one link holds a program there and at other sites.
        """
        found = [(one, [hold for hold in one.holds if hold.sites & sites]) for one in self.loaded]
        for hold in (hold for _, holds in found for hold in holds):
            if not hold.sites <= sites:
                other = self._plan.sites[min(hold.sites - sites)].name
                hint = 'enable or disable both together, or attach them with way="kprobe"'
                raise UnsupportedError(f"one link serves it and {other}", hint=hint)
        if not enabled:
            for loaded, holds in reversed(found):
                loaded.let_go(holds)
            wait_for_programs()
            return
        try:
            for hold in (hold for _, holds in found for hold in holds):
                hold.resume()
        except BaseException:
            self.set_enabled(sites, enabled=False)
            raise

    def detach(self) -> None:
        """Take the programs off their sites, the last ones first; they stay loaded. Idempotent."""
        for loaded in reversed(self.loaded):
            loaded.detach()
        if self._kretprobes is not None:
            self._kretprobes.close()
            self._kretprobes = None

    def close(self) -> None:
        """Detach and unload; idempotent."""
        self.detach()
        for loaded in self.loaded:
            loaded.close()

    def _attach(self, attachment: Attachment) -> None:
        way = self._plan.programs[attachment.program].way
        if way in MULTI_WAYS:
            loaded = self._load(attachment.program, Binding())
            sites, numbers = self._plan.sites, attachment.sites
            loaded.hold(numbers, lambda: links.attach_kprobe_multi(loaded.fd, way, sites, numbers))
        elif way in _UPROBES:
            self._attach_uprobes(attachment)
        else:
            self._attach_each(attachment)

    def _attach_each(self, attachment: Attachment) -> None:
        """Attach site by site. A program that is the same for all of them is looked up once: there may be hundreds."""
        planned = self._plan.programs[attachment.program]
        own = planned.cookie == "site" or planned.way in BTF_WAYS
        maxactive = attachment.maxactive or self._room(planned.way, len(attachment.sites))
        for turn, number in enumerate(attachment.sites):
            if own or not turn:
                loaded = self._load(attachment.program, self._binding(attachment.program, number))
            (place,) = self._places(loaded, attachment, (number,))
            loaded.hold((number,), self._attacher(place, maxactive, loaded))

    def _room(self, way: str, sites: int) -> int:
        """Return the maxactive of return probes for which none was asked for, 0 for the kernel's own.

        That is one call per CPU where the kernel is not preemptible, and a kernel before 6.7 counts the calls that find
        no room only for what is defined in tracefs. So there a few probes get room for more, and their misses told.
        """
        if way != Way.KRETPROBE or sites > _FEW or not self._kernel.files.writable("tracefs", "kprobe_events"):
            return 0
        if self._tells_missed is None:
            from kprobes.engines.kernel.trial import tells_missed

            self._tells_missed = tells_missed()
        return 0 if self._tells_missed else max(_LEAST_ROOM, _ROOM_PER_CPU * (os.cpu_count() or 1))

    def _load(self, number: int, binding: Binding) -> Loaded:
        """Load program *number* for *binding*, unless that has been done."""
        known = self._known.get((number, binding))
        if known is not None:
            return known
        program = self._plan.programs[number]
        loaded = Loaded(number, program.way, self._loader.load(program, binding))
        self._known[number, binding] = loaded
        self.loaded.append(loaded)
        return loaded

    def _binding(self, program: int, number: int) -> Binding:
        """Return what a load of *program* for the site *number* has to add: what the program can't learn later."""
        planned = self._plan.programs[program]
        site = number if planned.cookie == "site" else 0
        if planned.way not in BTF_WAYS:
            return Binding(site) if site else _UNBOUND
        target = self._plan.sites[number]
        return Binding(site, target.btf_id, self._kernel.btf.module(target.module))

    def _places(self, loaded: Loaded, attachment: Attachment, numbers: Sequence[int]) -> list[Place]:
        """Return the places of *numbers*, which are sites of the attachment."""
        cookie = self._plan.programs[loaded.program].cookie == "cookie"
        return [
            Place(number, self._plan.sites[number], loaded.way, loaded.fd, cookie, attachment.pid) for number in numbers
        ]

    def _attacher(self, place: Place, maxactive: int, loaded: Loaded) -> Callable[[], int]:
        """Return what attaches the program of *place*, each time it is called."""
        if place.way in BTF_WAYS:
            return lambda: self._attach_tracing(place, loaded)
        if place.way in _UPROBES:
            return lambda: uprobes.attach_singly(self._events, place)
        if place.way == Way.RAW_TRACEPOINT:
            return lambda: links.attach_raw_tracepoint(place)
        if place.way == Way.TRACEPOINT:
            number = self._tracepoint_id(place.site.symbol)
            return lambda: self._events.attach(self._events.open_tracepoint(place.site, number), place)
        if place.way == Way.KRETPROBE and maxactive > 0:
            defined = self._define_kretprobe(place, maxactive, loaded)
            return lambda: self._events.attach(self._events.open_tracepoint(place.site, defined), place)
        if place.way in (Way.KPROBE, Way.KRETPROBE):
            return lambda: self._events.attach(self._events.open_kprobe(place.site, place.way), place)
        raise InternalError(f"the kernel engine knows no way {place.way!r}")

    def _attach_tracing(self, place: Place, loaded: Loaded) -> int:
        if not loaded.holds:
            return links.attach_tracing(place)
        # Old kernels attach such a program once only (until 5.13): it is loaded anew.
        program = self._plan.programs[loaded.program]
        with Loader(self._maps) as loader:
            fresh = loader.load(program, self._binding(loaded.program, place.number))
        os.close(loaded.fd)
        loaded.fd = fresh
        return links.attach_tracing(replace(place, program=fresh))

    def _define_kretprobe(self, place: Place, maxactive: int, loaded: Loaded) -> int:
        if self._kretprobes is None:
            from kprobes.engines.kernel.kretprobe_events import KretprobeEvents

            self._kretprobes = KretprobeEvents(self._kernel.files.root("tracefs"))
        name, number = self._kretprobes.define(place.site, maxactive)
        loaded.events.append(name)
        return number

    def _tracepoint_id(self, name: str) -> int:
        category, _, event = name.partition(":")
        if not (category.replace("-", "_").isidentifier() and event.replace("-", "_").isidentifier()):
            raise UsageError(f"{name!r} is no tracepoint", hint="write CATEGORY:NAME, as in sched:sched_switch")
        text = self._kernel.files.text("tracefs", f"events/{category}/{event}/id")
        if text is None and not self._kernel.files.root("tracefs"):
            raise UnsupportedError("tracefs can't be read", hint="run as root, or mount tracefs at /sys/kernel/tracing")
        if text is None:
            raise SymbolNotFoundError(name, where="the kernel's tracepoints")
        return int(text)

    def _attach_uprobes(self, attachment: Attachment) -> None:
        by_file: dict[str, list[int]] = {}
        for number in attachment.sites:
            by_file.setdefault(self._plan.sites[number].path, []).append(number)
        for numbers in by_file.values():
            if len(numbers) > 1 and self._plan.programs[attachment.program].cookie != "site" and self._has_multi():
                loaded = self._load(attachment.program, Binding(multi=True))
                places = self._places(loaded, attachment, numbers)
                loaded.hold(numbers, _together(places))
            else:
                self._attach_singly(attachment, numbers)

    def _has_multi(self) -> bool:
        if self._uprobe_multi is None:
            from kprobes.engines.kernel.trial import has_uprobe_multi

            self._uprobe_multi = has_uprobe_multi()
        return self._uprobe_multi

    def _attach_singly(self, attachment: Attachment, numbers: Sequence[int]) -> None:
        for number in numbers:
            loaded = self._load(attachment.program, self._binding(attachment.program, number))
            (place,) = self._places(loaded, attachment, [number])
            loaded.hold((number,), self._attacher(place, 0, loaded))


def _together(places: Sequence[Place]) -> Callable[[], int]:
    return lambda: uprobes.attach_together(places)
