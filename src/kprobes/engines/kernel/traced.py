"""A plan that is in place without BPF: as probe events of tracefs, whose records become ours.

What the kernel itself can fetch and filter is all that there is; maps there are none but the counters. Hits and misses
are the kernel's own (`kprobe_profile`, `uprobe_profile`), lost are events that found no room in the trace buffers.
"""

from __future__ import annotations

import os
import struct
import time
from _thread import get_native_id
from contextlib import ExitStack

from kprobes.engines.kernel.files import read_text
from kprobes.engines.kernel.links import Place
from kprobes.engines.kernel.owners import FIRST_NAMESPACE, namespace
from kprobes.engines.kernel.refusals import definition_refusal, file_refusal, kernel_refusal
from kprobes.engines.kernel.ring import EMPTY, HEADER, Span
from kprobes.engines.kernel.trace_buffers import TraceBuffers
from kprobes.engines.kernel.trace_format import Converter, parse_format
from kprobes.engines.kernel.trace_instance import TraceInstance
from kprobes.engines.kernel.trace_threads import TraceThreads
from kprobes.engines.kernel.uprobes import MappedFile
from kprobes.errors import InternalError, TargetError, UnsupportedError
from kprobes.frozen import dataclass
from kprobes.model.plan import COUNT_ONLY, LinkStats, Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.kernel.files import KernelFiles
    from kprobes.engines.kernel.trace_buffers import Traced
    from kprobes.model.plan import Plan, TraceEvent

FILES = ("kprobe_events", "uprobe_events")
# A filter that nothing passes: a hit counts, and leaves no record.
_NOTHING = "common_pid < 0"


@dataclass(frozen=True, slots=True)
class Profile:
    """What the kernel counted of an event: *missed* is -1 where it doesn't tell."""

    hits: int
    missed: int


