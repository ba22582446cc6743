"""What one plan of a process takes over from another, for a session that goes on with other probes."""

from __future__ import annotations

from kprobes.model.inherited import Inherited
from kprobes.session.selection import sites_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.plan import Plan
    from kprobes.model.probe import Probe

_MADE_ANEW = frozenset({"stats", "ring", "world", "unwind", "constants", "scratch", "stacks"})


def inherited(
    before: tuple[Plan, Sequence[Probe]], now: tuple[Plan, Sequence[Probe]], resting: Sequence[Probe]
) -> Inherited:
    """Return what the plan *now* takes over from the one *before*, each with the probes that it was asked for. Of these
    *resting* begin disabled.
    """
    (old, asked), (new, wanted) = before, now
    sites: list[tuple[int, int]] = []
    for probe in wanted:
        if any(one is probe for one in asked):
            sites += zip(sorted(sites_of(old, asked, [probe])), sorted(sites_of(new, wanted, [probe])), strict=False)
    numbers = sites_of(new, wanted, resting) if resting else frozenset()
    return Inherited(tuple(sites), _maps(old, new, dict(sites)), numbers)


def _maps(old: Plan, new: Plan, sites: dict[int, int]) -> tuple[tuple[str, str], ...]:
    """Return which maps of *old* are which of *new*. Those of calls under way go by the number of their probe."""
    probes = {old.sites[one].probe: new.sites[other].probe for one, other in sites.items()}
    layouts = {one.name: one for one in new.maps}
    found = []
    for one in old.maps:
        name = one.name
        if one.kind == "frames":
            head, _, number = name.rpartition(".")
            name = f"{head}.{probes.get(int(number), -1)}"
        if one.kind in _MADE_ANEW or name not in layouts:
            continue
        same = layouts[name]
        if (same.kind, same.key_size, same.value_size, same.max_entries, same.shards) == (
            (one.kind, one.key_size, one.value_size, one.max_entries, one.shards)
        ):
            found.append((one.name, name))
    return tuple(found)
