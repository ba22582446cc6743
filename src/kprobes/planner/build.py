"""The planner's data flow: probes -> groups of sites -> IR -> programs -> plan."""

from __future__ import annotations

from functools import cached_property

from kprobes.compiler.back.bpf import BpfTarget, lower
from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.compiler.ir.nodes import Block, Function, Handler, Place, Return
from kprobes.compiler.ir.usage import uses_function, uses_registers
from kprobes.compiler.ir.verify import verify
from kprobes.errors import CompileError, UnsupportedError, UsageError, all_mistakes
from kprobes.model import ctype
from kprobes.model.plan import Attachment, Plan, PlannedProbe, Program, Site, Way
from kprobes.model.probe import RETURN_KINDS, AutoHandler, FetchHandler, Probe
from kprobes.model.within import ANYWHERE, Within
from kprobes.planner.auto import write_handler
from kprobes.planner.cautions import cautions_of
from kprobes.planner.group import Group
from kprobes.planner.places import Places
from kprobes.planner.ways import Demand, Ways, candidates, returns_tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.facts import Facts
    from kprobes.model.features import Features
    from kprobes.model.layout import EventLayout, MapLayout
    from kprobes.model.mapspec import MapSpec
    from kprobes.planner.fetching import Definitions

USER_WAYS = Ways(Way.UPROBE, Way.URETPROBE)


def plan_probes(
    probes: Sequence[Probe], facts: Facts, *, avoid: frozenset[str] = frozenset(), within: Within = ANYWHERE
) -> Plan:
    """Return the plan for *probes* on the target that *facts* describe.

    *avoid* names families of ways (`fentry`, `kprobe.multi`) that this target turned out to refuse; *pid* limits
    probes of
    files to one process; *program* is the path of one that is about to be started.

    Raises:
        SymbolNotFoundError, AmbiguousSymbolError, UnprobeableError, CompileError, UsageError
    """
    if not probes:
        raise UsageError("no probe is given", hint="name a function, as in `kprobes trace vfs_read`")
    builder = Builder(facts.features, Places(facts, within), avoid)
    for probe in probes:
        builder.resolve(probe)
    mistakes: list[CompileError] = []
    for number, group in enumerate(builder.groups):
        try:
            builder.compile(number, group)
        except CompileError as error:
            mistakes.append(error)
    if mistakes:
        raise all_mistakes(mistakes)
    return builder.plan()


