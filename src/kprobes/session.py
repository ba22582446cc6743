"""A session: a plan that is in place, for the user. It attaches, polls, reads maps, counts misses, and closes."""

from __future__ import annotations

import time
from itertools import dropwhile

from kprobes.engines.targets import Kernel
from kprobes.errors import (
    HandlerWarning,
    KprobesError,
    SyscallError,
    UnprobeableError,
    UnsupportedError,
    UsageError,
    VerifierError,
)
from kprobes.events.aggregate import read_stats
from kprobes.events.decode import Decoder
from kprobes.events.holdings import Holdings
from kprobes.frozen import dataclass, replace
from kprobes.model.plan import Way
from kprobes.model.within import ANYWHERE, Within
from kprobes.naming import Naming

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from kprobes.engines.port import Attached, Engine
    from kprobes.engines.process.arming import Armed
    from kprobes.engines.targets import Target
    from kprobes.events.clock import WallClock
    from kprobes.events.record import Event
    from kprobes.events.recording import Recorder
    from kprobes.model.caution import Caution
    from kprobes.model.listed import Listed
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.plan import Assertion, Plan, Site, SiteStats
    from kprobes.model.probe import Probe
    from kprobes.model.setting import SettingValue
    from kprobes.symbols.frames import KernelFrames, UserFrames

# Events that `wait` keeps for a later `events()`; the oldest go first and are counted.
KEPT_EVENTS = 1_000_000
# The shorter the sooner Ctrl-C, -n and a workload's end are seen; each poll wakes up at the first record anyway.
POLL_S = 0.1
# So many sites that are armed by a breakpoint are told one by one.
SHOWN_ARMINGS = 5
# What a stack shows of the way in itself.
PROBE_FRAMES = ("bpf_prog_", "bpf_trampoline_", "kprobe_multi_link_", "fprobe_", "ftrace_", "0xffffffffc")
# Ways that a kernel may refuse for one function while the next still works.
FALLBACKS = (frozenset({Way.FENTRY, Way.FEXIT}), frozenset({Way.KPROBE_MULTI, Way.KRETPROBE_MULTI}))


@dataclass(frozen=True, slots=True)
class ProbeStats:
    """Counts of one site since attach. *missed* is None where this kernel does not tell all of it.

    *unmatched*, known from `detach` on: calls of a handler with two halves whose return was not seen. They are still
    inside, or were left by an exit, longjmp or an exception. In a process they are among the hits, in a kernel not; of
    a probe of many sites the sum stands at the first.
    """

    name: str
    kind: str
    ways: tuple[str, ...]
    hits: int
    missed: int | None
    lost: int
    faults: int
    unmatched: int = 0

    @property
    def clean(self) -> bool:
        """Return whether nothing was missed, lost or faulty."""
        return not (self.missed or self.lost or self.faults)


@dataclass(frozen=True, slots=True)
class AssertStats:
    """How often an `assert` has *failed* since attach."""

    assertion: Assertion
    failed: int


def attach(
    *probes: Probe, to: Target | None = None, warnings: bool = True, settings: Mapping[str, object] | None = None
) -> Session:
    """Attach *probes* to a target (default: this machine's kernel) and return the session, which detaches when closed.

    What is probably not meant in the handlers is told as a `HandlerWarning`, by Python's own `warnings`, unless
    *warnings* is false; `session.warnings` has it. *settings* gives `Setting`s of the handlers their values by name.

    Raises:
        KprobesError: a leaf of it says what can't be done, and why; nothing stays attached.
    """
    engine = (to or Kernel()).open()
    try:
        session = attach_to(engine, *probes, within=within_of(engine), settings=settings)
    except BaseException:
        engine.close()
        raise
    if warnings and session.warnings:
        _warn(session)
    return session


def _warn(session: Session) -> None:
    """Hand the warnings to Python's machinery, which may be told to raise them."""
    from warnings import warn_explicit

    try:
        for one in session.warnings:
            warn_explicit(str(one), HandlerWarning, one.file, one.line)
    except HandlerWarning:
        session.close()
        raise


def within_of(engine: Engine) -> Within:
    """Return the process that *engine* probes natively, if it is one that does."""
    pid = getattr(engine, "pid", 0) if getattr(engine, "is_native", False) else 0
    return Within(pid, native=True) if pid else ANYWHERE


