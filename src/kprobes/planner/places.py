"""Places as the user spells them -> groups of sites that one compiled handler can serve."""

from __future__ import annotations

from functools import cached_property

from kprobes.errors import SymbolNotFoundError, TypeNotFoundError, UsageError
from kprobes.frozen import replace
from kprobes.model.ctype import Function, Pointer, Struct, format_ctype
from kprobes.model.definition import FilePlace
from kprobes.model.plan import Site
from kprobes.model.probe import AutoHandler, FetchHandler, HandlerSource, Probe
from kprobes.model.within import ANYWHERE, Within
from kprobes.planner.group import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kprobes.model.ctype import CType, Enum, Member, Types
    from kprobes.model.facts import Facts
    from kprobes.planner.prototypes import Prototypes
    from kprobes.symbols.kernel import KernelSymbols, Resolved
    from kprobes.symbols.variables import FileVariables, KernelVariables

# A glob of more functions than this gets one handler without arguments rather than a handler a prototype.
MOST_PROTOTYPES = 40


class NoTypes:
    """The types of a target that has none: arguments go by `arg(n)` and `regs`."""

    def function(self, name: str) -> Function | None:
        """Return None."""

    def struct(self, name: str) -> Struct | None:
        """Return None."""

    def member(self, struct: Struct, name: str) -> Member | None:
        """Return None."""

    def member_names(self, struct: Struct) -> Sequence[str]:  # noqa: ARG002 - the protocol's
        """Return nothing."""
        return ()

    def enumerator(self, name: str) -> int | None:
        """Return None."""

    def enumerators(self, enum: Enum) -> Mapping[int, str]:  # noqa: ARG002
        """Return nothing."""
        return {}

    def variable(self, name: str) -> CType | None:
        """Return None."""

    def typename(self, name: str) -> CType | None:
        """Return the type *name* if it is one of C's own."""
        from kprobes.model.cnames import builtin_type

        plain = name.strip()
        if plain.endswith("*"):
            target = self.typename(plain[:-1])
            return Pointer(target) if target is not None else None
        return builtin_type(plain)


class Places:
    """Turns probes into groups for one target; symbols and types, and what reads them, are loaded when first needed."""

    def __init__(self, facts: Facts, within: Within = ANYWHERE) -> None:
        self.facts = facts
        self._within = within

    @cached_property
    def kernel(self) -> KernelSymbols:
        """The kernel's symbols."""
        from kprobes.symbols.kernel import KernelSymbols

        return KernelSymbols(self.facts)

    @cached_property
    def prototypes(self) -> Prototypes:
        """The types of the programs and libraries that are probed."""
        from kprobes.planner.prototypes import Prototypes

        return Prototypes()

    @cached_property
    def types(self) -> Types:
        """The kernel's types, or none where it has no BTF."""
        from kprobes.symbols.btf_types import KernelTypes

        try:
            return KernelTypes.load(self.facts)
        except TypeNotFoundError:
            return NoTypes()

    def groups(self, probe: Probe) -> tuple[list[Group], list[str]]:
        """Return the groups of *probe*, and notes on what was left out.

        Raises:
            SymbolNotFoundError, AmbiguousSymbolError, UnprobeableError, UsageError
        """
        if probe.kind == "tracepoint":
            return [self._tracepoint(probe, place) for place in probe.places], []
        if probe.kind in ("uprobe", "uretprobe"):
            from kprobes.planner.files import group_files

            try:
                return group_files(probe, self._within, self.prototypes)
            except SymbolNotFoundError as missing:
                group = _as_defined(probe)
                if group is None or missing.thing != "program or library":
                    raise
                return [group], []
        found: list[Resolved] = []
        notes: list[str] = []
        for place in probe.places:
            resolution = self.kernel.resolve(place, traceable=True)
            found += resolution.found
            notes += resolution.notes(place)
        return self._by_prototype(probe, _checked(probe, found)), notes

    def types_for(self, kind: str) -> Types:
        """Return where a handler of this kind of probe finds its types."""
        return NoTypes() if kind in ("uprobe", "uretprobe") else self.types

    def variables_for(self, kind: str, sites: Sequence[Site]) -> KernelVariables | FileVariables:
        """Return where a handler of this kind of probe at *sites* finds global variables."""
        from kprobes.symbols.variables import FileVariables, KernelVariables

        if kind in ("uprobe", "uretprobe"):
            return FileVariables(sites)
        return KernelVariables(lambda: self.kernel.table)

    def _by_prototype(self, probe: Probe, resolved: Sequence[Resolved]) -> list[Group]:
        if not wants_prototype(probe, len(resolved)):
            only = resolved[0].site
            by_type = probe.only_counts or not isinstance(probe.handler, FetchHandler)
            wanted = len(resolved) == 1 and not only.offset and by_type
            prototype = self.types.function(_typed_name(only)) if wanted else None
            return [_group(probe, resolved, prototype)]
        by_shape: dict[object, tuple[Function | None, list[Resolved]]] = {}
        for one in resolved:
            prototype = self.types.function(_typed_name(one.site)) if not one.site.offset else None
            with_id = replace(one, site=replace(one.site, btf_id=prototype.key if prototype else 0))
            by_shape.setdefault(prototype_shape(prototype), (prototype, []))[1].append(with_id)
        return [_group(probe, members, prototype) for prototype, members in by_shape.values()]

    def _tracepoint(self, probe: Probe, place: str) -> Group:
        from kprobes.symbols.tracepoint import load_tracepoint

        point = load_tracepoint(place, self.facts, self.types)
        name = f"{point.category}:{point.name}"
        return Group(probe, (Site(0, name, symbol=name),), None, record=point.fields)


