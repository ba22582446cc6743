"""Which sites of a plan the user means."""

from __future__ import annotations

from kprobes.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.plan import Plan, Site
    from kprobes.model.probe import Probe


def sites_of(plan: Plan, probes: Sequence[Probe], what: Sequence[Probe | str]) -> frozenset[int]:
    """Return the numbers of the sites of *what*: some of *probes*, which the plan was asked for, or names and globs of
    sites; without any, all.

    Raises:
        UsageError: the plan has no such site.
    """
    found = set() if what else set(range(len(plan.sites)))
    for one in what:
        matching = {number for number, site in enumerate(plan.sites) if _is_meant(plan, probes, site, one)}
        if not matching:
            raise UsageError(
                f"no probe of this session is called {one if isinstance(one, str) else one.places[0]}",
                hint="session.listing shows what it has",
            )
        found |= matching
    return frozenset(found)


def _is_meant(plan: Plan, probes: Sequence[Probe], site: Site, what: Probe | str) -> bool:
    if isinstance(what, str):
        from fnmatch import fnmatchcase

        names = (site.name, site.symbol, plan.probes[site.probe].text)
        return any(fnmatchcase(name, what) for name in names if name)
    asked = plan.probes[site.probe].asked
    return asked < len(probes) and probes[asked] is what