def attach_to(
    engine: Engine,
    *probes: Probe,
    within: Within = ANYWHERE,
    settings: Mapping[str, object] | None = None,
    recorder: Recorder | None = None,
) -> Session:
    """Attach *probes* through an open *engine*, which the session closes with itself.

    *within* limits probes of files to one process. Where the target refuses a fast way in, the next one is taken. What
    the handlers see goes to *recorder*.

    Raises:
        KprobesError: as `attach`; the engine stays the caller's then.
    """
    wanted = probes
    if settings:
        from kprobes.planner.settings import with_settings

        wanted = with_settings(probes, settings)
    if recorder is not None:
        wanted = tuple(replace(probe, record=True) for probe in wanted)
    plan, attached, frames = _attach(engine, wanted, within)
    session = Session(engine, plan, attached, frames, probes=probes, settings=settings, recorder=recorder)
    if recorder is not None:
        _begin_recording(recorder, plan, probes, None if within.native else engine)
    return session


def _begin_recording(recorder: Recorder, plan: Plan, probes: Sequence[Probe], engine: Engine | None) -> None:
    """Write what a replay must know of the target; *engine* is that of a kernel."""
    meta: dict[str, object] = {"probes": [[probe.kind, list(probe.places)] for probe in probes]}
    types = b""
    if engine is not None:
        facts = engine.facts()
        points = [site.name for site in plan.sites if plan.probes[site.probe].kind == "tracepoint"]
        meta["formats"] = {name: facts.text(f"format:{name.replace(':', '/', 1)}") for name in points}
        path = facts.btf() if any(probe.kind not in ("uprobe", "uretprobe") for probe in plan.probes) else None
        if path:
            with open(path, "rb") as file:  # noqa: PTH123
                types = file.read()
    recorder.begin(plan, meta, types)


def _attach(
    engine: Engine, probes: tuple[Probe, ...], within: Within
) -> tuple[Plan, Attached, KernelFrames | UserFrames | None]:
    if within.native:
        from kprobes.planner.cache import cached_process_plan

        plan = cached_process_plan(probes, within)
        frames = None
        if plan.unwinding:
            from kprobes.symbols.frames import UserFrames

            frames = UserFrames(within.pid)
            frames.remember()  # a short program has ended when the first stack is read
        return plan, engine.attach(plan), frames
    return *_attach_in_kernel(engine, probes, within), None


def _attach_in_kernel(engine: Engine, probes: tuple[Probe, ...], within: Within) -> tuple[Plan, Attached]:
    """Plan and attach, giving up the faster ways one by one where the target refuses them."""
    from kprobes.planner.cache import cached_plan

    avoid: frozenset[str] = frozenset()
    refused: KprobesError | None = None
    for family in (*FALLBACKS, frozenset[str]()):
        plan = cached_plan(probes, engine.facts(), avoid, within=within)
        try:
            return plan, engine.attach(plan)
        except (UnprobeableError, UnsupportedError, SyscallError, VerifierError) as error:
            taken = {way for probe in plan.probes for way in probe.ways}
            remaining = (frozenset().union(*FALLBACKS) & taken) - avoid  # a way that the user forces is taken again
            if not remaining:
                raise error from refused
            refused = error
            avoid |= family if family & taken else remaining
    raise UsageError("no way in is left")  # pragma: no cover - the last round raises


