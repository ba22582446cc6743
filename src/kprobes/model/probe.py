"""What the user asked for: a kind, places and a handler."""

from __future__ import annotations

from types import MappingProxyType

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kprobes.model.definition import Definition
    from kprobes.model.registered import Calling
    from kprobes.model.setting import SettingValue

ENTRY_KINDS = frozenset({"kprobe", "uprobe", "tracepoint"})
RETURN_KINDS = frozenset({"kretprobe", "uretprobe"})
KINDS = ENTRY_KINDS | RETURN_KINDS
# How large the room for a string of a definition may be chosen.
LEAST_STRING, MOST_STRING = 16, 4096
# What the script of a bundle sees among its names.
BUNDLED = "__kprobes_bundle__"
NO_NAMES: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class HandlerSource:
    """A handler before it is compiled: the text of its `def`, where it stands, and the names it can see.

    *line* is the line in *file* on which *text* begins; *text* is dedented by *indent* columns. *names* are the
    globals and
    closure variables, looked up only for names that the handler uses. *calling*: it was written to call others.
    """

    name: str
    text: str
    file: str = "<string>"
    line: int = 1
    indent: int = 0
    names: Mapping[str, object] = NO_NAMES
    calling: Calling | None = None


@dataclass(frozen=True, slots=True)
class AutoHandler:
    """A handler that the planner writes once it knows the prototype: what the one-line commands ask for.

    *action*: `trace` (an event a hit with the arguments, or with *prints* instead), `sample` (add *prints[0]* to
    the map `values`), `count` (add one to `values`), `latency` (add the time from entry to return, divided by
    *divisor*, to `values`). *condition* and *prints* are expressions of the handler language; *by* is the key of
    `values`. *stack* adds the stack to each event.
    """

    action: str
    condition: str = ""
    prints: tuple[str, ...] = ()
    by: str = ""
    divisor: int = 1
    stack: bool = False
    values: object = None


@dataclass(frozen=True, slots=True)
class FetchHandler:
    """A handler that a definition in the kernel's language stands for: its event, with what its arguments fetch.

    *text* is the definition as it was given, which is parsed only where a plan is made. *filter* is an event filter,
    empty for none; *strings* the room for each string in bytes, 0 for the usual (see `model.fetched`). With *counts*
    nothing is fetched and sent. *then* is done with each hit that passes instead of sending the event; its expressions
    know the fields by name. *definition* is what *text* means, once a planner knows the target.
    """

    text: str
    filter: str = ""
    strings: int = 0
    counts: bool = False
    then: AutoHandler | None = None
    definition: Definition | None = None

    @property
    def only_counts(self) -> bool:
        """Return whether all hits are counted, and that is all."""
        return self.counts and self.then is None


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """One probe as asked: *places* are spelled as the user did; without *handler* hits are only counted.

    *maxactive* is for return probes (0: the kernel's default). *way* forces a way in (see `model.plan.Way`), empty
    chooses. *on_fault*: the handler runs when the instruction there faults, not before it. *settings* are the values of
    those that don't have their defaults. *record*: what the handler sees is sent besides.
    """

    kind: str
    places: tuple[str, ...]
    handler: HandlerSource | AutoHandler | FetchHandler | None = None
    maxactive: int = 0
    way: str = ""
    unsafe: bool = False
    on_fault: bool = False
    settings: tuple[tuple[str, SettingValue], ...] = ()
    record: bool = False

    @property
    def event(self) -> str:
        """Return the name of the event of a definition that a planner has read; empty for other probes."""
        known = getattr(self.handler, "definition", None)
        return known.event if known is not None else ""

    @property
    def only_counts(self) -> bool:
        """Return whether no more is asked for than the counter of hits that every probe has."""
        return self.handler is None or (isinstance(self.handler, FetchHandler) and self.handler.only_counts)