class Builder:
    """Gathers what a plan is made of. Sites are numbered first: the layout of the counters depends on how many
    there are."""

    def __init__(self, features: Features, places: Places, avoid: frozenset[str]) -> None:
        self.features = features
        self.places = places
        self.avoid = avoid
        self.groups: list[Group] = []
        self.first_site: list[int] = []
        self.sites: list[Site] = []
        self.probes: list[PlannedProbe] = []
        self.specs: dict[str, MapSpec] = {}
        self.maps: dict[str, MapLayout] = {}
        self.programs: list[Program] = []
        self.attachments: list[Attachment] = []
        self.events: list[EventLayout] = []
        self.notes: list[str] = []
        self.asked: list[Probe] = []
        self.handlers: list[Handler] = []
        self.shards = 1 << max(0, self.features.cpus - 1).bit_length()

    @cached_property
    def definitions(self) -> Definitions:
        """What reads definitions in the kernel's language."""
        from kprobes.planner.fetching import kernel_definitions

        return kernel_definitions(self.places)

    def resolve(self, probe: Probe) -> None:
        """Find the sites of *probe* and number them."""
        if probe.on_fault:
            raise UnsupportedError(
                "the kernel runs no handler when a probed instruction faults",
                hint="leave on_fault=True to the process engine: -p PID, or -- COMMAND, without --engine",
            )
        if isinstance(probe.handler, FetchHandler):
            probe = self.definitions.placed(probe)
        groups, notes = self.places.groups(probe)
        self.notes += notes
        self.asked.append(probe)
        for group in groups:
            self.groups.append(group)
            self.first_site.append(len(self.sites))
            self.sites += group.sites

    def compile(self, number: int, group: Group) -> None:
        """Compile the handler of *group* for the way it takes, and note how it is attached."""
        handler = self._handler(group)
        if group.probe.record:
            from kprobes.planner.recording import recorded

            handler = recorded(
                handler, group, "kernel", group.types or self.places.types_for(group.probe.kind), len(self.events)
            )
        verify(handler)
        ways = self._ways(group, handler)
        first = self.first_site[number]
        sites = tuple(range(first, first + len(group.sites)))
        cookie = self._cookie(ways, sites)
        argument_count = len(group.prototype.parameters) if group.prototype else 0
        pointers, untyped = _argument_kinds(group.prototype, is_old=not self.features.attach_cookie)
        target = BpfTarget(
            entry_way=ways.entry,
            exit_way=ways.exit,
            sites=len(self.sites),
            site=first if cookie == "none" else None,
            cookie=cookie,
            shards=self.shards,
            argument_count=argument_count,
            pointers=pointers,
            untyped=untyped,
            # both came with 5.12 to 5.15; the cookie is the one that can be asked for
            compare_exchange=bool(self.features.attach_cookie),
        )
        self.handlers.append(handler)
        lowered = lower(handler, target)
        self._add_maps([*handler.maps, *lowered.maps])
        self.events += handler.events
        maxactive = group.probe.maxactive
        returns_first = sorted(lowered.programs, key=lambda program: program.way != ways.exit)
        for program in returns_first:
            self.attachments.append(Attachment(len(self.programs), sites, maxactive))
            self.programs.append(program)
        asked = next(place for place, one in enumerate(self.asked) if one is group.probe)
        self.probes.append(
            PlannedProbe(group.probe.kind, _title(group), ways.names(), asked=asked, event=group.probe.event)
        )

    def plan(self) -> Plan:
        """Return the plan."""
        owners = [number for number, group in enumerate(self.groups) for _ in group.sites]
        sites = [
            Site(owner, one.name, one.symbol, one.offset, one.address, one.module, one.path, one.btf_id, 0, one.counter)
            for owner, one in zip(owners, self.sites, strict=True)
        ]
        return Plan(
            probes=tuple(self.probes),
            sites=tuple(sites),
            maps=tuple(self.maps.values()),
            programs=tuple(self.programs),
            attachments=tuple(self.attachments),
            events=tuple(self.events),
            key=self.features.key,
            notes=tuple(self.notes),
            cautions=cautions_of(self.handlers),
            sources=self.places.prototypes.sources,
            asserts=tuple(dict.fromkeys(one for handler in self.handlers for one in handler.asserts)),
        )

    def _handler(self, group: Group) -> Handler:
        probe, source = group.probe, group.probe.handler
        returns = probe.kind in RETURN_KINDS
        if source is None or probe.only_counts:
            return counting(returns=returns, arch=self.features.machine)
        if isinstance(source, FetchHandler):
            tell = probe.kind == "kretprobe" and returns_tell(self.features)
            return self.definitions.compiled(
                probe, lambda: self._surroundings(group), self.specs, len(self.events), returns_tell=tell
            )
        if isinstance(source, AutoHandler):
            source = write_handler(source, returns=returns, prototype=group.prototype, fields=group.record)
        return compile_handler(source, self._surroundings(group), self.specs)

    def _surroundings(self, group: Group) -> Surroundings:
        probe = group.probe
        return Surroundings(
            kind=probe.kind,
            types=group.types or self.places.types_for(probe.kind),
            prototype=group.prototype,
            untyped=group.untyped,
            at_entry=group.at_entry,
            record=group.record,
            shards=self.shards,
            first_event_id=len(self.events),
            unsafe=probe.unsafe,
            settings=probe.settings,
            variables=self.places.variables_for(probe.kind, group.sites),
            arch=self.features.machine,
        )

    def _ways(self, group: Group, handler: Handler) -> Ways:
        entry, exit_ = handler.entry is not None, handler.exit is not None
        kind = group.probe.kind
        if kind == "tracepoint":
            return Ways(Way.TRACEPOINT, "")
        if kind in ("uprobe", "uretprobe"):
            return Ways(USER_WAYS.entry if entry else "", USER_WAYS.exit if exit_ else "")
        demand = Demand(
            # a program of fentry can't tell where it is before Linux 5.17
            registers=uses_registers(handler) or (uses_function(handler) and not self.features.attach_cookie),
            entry=entry,
            exit=exit_,
            at_entry=group.at_entry,
            traceable=group.traceable,
            typed=all(site.btf_id for site in group.sites),
            sites=len(group.sites),
        )
        # definitions sit where the kernel's own events would, also where they ask for no register
        usual = "kprobe" if isinstance(group.probe.handler, FetchHandler) and not group.probe.only_counts else ""
        ranked = candidates(demand, self.features, group.probe.way or usual)
        kept = [ways for ways in ranked if not self.avoid & set(ways.names())]
        return (kept or ranked)[0]

    def _cookie(self, ways: Ways, sites: tuple[int, ...]) -> str:
        if len(sites) == 1:
            return "none"
        if Way.FENTRY in ways.names() or Way.FEXIT in ways.names() or not self.features.attach_cookie:
            return "site"
        return "cookie"

    def _add_maps(self, layouts: Sequence[MapLayout]) -> None:
        for layout in layouts:
            known = self.maps.setdefault(layout.name, layout)
            if known != layout:
                raise UsageError(
                    f"two maps are called {layout.name!r} and differ in shape",
                    hint="give each map its own name, or share one object between the handlers",
                )


def counting(*, returns: bool, arch: str = "x86_64") -> Handler:
    """Return the handler of a probe that only counts: the hit counter that every program has is all of it."""
    part = "exit" if returns else "entry"
    only = Function("count", part, (), (Block("start", (), Return(Place(1, 0))),))
    lines = {1: "(hits are counted)"}
    return Handler(
        "count", None if returns else only, only if returns else None, (), (), (), "<count>", lines, arch=arch
    )


def _argument_kinds(prototype: ctype.Function | None, *, is_old: bool) -> tuple[frozenset[int] | None, frozenset[int]]:
    """Return which arguments (the result counts as the last) the kernel's verifier takes for pointers to structs, and
    which it lets no program load: pointers to anything but structs, void and, unless the kernel *is_old*, integers."""
    if prototype is None:
        return None, frozenset()
    kinds = [*(parameter.type for parameter in prototype.parameters), prototype.returns]
    targets = {index: kind.target for index, kind in enumerate(kinds) if isinstance(kind, ctype.Pointer)}
    structs = frozenset(index for index, target in targets.items() if isinstance(target, ctype.Struct))
    loaded = (ctype.Struct, ctype.Void) if is_old else (ctype.Struct, ctype.Void, ctype.Int)
    return structs, frozenset(index for index, target in targets.items() if not isinstance(target, loaded))


def _title(group: Group) -> str:
    places = " ".join(group.probe.places)
    return group.sites[0].name if len(group.sites) == 1 else places
