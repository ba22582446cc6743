"""Plans for the process engine: sites in the files that a process has mapped, what it must know of their code, and
handlers as native code."""

from __future__ import annotations

from functools import cached_property

from kprobes.errors import CompileError, FormatError, UnsupportedError, UsageError, all_mistakes
from kprobes.frozen import replace
from kprobes.model.layout import SITE_COUNTER_BYTES, MapLayout
from kprobes.model.plan import COUNT_ONLY, ON_FAULT, Attachment, NativeProgram, Plan, PlannedProbe, Unwinding
from kprobes.model.probe import RETURN_KINDS, AutoHandler, FetchHandler
from kprobes.planner.files import group_files
from kprobes.planner.prototypes import Prototypes
from kprobes.symbols.code import load_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.front.compile import Surroundings
    from kprobes.compiler.ir.nodes import Handler
    from kprobes.model.caution import Caution
    from kprobes.model.layout import EventLayout
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.plan import Site
    from kprobes.model.probe import Probe
    from kprobes.model.within import Within
    from kprobes.planner.fetching import Definitions
    from kprobes.planner.group import Group

SHOWN_ARGUMENTS = 3  # of a function without a prototype
# So many sites of one file are planned quicker with all branches of its code known.
MANY_SITES = 256
KINDS = frozenset({"uprobe", "uretprobe"})


def plan_process(probes: Sequence[Probe], within: Within) -> Plan:
    """Return the plan for *probes* in the process that *within* names.

    Raises:
        SymbolNotFoundError, AmbiguousSymbolError, UnprobeableError, UsageError, FormatError
        CompileError: a handler is outside the language, or asks for what can't be had inside of a process.
        UnsupportedError: a probe asks for what only the kernel's uprobes can do.
    """
    if not probes:
        raise UsageError("no probe is given", hint="name a function, as in `kprobes count -p PID malloc`")
    builder = _Builder(within)
    for probe in probes:
        builder.resolve(probe)
    return builder.plan()


