"""Plans that go by tracefs: probe events of the kernel's own, without BPF and without a compiler.

Definitions are carried out as they are. A place without a handler, or with the one that shows the arguments, becomes a
definition that fetches them by the prototype; all else needs a program at the hit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kprobes.arch.registers import registers
from kprobes.errors import UnsupportedError, UsageError
from kprobes.frozen import replace
from kprobes.grammar.events import parse
from kprobes.model.ctype import Array, Enum, Float, Int, Struct, Void
from kprobes.model.definition import Definition
from kprobes.model.fetched import event_layout, kernels_layout
from kprobes.model.layout import SITE_COUNTER_BYTES, MapLayout
from kprobes.model.plan import COUNT_ONLY, Plan, PlannedProbe, TraceEvent, Way
from kprobes.model.probe import RETURN_KINDS, AutoHandler, FetchHandler, HandlerSource, Probe
from kprobes.model.within import ANYWHERE, Within
from kprobes.planner.auto import is_text
from kprobes.planner.fetching import kernel_definitions
from kprobes.planner.places import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.ctype import CType, Function
    from kprobes.model.definition import Argument
    from kprobes.model.facts import Facts
    from kprobes.model.layout import EventLayout
    from kprobes.model.plan import Site
    from kprobes.planner.group import Group

# Each event takes a moment to be defined, and longer to be taken away.
MOST_EVENTS = 500
_MOST_NAME = 31
_SYMSTR = "symstr"
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_NOTHING_ASKED = FetchHandler("")
# So few return probes are worth more room than the kernel gives them.
_FEW, _LEAST_ROOM, _ROOM_PER_CPU = 8, 64, 10
_HINT = "leave --engine tracefs out, or fetch with a definition: 'p:NAME PLACE ARGUMENT...' --filter ..."


def goes_by_tracefs(probe: Probe) -> bool:
    """Return whether tracefs alone can carry *probe* out: it is a definition, or no more than a place."""
    given = probe.handler
    if probe.kind == "tracepoint" or probe.on_fault or probe.record:
        return False
    if given is None:
        return True
    if isinstance(given, FetchHandler):
        return given.then is None or given.then.action == "count"
    return isinstance(given, AutoHandler) and given.action == "trace" and not _asks_more(given)


def plan_tracefs(probes: Sequence[Probe], facts: Facts, *, within: Within = ANYWHERE) -> Plan:
    """Return the plan for *probes* by tracefs of the target that *facts* describe.

    Raises:
        UnsupportedError: a probe needs a program.
        SymbolNotFoundError, AmbiguousSymbolError, UnprobeableError, UsageError, DefinitionError
    """
    builder = _Builder(facts, within)
    for number, probe in enumerate(probes):
        _check(probe)
        builder.add(number, probe)
    return builder.plan()


def _asks_more(handler: AutoHandler) -> bool:
    return bool(handler.condition or handler.prints or handler.stack)


def _check(probe: Probe) -> None:
    if probe.way not in ("", Way.TRACEFS):
        raise UsageError("probes that go by tracefs and others are two sessions", hint="give all the same way")
    if goes_by_tracefs(probe):
        return
    what = "handlers" if isinstance(probe.handler, HandlerSource) else "expressions, histograms and stacks"
    if probe.kind == "tracepoint":
        what = "tracepoints"
    raise UnsupportedError(f"{what} need BPF: tracefs fetches arguments, and no more", hint=_HINT)


class _Builder:
    """Gathers what the plan is made of."""

    def __init__(self, facts: Facts, within: Within) -> None:
        self._facts = facts
        self._places = Places(facts, within)
        self._definitions = kernel_definitions(self._places)
        self._sites: list[Site] = []
        self._probes: list[PlannedProbe] = []
        self._events: list[EventLayout] = []
        self._traced: list[TraceEvent] = []
        self._notes: list[str] = []

    def add(self, number: int, probe: Probe) -> None:
        """Add the events of *probe*, which is the one asked for as *number*."""
        given = probe.handler
        if isinstance(given, FetchHandler):
            probe = self._definitions.placed(probe)
        groups, notes = self._places.groups(probe)
        self._notes += notes
        for group in groups:
            if len(self._sites) + len(group.sites) > MOST_EVENTS:
                raise UsageError(
                    f"more than {MOST_EVENTS} places are too many for tracefs", hint="name fewer: each becomes an event"
                )
            text = group.sites[0].name if len(group.sites) == 1 else " ".join(probe.places)
            for site in group.sites:
                self._event(group, site, probe.handler)
            self._probes.append(PlannedProbe(probe.kind, text, (Way.TRACEFS,), asked=number, event=probe.event))

    def _event(self, group: Group, site: Site, given: object) -> None:
        fetches = given if isinstance(given, FetchHandler) else _NOTHING_ASKED
        definition = self._definition(group, site, given)
        if fetches.filter:
            _check_filter(fetches.filter, definition)
            self._definitions.condition(definition, fetches.filter)
        event = COUNT_ONLY
        if given is not None and not fetches.only_counts:
            event = len(self._events)
            self._events.append(kernels_layout(event_layout(definition, event, fetches.strings)))
        private = not _names_group(fetches.text)
        self._traced.append(TraceEvent(len(self._sites), harmless(definition).text, event, private, fetches.filter))
        self._sites.append(replace(site, probe=len(self._probes)))

    def _definition(self, group: Group, site: Site, given: object) -> Definition:
        """Return the definition that *given* is, or one that fetches what the prototype tells, if that is asked for."""
        if isinstance(given, FetchHandler):
            assert given.definition is not None
            return given.definition
        language = self._definitions.language
        table = registers(language.machine.name)
        where = table.arguments if site.path else table.kernel_arguments
        room = max(_LEAST_ROOM, _ROOM_PER_CPU * self._facts.features.cpus) if len(group.sites) <= _FEW else 0
        text = written(group, site, () if given is None else where, room=room)
        found = parse(text, language, "uprobe" if site.path else "kprobe")
        assert isinstance(found, Definition)
        return found

    def plan(self) -> Plan:
        """Return the plan."""
        counters = MapLayout("stats", "stats", 4, SITE_COUNTER_BYTES * len(self._sites), 1, shards=1)
        return Plan(
            probes=tuple(self._probes),
            sites=tuple(self._sites),
            maps=(counters,),
            programs=(),
            attachments=(),
            events=tuple(self._events),
            key=self._facts.features.key,
            notes=tuple(self._notes),
            sources=self._places.prototypes.sources,
            traced=tuple(self._traced),
        )


def harmless(definition: Definition) -> Definition:
    """Return *definition* with `symbol` for `symstr`: the address, of which we make the string.

    A kernel (seen on 6.12) that makes it itself writes a byte behind its record, often behind the buffer: it looks up
    the symbol right there, and the look-up ends the room that it takes for granted (KSYM_NAME_LEN) with a NUL.
    """
    return replace(definition, arguments=tuple(map(_by_address, definition.arguments)))


def _by_address(argument: Argument) -> Argument:
    if argument.type.name != _SYMSTR:
        return argument
    term, _, kind = argument.body.rpartition(":")
    return replace(argument, body=f"{term}:{kind.replace(_SYMSTR, 'symbol', 1)}")


def _check_filter(condition: str, definition: Definition) -> None:
    asked = set(re.findall(r"\w+", _QUOTED.sub("", condition)))
    for one in definition.arguments:
        if one.type.name == _SYMSTR and one.name in asked:
            raise UnsupportedError(
                f"a filter can't look at {one.name}, a {_SYMSTR}, by way of tracefs: kernels damage their memory there",
                hint="leave --engine tracefs out, or the condition on that argument",
            )


def written(group: Group, site: Site, arguments: Sequence[str], *, room: int = 0) -> str:
    """Return the definition of an event at *site*, with what the prototype of *group* knows: its parameters lie in the
    registers *arguments*, none where nothing is to be shown.

    *room* is for how many calls at once a return probe in the kernel has room, unless the user says (0: as the kernel
    chooses).
    """
    returns = group.probe.kind in RETURN_KINDS
    most = group.probe.maxactive or (0 if site.path else room)
    kind = f"r{most or ''}" if returns else "p"
    words = [f"{kind}:{_event_name(site)}", _place(site)]
    if arguments and returns:
        words += _result(group.prototype)
    elif arguments and group.prototype is not None:
        words += _parameters(group.prototype, arguments)
    return " ".join(words)


def _event_name(site: Site) -> str:
    name = site.symbol or re.sub(r".*/", "", site.name)
    if site.offset and site.symbol:
        name = f"{name}+{site.offset:#x}"
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return (name if not name[:1].isdigit() else f"_{name}")[:60]


def _place(site: Site) -> str:
    if site.path:
        return f"{site.path}:{site.address + site.offset:#x}"
    if not site.symbol:
        return f"{site.address + site.offset:#x}"
    symbol = f"{site.module}:{site.symbol}" if site.module else site.symbol
    return f"{symbol}+{site.offset:#x}" if site.offset else symbol


def _parameters(prototype: Function, arguments: Sequence[str]) -> list[str]:
    """Return an argument for each parameter that can be fetched; those behind one that is passed elsewhere can't."""
    found: list[str] = []
    for register, parameter in zip(arguments, prototype.parameters, strict=False):
        if isinstance(parameter.type, Struct | Array | Float | Void):
            break
        name = re.sub(r"\W", "_", parameter.name or f"arg{len(found) + 1}", flags=re.ASCII)[:_MOST_NAME]
        term = f"+0(%{register})" if is_text(parameter.type) else f"%{register}"
        found.append(f"{name}={term}:{_type(parameter.type)}")
    return found


def _result(prototype: Function | None) -> list[str]:
    if prototype is None:
        return ["retval=$retval"]
    if isinstance(prototype.returns, Void):
        return []
    return [f"retval=$retval:{_type(prototype.returns) if not is_text(prototype.returns) else 'x64'}"]


def _type(ctype: CType) -> str:
    if is_text(ctype):
        return "string"
    if isinstance(ctype, Int):
        return f"{'s' if ctype.signed else 'u'}{8 * min(ctype.size, 8)}"
    if isinstance(ctype, Enum):
        return f"{'s' if ctype.signed else 'u'}{8 * ctype.size}"
    return "x64"


def _names_group(text: str) -> bool:
    """Return whether the definition *text* names a group of its own."""
    return bool(re.match(r"\S*[/.]", text))
