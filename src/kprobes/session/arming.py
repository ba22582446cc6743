"""How the sites in a process are armed, in words."""

from __future__ import annotations

from collections import Counter

from kprobes.model.plan import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.process.arming import Armed
    from kprobes.model.plan import Plan

# So many sites that are armed by a breakpoint are told one by one.
SHOWN_ARMINGS = 5


def tell_arming(plan: Plan, armed: Sequence[Armed]) -> list[str]:
    """Return which sites take the slow way, a breakpoint, and what of a glob was left out."""
    told = [f"{plan.sites[one.number].name}: {one.way} ({one.why})" for one in armed if one.way == Way.BREAKPOINT]
    shown = told[:SHOWN_ARMINGS] + ([f"{len(told) - SHOWN_ARMINGS} more"] if len(told) > SHOWN_ARMINGS else [])
    left = Counter(one.why for one in armed if not one.way)
    reasons = ", ".join(f"{count} {why}" for why, count in left.most_common())
    return shown + ([f"{left.total()} left out ({reasons})"] if left else [])
