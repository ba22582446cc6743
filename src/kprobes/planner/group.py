"""What the planner works on: sites that one compiled handler can serve."""

from __future__ import annotations

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.ctype import Function, Types
    from kprobes.model.plan import Site
    from kprobes.model.probe import Probe
    from kprobes.symbols.tracepoint import RecordField


@dataclass(frozen=True, slots=True)
class Group:
    """Sites that share a handler: all of one prototype, or of none that matters.

    *is_pending*: some of their files may be mapped later. *types* are those of the probed file; *untyped* says why
    it has no prototype of the function.
    """

    probe: Probe
    sites: tuple[Site, ...]
    prototype: Function | None
    traceable: bool = False
    at_entry: bool = True
    record: tuple[RecordField, ...] = ()
    is_pending: bool = False
    types: Types | None = None
    untyped: str = ""
