"""The end of a session: what was hit, and above all what was not seen."""

from __future__ import annotations

from kprobes.frozen import dataclass
from kprobes.render.escape import escape
from kprobes.render.number import grouped, seconds
from kprobes.render.terminal import PLAIN, Terminal, pad, width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LONGEST = 20


@dataclass(frozen=True, slots=True)
class ProbeSummary:
    """What one probe saw.

    *missed*: hits whose handler could not run; -1 where the kernel doesn't tell. *lost*: events that found no room.
    *faults*: hits in which a handler touched memory that isn't there, or a full map. *sites*: how many places.
    *unmatched*: calls whose return was not seen.
    """

    name: str
    hits: int
    missed: int = 0
    lost: int = 0
    faults: int = 0
    way: str = ""
    sites: int = 1
    unmatched: int = 0

    @property
    def is_whole(self) -> bool:
        """Tell whether every hit was handled and every event arrived."""
        return self.missed <= 0 and self.lost == 0 and self.faults == 0


@dataclass(frozen=True, slots=True)
class FailedAssert:
    """An `assert` of a handler that *failed* so often: *place* is FILE:LINE, *text* the condition."""

    place: str
    text: str
    message: str
    failed: int


def summary(
    probes: Sequence[ProbeSummary],
    elapsed_s: float,
    terminal: Terminal = PLAIN,
    *,
    dropped: Mapping[str, int] | None = None,
) -> str:
    """Return the closing text, which ends with a line break: one line if all is well, a table of the losses if not.

    *dropped* is how many writes found a map full, by its name.
    """
    head = _head(probes, elapsed_s)
    unsure = any(probe.missed < 0 for probe in probes)
    broken = [probe for probe in probes if not probe.is_whole]
    if not broken:
        end = "nothing lost (this kernel does not count misses)" if unsure else "nothing missed"
        return terminal.paint(f"{head}, {end}", "dim") + "\n" + _unmatched(probes) + _silent(probes)
    warning = f"{terminal.paint('warning:', 'yellow')} not everything was seen: {', '.join(_losses(broken))}"
    lines = [head, warning, *_table(broken), *_hints(broken), *_full(dropped or {})]
    return "".join(f"{line}\n" for line in lines) + _unmatched(probes) + _silent(probes)


def _head(probes: Sequence[ProbeSummary], elapsed_s: float) -> str:
    hits = sum(probe.hits for probe in probes)
    sites = sum(probe.sites for probe in probes)
    ways = ", ".join(dict.fromkeys(escape(probe.way) for probe in probes if probe.way))
    where = f"{grouped(sites)} {'place' if sites == 1 else 'places'}" + (f" ({ways})" if ways else "")
    return f"{grouped(hits)} {'hit' if hits == 1 else 'hits'} in {seconds(elapsed_s)} at {where}"


def _losses(probes: Sequence[ProbeSummary]) -> list[str]:
    missed = sum(max(probe.missed, 0) for probe in probes)
    lost = sum(probe.lost for probe in probes)
    faults = sum(probe.faults for probe in probes)
    said = ((missed, "missed"), (lost, "lost"), (faults, "fault" if faults == 1 else "faults"))
    return [f"{grouped(count)} {what}" for count, what in said if count]


def _table(probes: Sequence[ProbeSummary]) -> list[str]:
    worst = sorted(probes, key=lambda probe: -(max(probe.missed, 0) + probe.lost + probe.faults))
    rows = [("PROBE", "HITS", "MISSED", "LOST", "FAULTS", "WAY")]
    for probe in worst[:_LONGEST]:
        missed = "?" if probe.missed < 0 else grouped(probe.missed)
        rows.append(
            (
                escape(probe.name),
                grouped(probe.hits),
                missed,
                grouped(probe.lost),
                grouped(probe.faults),
                escape(probe.way),
            )
        )
    widths = [max(width_of(row[index]) for row in rows) for index in range(6)]
    lines = []
    for row in rows:
        numbers = (pad(cell, width, right=True) for cell, width in zip(row[1:5], widths[1:5], strict=True))
        lines.append("  ".join(["", pad(row[0], widths[0]), *numbers, row[5]]).rstrip())
    if len(worst) > _LONGEST:
        lines.append(f"  and {len(worst) - _LONGEST} more")
    return lines


def _hints(probes: Sequence[ProbeSummary]) -> list[str]:
    hints = []
    if any(probe.missed > 0 for probe in probes):
        hints.append(
            "missed: no handler ran (more calls at once than maxactive, nested hits, or calls left by an exception)"
        )
    if any(probe.lost for probe in probes):
        hints.append("lost: events came faster than they were read; filter in the handler, or aggregate in a map")
    if any(probe.faults for probe in probes):
        hints.append("faults: memory that a handler read was not there (it read zero), or a map was full")
    return [f"  {hint}" for hint in hints]


def _full(dropped: Mapping[str, int]) -> list[str]:
    """Name the maps that were full."""
    return [
        f"  {escape(name)} was full: {grouped(count)} {'write' if count == 1 else 'writes'} dropped; "
        "declare it with more entries="
        for name, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    ]


def _unmatched(probes: Sequence[ProbeSummary]) -> str:
    """Tell of calls that are still inside, or were left another way."""
    told = [f"{escape(one.name)} ({grouped(one.unmatched)})" for one in probes if one.unmatched]
    if not told:
        return ""
    shown = ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")
    return f"not returned at the end, or left without a return: calls of {shown}\n"


def failures(asserts: Sequence[FailedAssert], terminal: Terminal = PLAIN) -> str:
    """Return a line for each assert that failed."""
    lines = []
    for one in asserts:
        times = "once" if one.failed == 1 else f"{grouped(one.failed)} times"
        said = f" ({escape(one.message)})" if one.message else ""
        warning = terminal.paint("assert failed", "yellow")
        lines.append(f"{warning} {times}: {escape(one.place)}: {escape(one.text)}{said}\n")
    return "".join(lines)


def _silent(probes: Sequence[ProbeSummary]) -> str:
    """Name the probes that were never hit: usually not what was wanted."""
    names = [escape(probe.name) for probe in probes if not probe.hits]
    if not names or len(names) < len(probes):
        return ""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"no hits: {shown} {'was' if len(names) == 1 else 'were'} not called\n"
