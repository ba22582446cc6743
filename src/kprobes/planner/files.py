"""Places in programs and libraries -> groups of sites, for probes by the kernel's uprobes."""

from __future__ import annotations

import os

from kprobes.errors import SymbolNotFoundError, UsageError
from kprobes.frozen import replace
from kprobes.planner.group import Group
from kprobes.planner.prototypes import is_entry
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.file import resolve_anywhere, resolve_file
from kprobes.symbols.objects import MachineObjects, ProcessObjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.probe import Probe
    from kprobes.model.within import Within
    from kprobes.planner.prototypes import Prototypes
    from kprobes.symbols.file import FileResolution, ResolvedFile
    from kprobes.symbols.objects import Objects


def group_files(
    probe: Probe, within: Within, prototypes: Prototypes, *, later: bool = False
) -> tuple[list[Group], list[str]]:
    """Return the groups of a uprobe or uretprobe, and notes on what was left out.

    Names are looked up in the process where one is given, else on this machine, with the program to be run as the
    main one; types in *prototypes*. *later*: a library that the process has not loaded is one that it may load later.

    Raises:
        SymbolNotFoundError, AmbiguousSymbolError, UnprobeableError, UsageError, FormatError
    """
    objects: Objects = (
        ProcessObjects(within.pid) if within.pid > 0 and not within.program else MachineObjects(within.program)
    )
    resolved: list[ResolvedFile] = []
    notes, is_pending = [], False
    for place in probe.places:
        try:
            resolution = resolve_anywhere(place, objects)
        except SymbolNotFoundError as missing:
            if not later or missing.thing != "program or library":
                raise
            resolution = _yet_to_come(place, within.pid, missing)
            is_pending = True
            notes.append(f"{place}: {resolution.found[0].object.name} is not loaded yet: it is probed as soon as it is")
        resolved += resolution.found
        prototypes.add_sources(resolution.sources)
        if resolution.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in resolution.skipped)
            notes.append(f"{place}: {sum(count for _, count in resolution.skipped)} left out ({reasons})")
    sites = [replace(one.site, size=one.size, counter=_counter(probe)) for one in resolved]
    for site in sites:
        if probe.kind == "uretprobe" and site.offset:
            raise UsageError(f"a return probe sits at a function's entry, {site.name} does not")
    at_entry = all(is_entry(site) for site in sites)
    group = Group(probe, tuple(sites), None, at_entry=at_entry, is_pending=is_pending)
    return prototypes.groups(group, resolved), notes


def _counter(probe: Probe) -> int:
    """Return the file offset of the counter that a definition's place has, 0 for none."""
    place = getattr(getattr(probe.handler, "definition", None), "place", None)
    return getattr(place, "reference_counter", 0)


def _yet_to_come(place: str, pid: int, missing: SymbolNotFoundError) -> FileResolution:
    """Resolve *place* in a library of this machine that the process *pid* would find under the same path.

    Raises:
        SymbolNotFoundError: there is none (*missing* then), or none of that name in it.
    """
    try:
        found = resolve_file(place, MachineObjects())
    except SymbolNotFoundError as other:
        raise missing if other.thing == missing.thing else other from None
    path = os.path.realpath(found.found[0].object.path)
    with ElfFile(path) as elf:
        is_library = elf.kind == "shared"
    if not is_library or not _is_same(path, f"/proc/{pid}/root{path}"):
        raise missing
    return replace(
        found,
        found=tuple(replace(one, site=replace(one.site, path=os.path.realpath(one.site.path))) for one in found.found),
    )


def _is_same(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)  # noqa: PTH121 - pathlib costs start-up time
    except OSError:
        return False