class Session:
    """Probes in place. Iterate `events()`, `wait()`, read `session[map]` and `stats`; close detaches. A context
    manager."""

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        attached: Attached,
        frames: KernelFrames | UserFrames | None = None,
        *,
        probes: Sequence[Probe] = (),
        settings: Mapping[str, object] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.plan = plan
        self.dropped = 0
        self._engine = engine
        self._attached = attached
        self._probes = tuple(probes)
        self._settings = settings or {}
        self._recorder = recorder
        self._detached = False
        self._clock: WallClock | None = None
        self._decoder = Decoder(plan.events, [site.name for site in plan.sites])
        self._kept: deque[Event] | None = None
        self._closed = False
        self._naming = Naming(engine, frames, remembers=bool(plan.unwinding))
        self._final: list[ProbeStats] | None = None
        self._final_drops: dict[str, int] | None = None
        self._held = Holdings(plan.maps, attached)
        self._final_asserts: list[AssertStats] = []
        self._unmatched: dict[int, int] = {}
        self._disabled: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def warnings(self) -> tuple[Caution, ...]:
        """Return what is probably not meant in the handlers."""
        return self.plan.cautions

    @property
    def engine(self) -> Engine:
        """Return the engine; that of a guest can also `run` commands there."""
        return self._engine

    def poll(self, timeout_s: float = POLL_S) -> list[Event]:
        """Return the events that are there, waiting up to *timeout_s* for the first."""
        events = self._poll(timeout_s)
        if self._recorder is None:
            return events
        others = self._recorder.take(events)
        while events and not others and self._detached:  # no event doesn't mean that nothing more is there
            events = self._poll(0)
            others = self._recorder.take(events)
        return others

    def _poll(self, timeout_s: float) -> list[Event]:
        self._naming.remember()
        spans = self._spans(timeout_s)
        if spans is None:
            return self._decoder.decode(self._attached.poll(timeout_s))
        events: list[Event] = []
        for span in spans:
            events += self._decoder.decode_raw(span)
        return events

    def _spans(self, timeout_s: float) -> list[bytes] | None:
        """Return what is there as it lies in the rings; None where the engine can't tell."""
        poll_raw = getattr(self._attached, "poll_raw", None)
        if poll_raw is None:
            return None
        found = poll_raw(timeout_s)
        return found if isinstance(found, list) else [found.data]

    def tables(self, timeout_s: float = POLL_S, *, text: bool = False) -> list[Any]:
        """Return the events that are there as Arrow tables, waiting up to *timeout_s* for the first: the way to take
        millions a second. *text*: strings are text rather than bytes.

        Raises:
            UnsupportedError: pyarrow isn't installed.
        """
        drain = getattr(self._attached, "drain", None)
        if drain is not None:
            maker = self._decoder.tables(text=text)
            return [table for table in drain(timeout_s, maker.of_span) if table.num_rows]
        spans = self._spans(timeout_s)
        if spans is None:
            records = self._attached.poll(timeout_s)
            return [self._decoder.to_arrow(records, text=text)] if records else []
        return [self._decoder.to_arrow_raw(span, text=text) for span in spans if span]

    def events(self, timeout_s: float | None = None, *, limit: int | None = None) -> Iterator[Event]:
        """Yield events as they come, those that `wait` kept first.

        Ends after *timeout_s* seconds, after *limit* events, or never.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        sent = 0
        while limit is None or sent < limit:
            batch = [self._kept.popleft()] if self._kept else self.poll(self._time_left(end))
            for event in batch:
                yield event
                sent += 1
                if sent == limit:
                    return
            if not batch and end is not None and time.monotonic() >= end:
                return

    def wait(self, seconds: float | None = None) -> None:
        """Let the probes run for *seconds*, or until Ctrl-C. Events that come meanwhile are kept for `events()`."""
        end = None if seconds is None else time.monotonic() + seconds
        try:
            while end is None or time.monotonic() < end:
                batch = self.poll(self._time_left(end))
                self._keep(batch)
        except KeyboardInterrupt:
            if end is not None:
                raise

    def _keep(self, batch: list[Event]) -> None:
        if self._kept is None:
            from collections import deque  # the commands read at once: they needn't wait for it

            self._kept = deque(maxlen=KEPT_EVENTS)
        self.dropped += max(0, len(self._kept) + len(batch) - KEPT_EVENTS)
        self._kept.extend(batch)

    def __getitem__(self, spec: MapSpec) -> object:
        """Return what a map holds now: an int, a dict, or distributions (see the map's own documentation)."""
        return self._named(spec, self.read(spec.name))

    def read(self, name: str) -> object:
        """Return what the map called *name* holds now; stacks are numbers (see `stack`).

        Raises:
            UsageError: no handler of this session uses such a map, or it is a queue.
        """
        return self._held.read(name)

    def take(self, spec: MapSpec) -> Any:
        """Return what a map holds now, and leave nothing of it: the values of a Queue, what came since the last `take`
        of all else. What handlers add meanwhile is either in what is returned or still there.

        Raises:
            UsageError: no handler of this session uses such a map.
        """
        return self._named(spec, self._held.take(spec.name))

    def clear(self, spec: MapSpec) -> None:
        """Forget what a map holds, as `take` does.

        Raises:
            UsageError: no handler of this session uses such a map.
        """
        self._held.clear(spec.name)

    def arrow(self, spec: MapSpec) -> Any:
        """Return what a map holds now as a `pyarrow.Table` with typed columns for its key and its value.

        Raises:
            UsageError: no handler of this session uses such a map, or it is a queue.
            UnsupportedError: pyarrow isn't installed.
        """
        return self._held.table(spec.name)

    def every(self, seconds: float, *specs: MapSpec, take: bool = False) -> Iterator[Any]:
        """Yield what a map holds every so many *seconds*, of several maps a tuple; with *take* what came since the last
        time. Ends when the probed process has ended. Events that come meanwhile are kept for `events()`.
        """
        due = time.monotonic()
        alive = True
        while alive:
            due += seconds
            self.wait(max(0.0, due - time.monotonic()))
            alive = bool(getattr(self._engine, "is_alive", True))
            found = [self.take(spec) if take else self[spec] for spec in specs]
            yield found[0] if len(found) == 1 else tuple(found)

    @property
    def dropped_writes(self) -> dict[str, int]:
        """Return how many writes found a map full, by the map's name, for maps that were; after `close`, the last
        numbers."""
        return self._final_drops if self._final_drops is not None else self._held.dropped()

    def _named(self, spec: MapSpec, held: Any) -> Any:
        from kprobes.model.aggregates import Stacks

        if not isinstance(spec, Stacks):
            return self._naming.with_names(next(one for one in self.plan.maps if one.name == spec.name), held)
        from kprobes.events.aggregate import Keyed
        from kprobes.events.stacks import named

        return Keyed(named(held, self.stack))

    def known(self, value: Any) -> Any:
        """Return *value*, with its name if it is a number of the target's that is shown by one: an address with its
        symbol, the id of a cgroup with its path."""
        return self._naming.known(value)

    def wall_ns(self, time_ns: int) -> int:
        """Return the time of day of *time_ns*, a value of `now()`, in ns since 1970; the distance of the clocks is kept
        current."""
        if self._clock is None:
            from kprobes.events.clock import WallClock, own_offset

            self._clock = WallClock(getattr(self._engine, "clock_offset", own_offset))
        return self._clock.wall_ns(time_ns)

    @property
    def stats(self) -> list[ProbeStats]:
        """Return the counts of each site; after `close`, the last ones."""
        return self._final if self._final is not None else self._read_stats()

    @property
    def settings(self) -> dict[str, SettingValue]:
        """Return the value of each `Setting` that the handlers name."""
        from kprobes.planner.settings import values_of, with_settings

        return values_of(with_settings(self._probes, self._settings))

    @property
    def asserts(self) -> list[AssertStats]:
        """Return how often each `assert` of the handlers has failed; after `close`, the last counts."""
        return self._final_asserts if self._final is not None else self._read_asserts()

    def _read_asserts(self) -> list[AssertStats]:
        return [AssertStats(one, self._count_of(one.map)) for one in self.plan.asserts]

    def _count_of(self, name: str) -> int:
        found = self.read(name)
        assert isinstance(found, int)
        return found

    @property
    def arming(self) -> list[str]:
        """Return which sites in a process take the slow way, a breakpoint, and what of a glob was left out."""
        armed: Sequence[Armed] = getattr(self._attached, "armed", ())
        told = [
            f"{self.plan.sites[one.number].name}: {one.way} ({one.why})" for one in armed if one.way == Way.BREAKPOINT
        ]
        shown = told[:SHOWN_ARMINGS] + ([f"{len(told) - SHOWN_ARMINGS} more"] if len(told) > SHOWN_ARMINGS else [])
        from collections import Counter  # not on the way to the first event

        left = Counter(one.why for one in armed if not one.way)
        reasons = ", ".join(f"{count} {why}" for why, count in left.most_common())
        return shown + ([f"{left.total()} left out ({reasons})"] if left else [])

    @property
    def listing(self) -> list[Listed]:
        """Return one entry a site, as the kernel's kprobes/list has it: where it is, how it is armed, and its state."""
        listing = getattr(self._attached, "listing", None)
        if listing is not None:
            found: list[Listed] = listing()
            return found
        from kprobes.model.listed import list_plan

        return list_plan(self.plan, self._disabled)

    def disable(self, *what: Probe | str) -> None:
        """Let the probes *what* rest until `enable`: probes that were attached, or names and globs of their sites
        (`malloc`, `libc.so.6:str*`); all without one. Their counts stay. No handler of theirs runs after it returns.

        Raises:
            UsageError: nothing here is called so. UnsupportedError: this way in can't be disabled by itself.
        """
        self._set_enabled(what, enabled=False)

    def enable(self, *what: Probe | str) -> None:
        """Let the probes *what* go on that `disable` let rest.

        Raises:
            UsageError, UnsupportedError: as `disable`.
        """
        self._set_enabled(what, enabled=True)

    def _set_enabled(self, what: Sequence[Probe | str], *, enabled: bool) -> None:
        sites = self._sites_of(what)
        change = getattr(self._attached, "set_enabled", None)
        if change is None:
            raise UnsupportedError(
                "probes of this target can't be disabled", hint="detach, and attach the others again"
            )
        change(sites, enabled)
        self._disabled = self._disabled - sites if enabled else self._disabled | sites

    def _sites_of(self, what: Sequence[Probe | str]) -> frozenset[int]:
        found = set() if what else set(range(len(self.plan.sites)))
        for one in what:
            matching = {number for number, site in enumerate(self.plan.sites) if self._is_meant(site, one)}
            if not matching:
                raise UsageError(
                    f"no probe of this session is called {one if isinstance(one, str) else one.places[0]}",
                    hint="session.listing shows what it has",
                )
            found |= matching
        return frozenset(found)

    def _is_meant(self, site: Site, what: Probe | str) -> bool:
        if isinstance(what, str):
            from fnmatch import fnmatchcase

            names = (site.name, site.symbol, self.plan.probes[site.probe].text)
            return any(fnmatchcase(name, what) for name in names if name)
        asked = self.plan.probes[site.probe].asked
        return asked < len(self._probes) and self._probes[asked] is what

    def stack(self, stack_id: int) -> list[str]:
        """Return the frames of a stack that an event or a key carries, innermost first, as `symbol+offset`.

        The frames of the probe itself, which stand on top, are left out; an empty list means that the stack is gone.
        """
        names = self._naming.frames(self._attached.read_stack(stack_id))
        return list(dropwhile(lambda name: name.startswith(PROBE_FRAMES), names))

    def symbol(self, address: int) -> str:
        """Return what lies at *address* of the target: `symbol`, `symbol+0x10`, or the address where nothing tells."""
        return self._naming.symbol(address)

    def detach(self) -> None:
        """Stop probing; maps, events under way and counts stay readable."""
        self._attached.detach()
        self._unmatched = self._attached.unmatched()
        self._detached = True

    def close(self) -> None:
        """Detach and let go of the target; idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self.detach()
            self._final, self._final_asserts = self._read_stats(), self._read_asserts()
            self._final_drops = self._held.dropped()
        finally:
            try:
                self._attached.close()
            finally:
                self._engine.close()
                self._naming.close()

    def _read_stats(self) -> list[ProbeStats]:
        layout = next(layout for layout in self.plan.maps if layout.kind == "stats")
        counted = read_stats(self._attached.read_map(layout.name), layout, len(self.plan.sites))
        missed = dict.fromkeys(range(len(self.plan.sites)), 0)
        untold = set()
        for link in self._attached.link_stats():
            for number in link.sites:
                missed[number] += _share(max(link.missed, 0), link.sites, number)
                if link.missed < 0:
                    untold.add(number)
        return [self._site_stats(one, missed[one.site], untold=one.site in untold) for one in counted]

    def _site_stats(self, counted: SiteStats, by_kernel: int, *, untold: bool) -> ProbeStats:
        site = self.plan.sites[counted.site]
        probe = self.plan.probes[site.probe]
        # A return that the kernel counts as missed leaves a record behind, which the next call may find and count too.
        missed: int | None = max(counted.missed, by_kernel)
        if untold and not missed:
            missed = None
        unmatched = self._unmatched.get(counted.site, 0)
        return ProbeStats(
            site.name, probe.kind, probe.ways, counted.hits, missed, counted.lost, counted.faults, unmatched
        )

    @staticmethod
    def _time_left(end: float | None) -> float:
        return POLL_S if end is None else max(0.0, min(POLL_S, end - time.monotonic()))


def _share(missed: int, sites: tuple[int, ...], number: int) -> int:
    """A link of many sites counts its misses in one sum: it is shown once, at the first of them."""
    return missed if number == sites[0] else 0


def kallsyms_lookup_name(name: str, target: Target | None = None) -> int:
    """Return the address of the kernel symbol *name* (0 where addresses are hidden).

    Raises:
        SymbolNotFoundError, AmbiguousSymbolError: with the nearest names, or the candidates.
    """
    from kprobes.symbols.kallsyms import Kallsyms

    engine = (target or Kernel()).open()
    try:
        return Kallsyms.load(engine.facts().kallsyms()).kallsyms_lookup_name(name)
    finally:
        engine.close()
