"""Making bundles: probes are planned for each target, and what may be another there is taken out of the plans."""

from __future__ import annotations

import ast
import platform
import re
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

from kprobes.compiler.front.names import word_of
from kprobes.compiler.front.source import source_of
from kprobes.errors import AmbiguousSymbolError, FormatError, KprobesError, UsageError
from kprobes.export.bundlefile import BundledProbe, BundledTarget
from kprobes.frozen import replace
from kprobes.model.plan import Way
from kprobes.model.probe import HandlerSource
from kprobes.model.wire import plan_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kprobes.engines.port import Engine
    from kprobes.model.plan import Plan, Site
    from kprobes.model.probe import Probe
    from kprobes.model.within import Within
    from kprobes.symbols.kallsyms import Kallsyms

USER_KINDS = frozenset({"uprobe", "uretprobe"})
# What a kernel may refuse; a plan without it goes along.
FAMILIES = (
    frozenset[str](),
    frozenset({Way.FENTRY, Way.FEXIT}),
    frozenset({Way.FENTRY, Way.FEXIT, Way.KPROBE_MULTI, Way.KRETPROBE_MULTI}),
)
# Words that put an address of the kernel into the code.
_WORDS = ("var", "percpu", "address_of")
_ADDRESSES = re.compile(rf"\b({'|'.join(_WORDS)})\s*\(")


def bundled_probes(probes: Sequence[Probe]) -> tuple[BundledProbe, ...]:
    """Return what is to be known of *probes* where they run."""
    return tuple(BundledProbe(probe.kind, probe.places) for probe in probes)


def kernel_target(probes: Sequence[Probe], engine: Engine) -> BundledTarget:
    """Return *probes* compiled for the kernel of *engine*, for each family of ways that it may come to refuse.

    Raises:
        KprobesError: a probe can't be planned, or is none that can travel.
    """
    from kprobes.planner.build import plan_probes
    from kprobes.symbols.kallsyms import Kallsyms

    _check_kinds(probes, user=False)
    facts = engine.facts()
    if not facts.features.key:
        raise UsageError("this kernel tells no build-id: nothing would show where the bundle fits")
    symbols = Kallsyms.load(facts.kallsyms())
    found: dict[bytes, None] = {}
    failure: KprobesError | None = None
    for avoid in FAMILIES:
        try:
            plan = plan_probes(tuple(probes), facts, avoid=avoid)
        except KprobesError as error:
            failure = failure or error
            continue
        found[plan_to_bytes(_without_addresses(plan, symbols))] = None
    if not found:
        assert failure is not None
        raise failure
    text = symbols.kallsyms_lookup_name("_text") if any(map(names_addresses, probes)) else 0
    return BundledTarget("kernel", facts.features.key, facts.features.release, text, (), tuple(found))


def process_target(probes: Sequence[Probe], within: Within) -> BundledTarget:
    """Return *probes* compiled for the files of the process that *within* names.

    Raises:
        KprobesError: a probe can't be planned, or a file has no build-id.
    """
    from kprobes.planner.process import plan_process

    _check_kinds(probes, user=True)
    plan = replace(plan_process(tuple(probes), within), sources=())
    if any(not site.path for site in plan.sites):
        raise UsageError("this code comes from no file: nothing would show where the bundle fits")
    files = {site.path: build_id_of(site.path) for site in plan.sites}
    for path in (one.path for one in plan.unwinding if one.path not in files):
        with suppress(FormatError):  # frames in a file that nothing identifies are found without a table
            files[path] = build_id_of(path)
    plan = replace(plan, unwinding=tuple(one for one in plan.unwinding if one.path in files))
    return BundledTarget("process", "", platform.machine(), 0, tuple(files.items()), (plan_to_bytes(plan),))


def build_id_of(path: str) -> str:
    """Return the build-id of the file *path*.

    Raises:
        FormatError: it has none.
    """
    from kprobes.symbols.elf import ElfFile

    with ElfFile(path) as elf:
        found = elf.build_id
    if not found:
        raise FormatError(f"{path} has no build-id", hint="link it with -Wl,--build-id: it tells builds apart")
    return found


def _check_kinds(probes: Sequence[Probe], *, user: bool) -> None:
    for probe in probes:
        if (probe.kind in USER_KINDS) != user:
            what = "a process" if user else "a kernel"
            raise UsageError(
                f"{probe.places[0]}: a {probe.kind} is no probe of {what}",
                hint="a bundle of a process is made with -p PID or -- CMD, one of a kernel without",
            )


def _without_addresses(plan: Plan, symbols: Kallsyms) -> Plan:
    """Return *plan* with its sites by name alone: where a kernel lies differs from boot to boot."""
    return replace(plan, sites=tuple(_by_name(site, symbols) for site in plan.sites))


def _by_name(site: Site, symbols: Kallsyms) -> Site:
    if site.path or ":" in site.symbol:  # a tracepoint's name has its category
        return site
    if not site.symbol:
        raise UsageError(f"{site.name} is an address, which is another at the next boot", hint="name the function")
    if len(symbols.lookup(site.symbol, site.module)) > 1:
        raise AmbiguousSymbolError(site.symbol, (f"{site.symbol}+0x0",))
    return replace(site, address=0)


def names_addresses(probe: Probe) -> bool:
    """Return whether the handler of *probe*, or a function it calls, asks for addresses of the kernel's variables."""
    if not isinstance(probe.handler, HandlerSource):
        return "@" in getattr(probe.handler, "text", "")
    pending, seen = [probe.handler], set[FunctionType]()
    while pending:
        source = pending.pop()
        if _ADDRESSES.search(source.text):
            return True
        for thing in _things(source):
            if word_of(thing) in _WORDS:
                return True
            if isinstance(thing, FunctionType) and thing not in seen:
                seen.add(thing)
                pending.append(source_of(thing))
    return False


def _things(source: HandlerSource) -> Iterator[object]:
    """Give what the body of *source* names: things by their names, by others, and those in modules."""
    for definition in ast.parse(source.text).body:
        for statement in getattr(definition, "body", ()):
            for node in ast.walk(statement):
                yield _thing(node, source.names)


def _thing(node: ast.AST, names: Mapping[str, object]) -> object:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _thing(node.value, names)
        return getattr(owner, node.attr, None) if isinstance(owner, ModuleType) else None
    return None