class _Builder:
    """Gathers what a plan is made of. All sites are numbered before anything is lowered: code holds their number."""

    def __init__(self, within: Within) -> None:
        self._within = within
        self._prototypes = Prototypes()
        self._groups: list[Group] = []
        self._sites: list[Site] = []
        self._numbers: list[tuple[int, ...]] = []
        self._notes: list[str] = []
        self._asked: list[Probe] = []
        self._specs: dict[str, MapSpec] = {}
        self._maps: dict[str, MapLayout] = {}
        self._events: list[EventLayout] = []

    @cached_property
    def _definitions(self) -> Definitions:
        """What reads definitions in the kernel's language."""
        from kprobes.planner.fetching import process_definitions

        return process_definitions()

    def resolve(self, probe: Probe) -> None:
        """Find the sites of *probe* and number them."""
        if probe.kind not in KINDS:
            raise UnsupportedError(
                f"a {probe.kind} is no probe of a process", hint="leave -p out for the kernel's functions"
            )
        if probe.on_fault and probe.kind in RETURN_KINDS:
            raise UsageError("a return is nothing that faults", hint="write @uprobe(..., on_fault=True)")
        if isinstance(probe.handler, FetchHandler):
            probe = self._definitions.placed(probe)
        groups, notes = group_files(probe, self._within, self._prototypes, later=True)
        self._asked.append(probe)
        self._notes += notes
        for group in groups:
            first, number = len(self._sites), len(self._groups)
            self._numbers.append(tuple(range(first, first + len(group.sites))))
            self._sites += [site if site.probe == number else replace(site, probe=number) for site in group.sites]
            self._groups.append(group)

    def plan(self) -> Plan:
        """Compile the handlers and return the plan."""
        handlers = self._handlers()
        natives, attachments, probes = self._lower(handlers)
        unwinding = self._unwinding()
        paths: dict[str, int] = {}
        for site in self._sites:
            paths[site.path] = paths.get(site.path, 0) + 1
        stats = MapLayout("stats", "stats", 4, SITE_COUNTER_BYTES * len(self._sites), 1, shards=1)
        return Plan(
            probes=tuple(probes),
            sites=tuple(self._sites),
            maps=(stats, *self._maps.values()),
            programs=(),
            attachments=tuple(attachments),
            events=tuple(self._events),
            notes=tuple(self._notes),
            natives=tuple(natives),
            objects=tuple(load_code(path, branches=count >= MANY_SITES) for path, count in paths.items() if path),
            unwinding=unwinding,
            cautions=_cautions(handlers),
            sources=self._prototypes.sources,
            asserts=tuple(dict.fromkeys(one for handler in handlers if handler for one in handler.asserts)),
        )

    def _unwinding(self) -> tuple[Unwinding, ...]:
        """Return how to unwind all that is mapped now, if a handler takes stacks; make room for it in the map."""
        layout = next((one for one in self._maps.values() if one.kind == "unwind"), None)
        if layout is None:
            return ()
        from kprobes.symbols.objects import ProcessObjects
        from kprobes.symbols.unwind import unwind_rows

        found = []
        for one in ProcessObjects(self._within.pid).all():
            try:
                rows = unwind_rows(one.path)
            except FormatError:
                continue  # its frames are found by their pointers, if they have them
            found.append(Unwinding(one.path, rows))
        size = layout.value_size + sum(len(one.rows) for one in found)
        self._maps[layout.name] = replace(layout, value_size=size)
        return tuple(found)

    def _handlers(self) -> list[Handler | None]:
        """Compile the handlers of all groups; the mistakes of all are told at once."""
        handlers: list[Handler | None] = []
        mistakes: list[CompileError] = []
        for group in self._groups:
            try:
                handlers.append(self._handler(group))
            except CompileError as error:
                mistakes.append(error)
        if mistakes:
            raise all_mistakes(mistakes)
        return handlers

    def _handler(self, group: Group) -> Handler | None:
        """Compile the handler of *group* to IR; None where hits are only counted."""
        probe, source = group.probe, group.probe.handler
        returns = probe.kind in RETURN_KINDS
        if source is None or probe.only_counts:
            if not returns and not probe.on_fault:
                return None
            from kprobes.planner.build import counting

            return counting(returns=returns)
        from kprobes.compiler.ir.verify import verify

        if isinstance(source, FetchHandler):
            handler = self._definitions.compiled(
                probe, lambda: self._surroundings(group), self._specs, len(self._events), returns_tell=False
            )
        else:
            from kprobes.compiler.front.compile import compile_handler
            from kprobes.planner.auto import write_handler

            if isinstance(source, AutoHandler):
                registers = SHOWN_ARGUMENTS if group.at_entry else 0
                source = write_handler(source, returns=returns, prototype=group.prototype, registers=registers)
            handler = compile_handler(source, self._surroundings(group), self._specs)
        if probe.record:
            from kprobes.planner.recording import recorded

            handler = recorded(handler, group, "process", group.types, len(self._events))
        verify(handler)
        self._add_maps(handler.maps)
        self._events += handler.events
        return handler

    def _surroundings(self, group: Group) -> Surroundings:
        from kprobes.compiler.front.compile import Surroundings
        from kprobes.model.shared import HISTOGRAM_SHARES
        from kprobes.planner.places import NoTypes
        from kprobes.symbols.variables import FileVariables

        probe = group.probe
        return Surroundings(
            kind=probe.kind,
            types=group.types or NoTypes(),
            untyped=group.untyped,
            prototype=group.prototype,
            at_entry=group.at_entry,
            record=group.record,
            shards=HISTOGRAM_SHARES,
            first_event_id=len(self._events),
            unsafe=probe.unsafe,
            settings=probe.settings,
            steps=not probe.on_fault,
            on_fault=probe.on_fault,
            variables=FileVariables(group.sites),
        )

    def _lower(
        self, handlers: Sequence[Handler | None]
    ) -> tuple[list[NativeProgram], list[Attachment], list[PlannedProbe]]:
        natives: list[NativeProgram] = []
        attachments: list[Attachment] = []
        probes = []
        pairs = any(handler is not None and handler.entry and handler.exit for handler in handlers)
        counted = len(self._sites) * (2 if pairs else 1)
        for number, (group, handler) in enumerate(zip(self._groups, handlers, strict=True)):
            sites, maxactive = self._numbers[number], group.probe.maxactive
            asked = next(place for place, one in enumerate(self._asked) if one is group.probe)
            ways, is_glob, event = (group.probe.way or "jump",), len(sites) > 1, group.probe.event
            probes.append(
                PlannedProbe(group.probe.kind, _title(group), ways, is_glob, group.is_pending, asked=asked, event=event)
            )
            if handler is None:
                attachments.append(Attachment(COUNT_ONLY, sites, maxactive))
                continue
            from kprobes.compiler.back.native import NativeTarget, lower_native

            after = group.probe.kind not in RETURN_KINDS
            programs, maps = lower_native(handler, NativeTarget(len(self._sites), counted, number, after=after))
            self._add_maps(maps)
            for program in programs:
                attachments.append(Attachment(len(natives), sites, maxactive))
                natives.append(replace(program, part=ON_FAULT) if group.probe.on_fault else program)
        return natives, attachments, probes

    def _add_maps(self, layouts: Sequence[MapLayout]) -> None:
        for layout in layouts:
            shaped = _shared_out(layout)
            if self._maps.setdefault(layout.name, shaped) != shaped:
                raise UsageError(
                    f"two maps are called {layout.name!r} and differ in shape",
                    hint="give each map its own name, or share one object between the handlers",
                )


def _cautions(handlers: Sequence[Handler | None]) -> tuple[Caution, ...]:
    written = [handler for handler in handlers if handler is not None]
    if not written:
        return ()  # hits are counted: the compiler is not even imported
    from kprobes.planner.cautions import cautions_of

    return cautions_of(written)


def _shared_out(layout: MapLayout) -> MapLayout:
    """Return *layout* with a share for each block; those of a few bytes lie in cache lines of their own."""
    from kprobes.model.shared import MAX_BLOCKS, SHARE_LINE

    if layout.kind not in ("count", "min", "max", "avg") or layout.key:
        return layout
    size = MAX_BLOCKS * SHARE_LINE
    return replace(layout, shards=size * layout.shards // layout.value_size, value_size=size)


def _title(group: Group) -> str:
    return group.sites[0].name if len(group.sites) == 1 else " ".join(group.probe.places)
