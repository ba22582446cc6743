"""What a session counts: of each site, and of each assertion."""

from __future__ import annotations

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kprobes.engines.port import Attached
    from kprobes.model.plan import Assertion, Plan, SiteStats


@dataclass(frozen=True, slots=True)
class ProbeStats:
    """Counts of one site since attach. *missed* is None where this kernel does not tell all of it.

    *unmatched*, known from `detach` on: calls of a handler with two halves whose return was not seen. They are still
    inside, or were left by an exit, longjmp or an exception. In a process they are among the hits, in a kernel not; of
    a probe of many sites the sum stands at the first.
    """

    name: str
    kind: str
    ways: tuple[str, ...]
    hits: int
    missed: int | None
    lost: int
    faults: int
    unmatched: int = 0

    @property
    def clean(self) -> bool:
        """Return whether nothing was missed, lost or faulty."""
        return not (self.missed or self.lost or self.faults)


@dataclass(frozen=True, slots=True)
class AssertStats:
    """How often an `assert` has *failed* since attach."""

    assertion: Assertion
    failed: int


def read_counts(plan: Plan, attached: Attached, unmatched: Mapping[int, int]) -> list[ProbeStats]:
    """Return the counts of each site; *unmatched* is told by the number of the site."""
    from kprobes.events.aggregate import read_stats  # not on the way to the first event

    layout = next(layout for layout in plan.maps if layout.kind == "stats")
    counted = read_stats(attached.read_map(layout.name), layout, len(plan.sites))
    missed = dict.fromkeys(range(len(plan.sites)), 0)
    untold = set()
    for link in attached.link_stats():
        for number in link.sites:
            missed[number] += _share(max(link.missed, 0), link.sites, number)
            if link.missed < 0:
                untold.add(number)
    return [
        _site_stats(plan, one, unmatched.get(one.site, 0), _missed(one, missed[one.site], untold=one.site in untold))
        for one in counted
    ]


def _missed(counted: SiteStats, by_kernel: int, *, untold: bool) -> int | None:
    """Return how often a site was missed, None where the kernel doesn't tell."""
    # A return that the kernel counts as missed leaves a record behind, which the next call may find and count too.
    missed = max(counted.missed, by_kernel)
    return None if untold and not missed else missed


def _site_stats(plan: Plan, counted: SiteStats, unmatched: int, missed: int | None) -> ProbeStats:
    site = plan.sites[counted.site]
    probe = plan.probes[site.probe]
    return ProbeStats(site.name, probe.kind, probe.ways, counted.hits, missed, counted.lost, counted.faults, unmatched)


def _share(missed: int, sites: tuple[int, ...], number: int) -> int:
    """A link of many sites counts its misses in one sum: it is shown once, at the first of them."""
    return missed if number == sites[0] else 0
