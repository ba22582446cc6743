"""What a kernel's own events hold, beside what ours hold: the same definitions, the same hits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from guest_harness import TIMEOUT_S, Guest, finish

import kprobes
from kprobes.cli.definitions import show_arguments
from kprobes.events.record import Event

TRACEFS = "/sys/kernel/tracing"
LINE = re.compile(r" *.{1,16}-(?P<tid>\d+) +\[\d+\] \S+ +[\d.]+: (?P<event>\w+): \([^)]*\) ?(?P<arguments>.*)")
# A symbol has its size behind its offset; ours has no offset where it is 0.
SIZE = re.compile(r"(?<=[=\"{,])([A-Za-z_][\w.]*)\+0x([0-9a-f]+)/0x[0-9a-f]+(?: \[\w+\])?")
NO_FILTERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Hit:
    """One event: its name and its arguments as text."""

    event: str
    arguments: str


def both(
    guest: Guest, definitions: list[str], *workload: object, filters: Mapping[str, str] = NO_FILTERS
) -> tuple[list[Hit], list[Hit]]:
    """Return the hits of the workload's thread as the kernel's own events have them, and as ours do.

    *definitions* have `{}` for the group: ours are of another than the kernel's. *filters* are by event. The program
    is `calls`.
    """
    probes = [kprobes.definition(line.format("ours"), filter=filters.get(event_of(line), "")) for line in definitions]
    program = guest.start("calls", *workload)
    try:
        with (
            Truth(guest, [line.format("truth") for line in definitions], filters) as truth,
            kprobes.attach(*probes, to=guest.target) as session,
        ):
            finish(program)
            session.detach()
            events = [event for event in session.events(0) if event["_tid"] == program.pid]
            return truth.hits(program.pid), [shown(session, event) for event in events]
    except BaseException:
        if program.wait(0) is None:
            finish(program)
        raise


def event_of(line: str) -> str:
    """Return the name of the event that a definition names."""
    return line.split()[0].rpartition("/")[2]


class Truth:
    """The kernel's own events of *definitions*, in the group `truth`; a context manager that leaves nothing of them."""

    def __init__(self, guest: Guest, definitions: list[str], filters: Mapping[str, str]) -> None:
        self._guest = guest
        self._definitions = definitions
        self._filters = filters

    def __enter__(self) -> Truth:
        lines = [f"echo 0 > {TRACEFS}/tracing_on", f"echo > {TRACEFS}/trace"]
        lines += [
            f"echo '{line}' >> {TRACEFS}/{'u' if '/root/' in line else 'k'}probe_events" for line in self._definitions
        ]
        lines += [f"echo '{text}' > {TRACEFS}/events/truth/{name}/filter" for name, text in self._filters.items()]
        lines += [f"echo 1 > {TRACEFS}/events/truth/enable", f"echo 1 > {TRACEFS}/tracing_on"]
        done = self._guest.shell(" && ".join(lines))
        if done.status:
            log = self._guest.shell(f"cat {TRACEFS}/error_log").output
            self.__exit__()
            raise AssertionError(log)
        return self

    def hits(self, pid: int) -> list[Hit]:
        """Return the events of the thread *pid* so far."""
        self._guest.shell(f"echo 0 > {TRACEFS}/tracing_on")
        trace = self._guest.machine.run(["cat", f"{TRACEFS}/trace"])
        assert trace.wait(TIMEOUT_S) == 0
        text = trace.output.decode("utf-8", "surrogateescape")
        found = [match for line in text.split("\n") if (match := LINE.match(line)) and int(match["tid"]) == pid]
        return [Hit(one["event"], SIZE.sub(_as_ours, one["arguments"])) for one in found]

    def __exit__(self, *_: object) -> None:
        self._guest.shell(
            f"echo 0 > {TRACEFS}/events/truth/enable; echo > {TRACEFS}/kprobe_events; echo > {TRACEFS}/uprobe_events; "
            f"echo > {TRACEFS}/trace; echo 1 > {TRACEFS}/tracing_on"
        )


def _as_ours(match: re.Match[str]) -> str:
    return match[1] if match[2] == "0" else f"{match[1]}+0x{match[2]}"


def shown(session: kprobes.Session, event: Event) -> Hit:
    """Return *event* with its arguments as text."""
    return Hit(event.layout.name, show_arguments(event, session.known))
