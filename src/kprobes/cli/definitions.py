"""Definitions in the kernel's own language on the command line: how they are told from places, and how their events are
shown."""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import replace
from kprobes.model.probe import RETURN_KINDS, AutoHandler, FetchHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.events.record import Event
    from kprobes.model.probe import Probe
    from kprobes.session import ProbeStats, Session

FAULT = "(fault)"
# The room for a string that is a key, its NUL included.
STRING_SIZE = 256


def is_definition(text: str) -> bool:
    """Return whether the probe spelled *text* is a definition: words, of which the first is `p`, `r`, `p:NAME`, ..."""
    head, *rest = text.split(None, 1) or [""]
    return bool(rest) and (head in {"p", "r"} or (head[:1] in {"p", "r"} and (head[1] == ":" or head[1].isdigit())))


def add_definition_options(parser: Parser, *, strings: bool = False) -> None:
    """Add `--filter`, and `--strings` where *strings*."""
    group = parser.add_argument_group(
        "definitions", "PROBE may be one in the kernel's language: 'p:NAME PLACE ARGUMENT...'"
    )
    group.add_argument(
        "--filter", default="", metavar="FILTER", help="only hits that pass: 'size > 100 && comm ~ \"cat*\"'"
    )
    if strings:
        group.add_argument(
            "--strings", type=int, default=0, metavar="N", help="room for each string, in bytes (default: 256)"
        )


def check_filter(arguments: Namespace, texts: Sequence[str]) -> None:
    """Make sure that a filter, and a room for strings, are for a definition among *texts*.

    Raises:
        UsageError: there is none.
    """
    if any(map(is_definition, texts)):
        return
    if arguments.filter:
        raise UsageError("--filter is for definitions in the kernel's language", hint="functions go with --if EXPR")
    if getattr(arguments, "strings", 0):
        raise UsageError(
            "--strings is for definitions in the kernel's language", hint="functions go with --print 'NAME.string(N)'"
        )


def definition_of(text: str, arguments: Namespace, handler: AutoHandler) -> Probe:
    """Return the probe that *text* defines, with the options of `add_definition_options`, and *handler* where that asks
    for more than the event.

    Raises:
        UsageError: it defines none.
    """
    probe = _definition(text, filter=arguments.filter, strings=arguments.strings)
    return _followed(probe, handler) if handler != AutoHandler(handler.action) else probe


def _definition(text: str, **options: Any) -> Probe:
    from kprobes.decorators import definition  # not on the way of other probes

    return definition(text, **options)


def _followed(probe: Probe, handler: AutoHandler) -> Probe:
    assert isinstance(probe.handler, FetchHandler)
    return replace(probe, handler=replace(probe.handler, then=handler))


def counted(text: str, condition: str, number: int) -> Probe:
    """Return the probe number *number*, which *text* defines, and whose hits are only counted: those that pass the
    filter *condition*, if there is one.

    Raises:
        UsageError: it defines none.
    """
    probe = _definition(text, filter=condition)
    assert isinstance(probe.handler, FetchHandler)
    then = None
    if condition:
        from kprobes.model.mapspec import Count

        then = AutoHandler("count", values=Count(f"passed{number}"))
    return replace(probe, handler=replace(probe.handler, counts=True, then=then))


def passing(session: Session, probes: Sequence[Probe], seen: Mapping[int, int]) -> list[ProbeStats]:
    """Return `named_stats`, of definitions with a filter with the hits that have passed it. *seen* are the events that
    have come, by site: where there are no maps these tell."""
    found = named_stats(session)
    for number, site in enumerate(session.plan.sites):
        asked = session.plan.probes[site.probe].asked
        handler = probes[asked].handler
        if isinstance(handler, FetchHandler) and handler.then is not None:
            passed = seen.get(number, 0) if session.plan.traced else session.read(f"passed{asked}")
            assert isinstance(passed, int)
            found[number] = replace(found[number], hits=passed)
    return found


def event_name(probe: Probe) -> str:
    """Return the name that a definition gives its event, empty where it gives none, and for other probes."""
    if not isinstance(probe.handler, FetchHandler):
        return ""
    return probe.handler.text.split(None, 1)[0].partition(":")[2].replace(".", "/").rpartition("/")[2]


def named_stats(session: Session) -> list[ProbeStats]:
    """Return the counts of each site, those of a definition by the name of its event, not of its place: where it gives
    none, by that which the kernel makes."""
    names = [session.plan.probes[site.probe].event for site in session.plan.sites]
    return [replace(stats, name=name) if name else stats for name, stats in zip(names, session.stats, strict=True)]


def sampled(text: str, condition: str, handler: AutoHandler) -> Probe:
    """Return the probe that *text* defines, whose hits that pass the filter *condition* are *handler*'s.

    Raises:
        UsageError: it defines none, or is no return probe and *handler* is about the time of calls.
    """
    probe = _definition(text, filter=condition)
    if handler.action == "latency" and probe.kind not in RETURN_KINDS:
        raise UsageError(
            f"{text!r} is about one moment, and takes no time",
            hint="define the return: 'r:NAME FUNCTION ...'; since Linux 6.12 $argN is an argument at the entry there",
        )
    return _followed(probe, handler)


def string_room(text: str, name: str) -> int:
    """Return the room for the argument *name* of the definition *text* where that is a string; 0 where it is none."""
    for number, word in enumerate(text.split()[2:], 1):
        label, equals, term = word.partition("=")
        if not equals:
            label, term = f"arg{number}", word
        if label == name and (term == "$comm" or term.rpartition(":")[2] in ("string", "ustring")):
            return STRING_SIZE
    return 0


def values_of(event: Event) -> dict[str, Any]:
    """Return what the arguments of an event hold, those of an array as a list."""
    from kprobes.model.fetched import HEAD

    found: dict[str, Any] = {}
    for name, value in event.fields.items():
        if name in HEAD:
            continue
        array, bracket, index = name.partition("[")
        if bracket and (index == "0]" or array in found):
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