class TracedAttached:
    """A plan that is in place by tracefs. It goes away when it is closed, or shortly after this process."""

    def __init__(self, plan: Plan, files: KernelFiles) -> None:
        root = files.root("tracefs")
        self._plan = plan
        self._instance = TraceInstance(root, [_wanted(one) for one in plan.traced])
        self._names = self._instance.names
        self._is_first = namespace() == FIRST_NAMESPACE
        self._threads = TraceThreads(root)
        self._left_out: set[int] = set()
        self._makers: dict[int, tuple[int, Converter | None]] = {}
        self._seen = [0] * len(plan.traced)
        self._buffers: TraceBuffers | None = None
        self._final: list[Profile] | None = None
        try:
            for number in range(len(plan.traced)):
                self._define(number)
            self._limit()
            if self._makers:
                self._buffers = TraceBuffers(self._instance.path, read_text(f"{root}/events/header_page"))
            self._enable()
        except BaseException:
            self.close()
            raise

    def poll(self, timeout_s: float) -> list[bytes]:
        """Return the records that are there, waiting up to *timeout_s* s for the first."""
        return self.poll_raw(timeout_s).records()

    def poll_raw(self, timeout_s: float) -> Span:
        """Return the same records as they would lie in a BPF ring."""
        deadline = time.monotonic() + timeout_s
        while True:
            span = self._take()
            left = deadline - time.monotonic()
            if span.data or left <= 0:
                return span
            self.wait(left)

    def wait(self, timeout_s: float) -> bool:
        """Wait for an event for up to *timeout_s* seconds, taking none; return whether one may be there."""
        if self._buffers is None:
            time.sleep(max(0.0, timeout_s))
            return False
        self._leave_out_reader()
        return self._buffers.wait(timeout_s)

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the counters of the sites; there is no other map."""
        if name != next(layout.name for layout in self._plan.maps):
            raise InternalError(f"the plan has no map {name!r}")
        profiles = self._profiles()
        lost = self._lost(profiles)
        counters = [[0, 0, 0, 0] for _ in self._plan.sites]
        for number, one in enumerate(self._plan.traced):
            limited = one.pid >= 0
            counters[one.site][0] += self._seen[number] + lost[number] if limited else profiles[number].hits
            counters[one.site][2] += lost[number]
        return [(b"", b"".join(struct.pack("<4Q", *one) for one in counters))]

    def take_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Raise: there is nothing to take."""
        raise InternalError(f"the plan has no map {name!r}")

    def read_stack(self, stack_id: int) -> tuple[int, ...]:  # noqa: ARG002 - the port's
        """Return nothing: these events have no stacks."""
        return ()

    def link_stats(self) -> list[LinkStats]:
        """Return what the kernel has missed of each event."""
        return [
            LinkStats(number, Way.TRACEFS, (one.site,), profile.missed)
            for number, (one, profile) in enumerate(zip(self._plan.traced, self._profiles(), strict=True))
        ]

    def unmatched(self) -> dict[int, int]:
        """Return nothing: each event is of one moment."""
        return {}

    def detach(self) -> None:
        """Let nothing be hit any more; what was recorded, and the counts, stay readable."""
        if self._final is None:
            self._instance.stop()
            self._final = self._read_profiles()
            while not self._plan.events and self._buffers is not None and self._count():
                pass

    def close(self) -> None:
        """Detach, and take away the events and their buffers; idempotent."""
        if self._buffers is not None:
            self._buffers.close()
            self._buffers = None
        self._threads.close()
        self._instance.close()

    def _define(self, number: int) -> None:
        one, name = self._plan.traced[number], self._names[number]
        letter, _, rest = one.definition.partition(":")
        definition = f"{letter}:{name} {rest.partition(' ')[2]}"
        code = self._instance.define(FILES[self._is_user(one)], definition, name)
        if code:
            log = read_text(f"{self._instance.root}/error_log")
            raise definition_refusal(definition, code, log)
        if one.event == COUNT_ONLY and one.pid < 0:
            self._instance.filter(name, _NOTHING)
            return
        if one.filter:
            self._instance.filter(name, one.filter)
        layout = next((layout for layout in self._plan.events if layout.id == one.event), None)
        shape = parse_format(self._instance.format(name))
        self._makers[shape.number] = (number, Converter(layout, one.site, shape) if layout else None)

    def _is_user(self, one: TraceEvent) -> bool:
        return bool(self._plan.sites[one.site].path)

    def _limit(self) -> None:
        """Let only the threads of the process be recorded that all events are limited to, and those they start."""
        pids = {one.pid for one in self._plan.traced}
        if pids == {-1}:
            return
        if not self._is_first:
            raise UnsupportedError(
                "tracefs tells processes apart by the numbers of the first pid namespace, and this is another",
                hint="take --engine uprobe, or probe from outside of the container",
            )
        if len(pids) == 1:
            (pid,) = pids
            self._instance.set("options/event-fork", "1")
            known: set[str] = set()
            while new := set(_threads_of(pid)) - known:  # until none has come while we looked: then the kernel follows
                self._instance.set("set_event_pid", f"{' '.join(sorted(new))} ", append=bool(known))
                known |= new

    def _enable(self) -> None:
        with ExitStack() as mapped:
            for one in self._plan.traced:
                if self._is_user(one):
                    site = self._plan.sites[one.site]
                    mapped.enter_context(MappedFile(site.path)).check([Place(one.site, site, Way.UPROBE, -1, False)])
            self._leave_out_reader()
            for number in range(len(self._plan.traced)):
                self._enable_one(number)

    def _enable_one(self, number: int) -> None:
        one = self._plan.traced[number]
        code = self._instance.enable(self._names[number])
        if code:
            refuse = file_refusal if self._is_user(one) else kernel_refusal
            raise refuse(self._plan.sites[one.site], Way.TRACEFS, code)

    def set_enabled(self, sites: frozenset[int], enabled: bool) -> None:
        """Let the events at *sites* rest, or go on."""
        for number, one in enumerate(self._plan.traced):
            if one.site not in sites or self._final is not None:
                continue
            if enabled:
                self._enable_one(number)
            else:
                self._instance.disable(self._names[number])

    def _leave_out_reader(self) -> None:
        """Let the thread that reads leave no events: reading them would make new ones, without end."""
        thread = get_native_id()
        if thread not in self._left_out and self._is_first:
            self._left_out.add(thread)
            self._instance.set("set_event_notrace_pid", f"{thread} ", needed=False, append=True)

    def _count(self) -> int:
        """Count what is there of events whose records nobody asked for; return how many there were."""
        events, threads = self._read()
        for event, thread in zip(events, threads, strict=True):
            self._record(event, thread)
        return len(events)

    def _read(self) -> tuple[list[Traced], list[int]]:
        """Return the events that are there, and the thread of each."""
        if self._buffers is None:
            return [], []
        self._leave_out_reader()
        events = self._buffers.take(final=self._final is not None)
        threads = [int.from_bytes(data[start + 4 : start + 8], "little", signed=True) for _, _, data, start in events]
        self._threads.learn(set(threads))
        return events, threads

    def _take(self) -> Span:
        events, threads = self._read()
        if not events:
            return EMPTY
        parts: list[bytes] = []
        bounds: list[tuple[int, int]] = []
        end = 0
        for event, thread in zip(events, threads, strict=True):
            record = self._record(event, thread)
            if record:
                padding = -len(record) % 8
                parts += [len(record).to_bytes(HEADER, "little"), record, bytes(padding)]
                bounds.append((end + HEADER, end + HEADER + len(record)))
                end += HEADER + len(record) + padding
        return Span(b"".join(parts), bounds=tuple(bounds))

    def _record(self, event: Traced, thread: int) -> bytes:
        """Return the record of *event*, nothing where it is none of ours."""
        moment, cpu, data, start = event
        found = self._makers.get(int.from_bytes(data[start : start + 2], "little"))
        if found is None:
            return b""
        number, maker = found
        process = self._threads.process(thread)
        pid = self._plan.traced[number].pid
        if pid not in (-1, process):
            return b""
        self._seen[number] += 1
        if maker is None:
            return b""
        return maker.record(data, start, (moment, cpu, process, self._threads.name(thread)))

    def _lost(self, profiles: Sequence[Profile]) -> list[int]:
        """Return how many records of each event are lost. The buffers know the sum; where it isn't what the events lack
        together (a filter or a limit has left some out), it stands at the first."""
        nothing = [0] * len(profiles)
        total = self._buffers.lost() if self._buffers is not None else 0
        if not total:
            return nothing
        numbers = [number for number, _ in self._makers.values()]
        shares = nothing.copy()
        for number in numbers:
            shares[number] = max(0, profiles[number].hits - self._seen[number])
        if sum(shares) == total:
            return shares
        nothing[min(numbers)] = total
        return nothing

    def _profiles(self) -> list[Profile]:
        return self._final if self._final is not None else self._read_profiles()

    def _read_profiles(self) -> list[Profile]:
        known = {}
        for file in FILES:
            known.update(read_profile(self._instance.root, file))
        return [known.get(name, Profile(0, -1)) for name in self._names]


def read_profile(root: str, file: str) -> dict[str, Profile]:
    """Return what the kernel counted of the events of *file*, by `group/event`.

    A profile has no groups, so its lines are taken with those of the list of events, which have the same order.
    """
    events = [line.split(maxsplit=1)[0].partition(":")[2] for line in read_text(f"{root}/{file}").splitlines()]
    rows = [line.split() for line in read_text(f"{root}/{file.replace('events', 'profile')}").splitlines()]
    found: dict[str, Profile] = {}
    for name, words in zip(events, rows, strict=False):
        if file == FILES[0] and len(words) >= 3:
            found[name] = Profile(int(words[-2]), int(words[-1]))
        elif file == FILES[1] and words:
            found[name] = Profile(int(words[-1]), 0)
    return found


def _wanted(one: TraceEvent) -> tuple[str, str]:
    """Return the group, empty for one of ours, and the name of an event."""
    group, _, event = one.definition.partition(":")[2].partition(" ")[0].partition("/")
    return "" if one.private else group, event


def _threads_of(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError:
        raise TargetError(f"no process {pid}", hint="`ps -e` lists the processes") from None
