"""Definitions in the kernel's own language on the command line: how they are told from places, and how their events are
shown."""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import replace
from kprobes.model.probe import FetchHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.events.record import Event
    from kprobes.model.mapspec import Histogram
    from kprobes.model.probe import Probe
    from kprobes.session import ProbeStats, Session

FAULT = "(fault)"


def is_definition(text: str) -> bool:
    """Return whether the probe spelled *text* is a definition: words, of which the first is `p`, `r`, `p:NAME`, ..."""
    head, *rest = text.split(None, 1) or [""]
    return bool(rest) and (head in {"p", "r"} or (head[:1] in {"p", "r"} and (head[1] == ":" or head[1].isdigit())))


def add_definition_options(parser: Parser) -> None:
    """Add `--filter` and `--strings`."""
    group = parser.add_argument_group(
        "definitions", "PROBE may be one in the kernel's language: 'p:NAME PLACE ARGUMENT...'"
    )
    group.add_argument(
        "--filter", default="", metavar="FILTER", help="only events that pass: 'size > 100 && comm ~ \"cat*\"'"
    )
    group.add_argument(
        "--strings", type=int, default=0, metavar="N", help="room for each string, in bytes (default: 256)"
    )


def definition_of(text: str, arguments: Namespace) -> Probe:
    """Return the probe that *text* defines, with the options of `add_definition_options`.

    Raises:
        UsageError: it defines none, or an option that it doesn't go with was given.
    """
    _refuse_options(arguments)
    return _definition(text, filter=arguments.filter, strings=arguments.strings)


def _definition(text: str, **options: Any) -> Probe:
    from kprobes.decorators import definition  # not on the way of other probes

    return definition(text, **options)


def _refuse_options(arguments: Namespace) -> None:
    """Refuse what definitions don't go with."""
    for option, value in (("--if", "condition"), ("--print", "prints"), ("--stack", "stack")):
        if getattr(arguments, value, None):
            raise UsageError(
                f"{option} goes with functions, not with definitions",
                hint="--filter 'ARGUMENT > 100' tests what a definition fetches; what it shows are its arguments",
            )


def counted(text: str) -> Probe:
    """Return the probe that *text* defines, whose hits are only counted.

    Raises:
        UsageError: it defines none.
    """
    probe = _definition(text)
    assert isinstance(probe.handler, FetchHandler)
    return replace(probe, handler=replace(probe.handler, counts=True))


def event_name(probe: Probe) -> str:
    """Return the name that a definition gives its event, empty where it gives none, and for other probes."""
    if not isinstance(probe.handler, FetchHandler):
        return ""
    return probe.handler.text.split(None, 1)[0].partition(":")[2].replace(".", "/").rpartition("/")[2]


def named_stats(session: Session, probes: Sequence[Probe]) -> list[ProbeStats]:
    """Return the counts of each site, those of a definition by the name of its event, not of its place."""
    plan = session.plan
    shown = []
    for site, stats in zip(plan.sites, session.stats, strict=True):
        asked = plan.probes[site.probe].asked
        name = event_name(probes[asked]) if asked < len(probes) else ""
        shown.append(replace(stats, name=name) if name else stats)
    return shown


def sampled(arguments: Namespace, values: Histogram) -> Probe:
    """Return the probe of a definition that adds one of its arguments to *values*.

    Raises:
        UsageError: it defines none, or an option that it doesn't go with was given.
    """
    _refuse_options(arguments)
    probe = _definition(arguments.probe, filter=arguments.filter)
    assert isinstance(probe.handler, FetchHandler)
    handler = replace(probe.handler, sample=arguments.expression, by=arguments.by, values=values)
    return replace(probe, handler=handler)


def values_of(event: Event) -> dict[str, Any]:
    """Return what the arguments of an event hold, those of an array as a list."""
    from kprobes.model.fetched import HEAD

    found: dict[str, Any] = {}
    for name, value in event.fields.items():
        if name in HEAD:
            continue
        array, bracket, _ = name.partition("[")
        if bracket:
            found.setdefault(array, []).append(value)
        else:
            found[name] = value
    return found


def show_arguments(event: Event, known: Callable[[Any], Any]) -> str:
    """Return the arguments of an event as the kernel shows them: `dfd=-100 name="/etc/passwd" mode={0x1,0x2}`."""
    quoted = {field.name for field in event.layout.fields if field.kind == "symstr"}

    def show(value: object, name: str) -> str:
        if isinstance(value, list):
            return "{" + ",".join([show(one, name) for one in value]) + "}"
        if isinstance(value, str):
            return FAULT if value == FAULT else f'"{value}"'
        return f'"{known(value)}"' if name in quoted else str(known(value))

    return " ".join([f"{name}={show(value, name)}" for name, value in values_of(event).items()])


def json_arguments(event: Event) -> dict[str, Any]:
    """Return the arguments of an event for JSON: characters as text, and none where a string could not be read."""
    from kprobes.events.value import Character

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        return chr(value) if isinstance(value, Character) else None if value == FAULT else value

    return {name: plain(value) for name, value in values_of(event).items()}
