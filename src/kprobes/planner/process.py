"""Plans for the process engine: sites in the files that a process has mapped, and what it must know of their code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kprobes.errors import UnsupportedError, UsageError
from kprobes.model.layout import SITE_COUNTER_BYTES, MapLayout
from kprobes.model.plan import COUNT_ONLY, Attachment, Plan, PlannedProbe
from kprobes.planner.files import group_files
from kprobes.symbols.code import load_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.plan import Site
    from kprobes.model.probe import Probe
    from kprobes.model.within import Within
    from kprobes.planner.group import Group


def plan_process(probes: Sequence[Probe], within: Within) -> Plan:
    """Return the plan for *probes* in the process that *within* names.

    Raises:
        SymbolNotFoundError, AmbiguousSymbolError, UnprobeableError, UsageError, FormatError
        UnsupportedError: a probe asks for what only the kernel's uprobes can do.
    """
    if not probes:
        raise UsageError("no probe is given", hint="name a function, as in `kprobes count -p PID malloc`")
    sites: list[Site] = []
    planned: list[PlannedProbe] = []
    attachments: list[Attachment] = []
    notes: list[str] = []
    for probe in probes:
        _check(probe)
        groups, said = group_files(probe, within)
        notes += said
        for group in groups:
            numbers = tuple(range(len(sites), len(sites) + len(group.sites)))
            sites += [replace(site, probe=len(planned)) for site in group.sites]
            attachments.append(Attachment(COUNT_ONLY, numbers, probe.maxactive))
            planned.append(PlannedProbe(probe.kind, _title(group), ("jump",), len(group.sites) > 1))
    paths = dict.fromkeys(site.path for site in sites if site.path)
    return Plan(
        probes=tuple(planned),
        sites=tuple(sites),
        maps=(MapLayout("stats", "stats", 4, SITE_COUNTER_BYTES * len(sites), 1, shards=1),),
        programs=(),
        attachments=tuple(attachments),
        events=(),
        notes=tuple(notes),
        objects=tuple(load_code(path) for path in paths),
    )


def _check(probe: Probe) -> None:
    if probe.kind != "uprobe" or probe.handler is not None:
        raise UnsupportedError(
            "the process engine counts hits; handlers and returns go by the kernel's uprobes",
            hint="add --engine uprobe",
        )


def _title(group: Group) -> str:
    return group.sites[0].name if len(group.sites) == 1 else " ".join(group.probe.places)
