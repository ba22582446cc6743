"""What runs where for each site: a counter or a handler at the site itself, the other half of a return probe at each
exit of its function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.errors import UnprobeableError
from kprobes.model.plan import COUNT_ONLY, ON_FAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.arch.x86_64.image import Image
    from kprobes.model.plan import Plan

RESULT = "ax"  # the register of a function's result
RETURN_HINT = "add --engine uprobe for this one"


@dataclass(frozen=True, slots=True)
class Hook:
    """Something that runs before the instruction at *address*, or *after* it.

    *number* is that of its *site*; for an exit the number of sites is added. *conditional*: only if the jump there is
    taken.
    """

    site: int
    number: int
    address: int
    conditional: bool = False
    after: bool = False

    @property
    def is_exit(self) -> bool:
        """Tell whether it is an exit of the site's function."""
        return self.number != self.site and not self.after


def programs_of(plan: Plan) -> list[int | None]:
    """Return by the number of a site what runs there (COUNT_ONLY: it is counted), None for nothing; then the same for
    the exits of each site's function, or for what comes behind its instruction."""
    found: list[int | None] = [None] * (2 * len(plan.sites))
    for attachment in plan.attachments:
        program = attachment.program
        if program != COUNT_ONLY and plan.natives[program].part == ON_FAULT:
            continue
        shift = 0 if program == COUNT_ONLY or plan.natives[program].part == "entry" else len(plan.sites)
        for site in attachment.sites:
            found[site + shift] = program
    return found


def fault_programs_of(plan: Plan) -> dict[int, int]:
    """Return by the number of a site the program that runs when its instruction faults."""
    return {
        site: one.program
        for one in plan.attachments
        if one.program != COUNT_ONLY and plan.natives[one.program].part == ON_FAULT
        for site in one.sites
    }


def hooks_of(plan: Plan, programs: Sequence[int | None], site: int, address: int, image: Image) -> list[Hook]:
    """Return the hooks of *site*, which is at *address*.

    Raises:
        UnprobeableError: the exits of its function can't be found.
    """
    hooks = [Hook(site, site, address)] if programs[site] is not None else []
    program = programs[site + len(plan.sites)]
    if program is None:
        return hooks
    if plan.natives[program].after:
        return [*hooks, Hook(site, site + len(plan.sites), address, after=True)]
    from kprobes.arch.x86_64.decode import Flow
    from kprobes.arch.x86_64.leaving import exits_of

    found = exits_of(image, address)
    # One that never returns is fine: its calls are hits until the same frame is entered again, and missed then.
    if not found and (not hooks or image.function(address) is None):
        raise UnprobeableError(plan.sites[site].name, "no exit of it can be found", hint=RETURN_HINT)
    # What a tail call will return isn't known at the jump: such a call is a missed one.
    wants_result = RESULT in plan.natives[program].reads
    kept = [item for item in found if item.flow == Flow.RETURN or not wants_result]
    exits = [Hook(site, site + len(plan.sites), item.address, item.flow == Flow.BRANCH) for item in kept]
    return hooks + exits
