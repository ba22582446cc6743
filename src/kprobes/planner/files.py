"""Places in programs and libraries -> groups of sites, for probes by the kernel's uprobes."""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import replace
from kprobes.planner.group import Group
from kprobes.symbols.file import resolve_anywhere
from kprobes.symbols.objects import MachineObjects, ProcessObjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.probe import Probe
    from kprobes.model.within import Within
    from kprobes.symbols.objects import Objects


def group_files(probe: Probe, within: Within) -> tuple[list[Group], list[str]]:
    """Return the groups of a uprobe or uretprobe, and notes on what was left out.

    Names are looked up in the process where one is given, else on this machine, with the program to be run as the
    main one.

    Raises:
        SymbolNotFoundError, AmbiguousSymbolError, UnprobeableError, UsageError, FormatError
    """
    objects: Objects = (
        ProcessObjects(within.pid) if within.pid > 0 and not within.program else MachineObjects(within.program)
    )
    sites, notes = [], []
    for place in probe.places:
        resolution = resolve_anywhere(place, objects)
        sites += [replace(one.site, size=one.size) for one in resolution.found]
        if resolution.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in resolution.skipped)
            notes.append(f"{place}: {sum(count for _, count in resolution.skipped)} left out ({reasons})")
    for site in sites:
        if probe.kind == "uretprobe" and site.offset:
            raise UsageError(f"a return probe sits at a function's entry, {site.name} does not")
    at_entry = all(not site.offset and site.symbol for site in sites)
    return [Group(probe, tuple(sites), None, at_entry=at_entry)], notes
