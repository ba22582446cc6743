"""A session: a plan that is in place, for the user. It attaches, polls, reads maps, counts misses, and closes."""

from __future__ import annotations

import time
from itertools import dropwhile

from kprobes.errors import UnsupportedError
from kprobes.naming import Naming
from kprobes.session.counts import AssertStats, read_counts
from kprobes.session.selection import sites_of
from kprobes.session.stream import POLL_S, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from kprobes.engines.port import Attached, Engine
    from kprobes.events.clock import WallClock
    from kprobes.events.holdings import Holdings
    from kprobes.events.record import Event
    from kprobes.events.recording import Recorder
    from kprobes.model.caution import Caution
    from kprobes.model.inherited import Inherited
    from kprobes.model.listed import Listed
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.plan import LinkStats, Plan
    from kprobes.model.probe import Probe
    from kprobes.model.setting import SettingValue
    from kprobes.session.counts import ProbeStats
    from kprobes.symbols.frames import KernelFrames, UserFrames

# Events that `wait` keeps for a later `events()`; the oldest go first and are counted.
KEPT_EVENTS = 1_000_000
# Reading may make events itself, of a probe of `write` in a guest, say: there is always one more.
LATE_S = 1.0
# What a stack shows of the way in itself.
PROBE_FRAMES = ("bpf_prog_", "bpf_trampoline_", "kprobe_multi_link_", "fprobe_", "ftrace_", "0xffffffffc")


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
        self._detached = False
        self._clock: WallClock | None = None
        self._stream = Stream(plan, attached, recorder)
        self._kept: deque[Event] | None = None
        self._closed = False
        self._naming = Naming(engine, frames, remembers=bool(plan.unwinding))
        self._final: list[ProbeStats] | None = None
        self._final_drops: dict[str, int] | None = None
        self._holdings: Holdings | None = None
        self._final_asserts: list[AssertStats] = []
        self._unmatched: dict[int, int] = {}
        self._disabled: frozenset[int] = frozenset()
        self._earlier: list[Event] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _held(self) -> Holdings:
        """What the maps hold; nobody needs it before the first event."""
        if self._holdings is None:
            from kprobes.events.holdings import Holdings

            self._holdings = Holdings(self.plan.maps, self._attached)
        return self._holdings

    @property
    def warnings(self) -> tuple[Caution, ...]:
        """Return what is probably not meant in the handlers."""
        return self.plan.cautions

    @property
    def engine(self) -> Engine:
        """Return the engine; that of a guest can also `run` commands there."""
        return self._engine

    @property
    def link_stats(self) -> list[LinkStats]:
        """Return what a kernel counted of each program; nothing in a process."""
        return self._attached.link_stats()

    @property
    def asked(self) -> tuple[Probe, ...]:
        """Return the probes as they were asked for."""
        return self._probes

    def poll(self, timeout_s: float = POLL_S) -> list[Event]:
        """Return the events that are there, waiting up to *timeout_s* for the first."""
        self._naming.remember()
        if self._earlier:
            earlier, self._earlier = self._earlier, []
            return earlier
        return self._stream.poll(timeout_s, ended=self._detached)

    def tables(self, timeout_s: float = POLL_S, *, text: bool = False) -> list[Any]:
        """Return the events that are there as Arrow tables, waiting up to *timeout_s* for the first: the way to take
        millions a second. *text*: strings are text rather than bytes.

        Raises:
            UnsupportedError: pyarrow isn't installed.
        """
        return self._stream.tables(timeout_s, text=text)

    def events(self, timeout_s: float | None = None, *, limit: int | None = None) -> Iterator[Event]:
        """Yield events as they come, those that `wait` kept first.

        Ends after *timeout_s* seconds, after *limit* events, or never. What is there when the time is over is still
        yielded; of probes that never rest as much of it as is read in a second.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        sent, late_s = 0, -1.0
        while limit is None or sent < limit:
            begin = time.monotonic()
            batch = [self._kept.popleft()] if self._kept else self.poll(self._time_left(end))
            if end is not None and begin >= end and not self._detached:
                # The time of reading alone: a slow reader misses nothing. At first a busy guest may be slow to answer.
                late_s = 0.0 if late_s < 0 else late_s + time.monotonic() - begin
            for event in batch:
                yield event
                sent += 1
                if sent == limit:
                    return
            if end is not None and time.monotonic() >= end and (not batch or late_s >= LATE_S):
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
        """Return the counts of each site; after `detach`, the last ones."""
        if self._final is None and self._detached:
            self._final = self._read_counts()
        return self._final if self._final is not None else self._read_counts()

    def _read_counts(self) -> list[ProbeStats]:
        return read_counts(self.plan, self._attached, self._unmatched)

    @property
    def settings(self) -> dict[str, SettingValue]:
        """Return the value of each `Setting` that the handlers name."""
        from kprobes.planner.settings import values_of, with_settings

        return values_of(with_settings(self._probes, self._settings))

    @property
    def asserts(self) -> list[AssertStats]:
        """Return how often each `assert` of the handlers has failed; after `close`, the last counts."""
        return self._final_asserts if self._closed else self._read_asserts()

    def _read_asserts(self) -> list[AssertStats]:
        return [AssertStats(one, self._count_of(one.map)) for one in self.plan.asserts]

    def _count_of(self, name: str) -> int:
        found = self.read(name)
        assert isinstance(found, int)
        return found

    @property
    def arming(self) -> list[str]:
        """Return which sites in a process take the slow way, a breakpoint, and what of a glob was left out."""
        armed = getattr(self._attached, "armed", ())
        if not armed:
            return []
        from kprobes.session.arming import tell_arming  # for processes alone

        return tell_arming(self.plan, armed)

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
        sites = sites_of(self.plan, self._probes, what)
        change = getattr(self._attached, "set_enabled", None)
        if change is None:
            raise UnsupportedError(
                "probes of this target can't be disabled", hint="detach, and attach the others again"
            )
        change(sites, enabled)
        self._disabled = self._disabled - sites if enabled else self._disabled | sites

    def go_on_with(self, plan: Plan, inherited: Inherited, frames: UserFrames | None, probes: Sequence[Probe]) -> None:
        """Carry out *plan* from now on, for *probes* in the same process; what it has *inherited* goes on.

        Raises:
            KprobesError: it can't be; nothing has changed then.
        """
        before, attached = self._attached, self._attached.hand_over(plan, inherited)  # type: ignore[attr-defined]
        while batch := self._stream.poll(0, ended=True):
            self._earlier += batch
        self._holdings = self._held.moved(plan.maps, attached)
        self.plan, self._attached, self._probes = plan, attached, tuple(probes)
        self._disabled = inherited.resting
        self._stream = Stream(plan, attached, None)
        if frames is not None:
            self._naming.close()
            self._naming = Naming(self._engine, frames, remembers=True)
        before.close()

    def stack(self, stack_id: int) -> list[str]:
        """Return the frames of a stack that an event or a key carries, innermost first, as `symbol+offset`.

        The frames of the probe itself, which stand on top, are left out; an empty list means that the stack is gone.
        """
        names = self._naming.frames(self._attached.read_stack(stack_id))
        return list(dropwhile(lambda name: name.startswith(PROBE_FRAMES), names))

    def symbol(self, address: int) -> str:
        """Return what lies at *address* of the target: `symbol`, `symbol+0x10`, or the address where nothing tells."""
        return self._naming.symbol(address)

    def printed(self, address: int) -> str:
        """Return *address* as the target's kernel prints it, `symbol+0x4/0x370`; of a process as a number."""
        return self._naming.printed(address)

    @property
    def release(self) -> str:
        """Return the release of the kernel that the target runs on (`uname -r`)."""
        if getattr(self._engine, "is_native", False):
            import os

            return os.uname().release
        return self._engine.facts().features.release

    @property
    def cpus(self) -> int:
        """Return how many processors the target has."""
        if getattr(self._engine, "is_native", False):
            import os

            return os.cpu_count() or 1
        return self._engine.facts().features.cpus

    def detach(self) -> None:
        """Stop probing; maps, events under way and counts stay readable. Idempotent."""
        if self._detached:
            return
        self._attached.detach()
        self._unmatched = self._attached.unmatched()
        self._detached = True

    @staticmethod
    def detach_all(sessions: Sequence[Session]) -> None:
        """Stop several sessions of one engine: a kernel waits for the end of their handlers side by side."""
        attached = [one._attached for one in sessions if not one._detached]
        all_at_once = getattr(sessions[0].engine, "detach_all", None) if len(attached) > 1 else None
        if all_at_once is not None:
            all_at_once(attached)
        for one in sessions:
            one.detach()

    def close(self) -> None:
        """Detach and let go of the target; idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self.detach()
            self._final, self._final_asserts = self.stats, self._read_asserts()
            self._final_drops = self._held.dropped()
        finally:
            try:
                self._attached.close()
            finally:
                self._engine.close()
                self._naming.close()

    @staticmethod
    def _time_left(end: float | None) -> float:
        return POLL_S if end is None else max(0.0, min(POLL_S, end - time.monotonic()))
