"""What the planner works on: sites that one compiled handler can serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kprobes.model.ctype import Function
    from kprobes.model.plan import Site
    from kprobes.model.probe import Probe


@dataclass(frozen=True, slots=True)
class HandlerField:
    """A field of a tracepoint's record as the compiler's front takes it (see `front.surroundings.RecordField`)."""

    name: str
    kind: str
    offset: int
    size: int
    signed: bool
    ctype: str
    count: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Sites that share a handler: all of one prototype, or of none that matters."""

    probe: Probe
    sites: tuple[Site, ...]
    prototype: Function | None
    traceable: bool = False
    at_entry: bool = True
    record: tuple[HandlerField, ...] = ()