def _as_defined(probe: Probe) -> Group | None:
    """Return the group of a definition's place in a file that isn't on this machine: the target may have it. None for
    what is no such place."""
    place = (
        probe.handler.definition.place if isinstance(probe.handler, FetchHandler) and probe.handler.definition else None
    )
    if not isinstance(place, FilePlace) or not place.path.startswith("/"):
        return None
    name = f"{place.path.rpartition('/')[2]}:{place.offset:#x}"
    site = Site(0, name, path=place.path, address=place.offset, counter=place.reference_counter)
    return Group(probe, (site,), None)


def _checked(probe: Probe, resolved: list[Resolved]) -> list[Resolved]:
    for one in resolved:
        if probe.kind == "kretprobe" and one.site.offset:
            raise UsageError(
                f"a return probe sits at a function's entry, {one.site.name} does not",
                hint=f"probe {one.site.symbol} itself, or use kprobe for the instruction",
            )
    by_place = {(one.site.symbol, one.site.offset, one.site.module, one.site.address): one for one in resolved}
    return list(by_place.values())


def _group(probe: Probe, resolved: Sequence[Resolved], prototype: Function | None) -> Group:
    sites = [one.site for one in resolved]
    if len(sites) == 1 and prototype is not None:
        sites = [replace(sites[0], btf_id=prototype.key)]
    return Group(
        probe,
        tuple(sites),
        prototype,
        traceable=all(one.traceable is not False for one in resolved),
        at_entry=not any(site.offset for site in sites),
    )


def _typed_name(site: Site) -> str:
    return f"{site.module}:{site.symbol}" if site.module else site.symbol


def wants_prototype(probe: Probe, sites: int) -> bool:
    """Return whether the handler of *probe* is compiled for the prototype of each of so many *sites*."""
    if isinstance(probe.handler, AutoHandler):
        return sites <= MOST_PROTOTYPES and probe.handler.action != "latency"
    if not isinstance(probe.handler, HandlerSource):
        return False
    return "()" not in probe.handler.text.partition(":")[0].replace(" ", "")


def prototype_shape(prototype: Function | None) -> object:
    """Return what functions have in common that one handler can serve."""
    if prototype is None:
        return None
    parameters = tuple((parameter.name, format_ctype(parameter.type)) for parameter in prototype.parameters)
    return parameters, format_ctype(prototype.returns)
