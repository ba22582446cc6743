"""Places as the user spells them -> groups of sites that one compiled handler can serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.errors import UsageError
from kprobes.model.ctype import Function, Types, format_ctype
from kprobes.model.plan import Site
from kprobes.model.probe import AutoHandler, Probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.symbols.kernel import Resolved
    from kprobes.symbols.tracepoint import RecordField

# A glob of more functions than this gets one handler without arguments rather than a handler a prototype.
MOST_PROTOTYPES = 40


@dataclass(frozen=True, slots=True)
class Group:
    """Sites that share a handler: all of one prototype, or of none that matters."""

    probe: Probe
    sites: tuple[Site, ...]
    prototype: Function | None
    traceable: bool
    at_entry: bool
    record: tuple[RecordField, ...] = ()


def group_kernel(probe: Probe, resolved: Sequence[Resolved], types: Types) -> list[Group]:
    """Sort the resolved sites of a kernel probe by prototype.

    Raises:
        UsageError: a return probe does not sit at a function's entry.
    """
    for one in resolved:
        if probe.kind == "kretprobe" and one.site.offset:
            raise UsageError(
                f"a return probe sits at a function's entry, {one.site.name} does not",
                hint=f"probe {one.site.symbol} itself, or use kprobe for the instruction",
            )
    if not _wants_prototype(probe, len(resolved)):
        only = resolved[0].site
        prototype = types.function(only.symbol) if len(resolved) == 1 and not only.offset else None
        return [_group(probe, resolved, prototype)]
    by_shape: dict[object, tuple[Function | None, list[Resolved]]] = {}
    for one in resolved:
        prototype = types.function(one.site.symbol) if not one.site.offset else None
        by_shape.setdefault(_shape(prototype), (prototype, []))[1].append(one)
    return [_group(probe, members, prototype) for prototype, members in by_shape.values()]


def _group(probe: Probe, resolved: Sequence[Resolved], prototype: Function | None) -> Group:
    return Group(
        probe,
        tuple(one.site for one in resolved),
        prototype,
        traceable=all(one.traceable is not False for one in resolved),
        at_entry=not any(one.site.offset for one in resolved),
    )


def _wants_prototype(probe: Probe, sites: int) -> bool:
    if probe.handler is None:
        return False
    if isinstance(probe.handler, AutoHandler):
        return sites <= MOST_PROTOTYPES and probe.handler.action != "latency"
    return True


def _shape(prototype: Function | None) -> object:
    if prototype is None:
        return None
    parameters = tuple((parameter.name, format_ctype(parameter.type)) for parameter in prototype.parameters)
    return parameters, format_ctype(prototype.returns)
