"""One line of a list of probes, as the kernel's kprobes/list has it: what is where, and how it got in."""

from __future__ import annotations

from kprobes.frozen import dataclass
from kprobes.model.probe import RETURN_KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set

    from kprobes.model.plan import Plan

# What a jump or ftrace's own call replaces is no breakpoint: the kernel says so in these words.
OPTIMIZED = "OPTIMIZED"
FTRACE = "FTRACE"


class State:
    """What keeps a site from being hit; empty where nothing does."""

    ARMED = ""
    DISABLED = "DISABLED"
    GONE = "GONE"  # its object is no longer mapped
    PENDING = "PENDING"  # its object has not been mapped yet
    REFUSED = "REFUSED"  # of a glob, and can't be armed


@dataclass(frozen=True, slots=True)
class Listed:
    """The site of a probe: *address* (0 where unknown), *kind* (k, r or t), *name* as symbol+offset, and the *object*
    or module that it lies in.

    *way* is how it is armed (see `model.plan.Way`), *why* the reason for that one; *state* one of `State`. *jumps*:
    there is a jump though it rests, for others at the same place.
    """

    address: int
    kind: str
    name: str
    object: str
    way: str
    why: str
    state: str = State.ARMED
    jumps: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the words that the kernel's list has in brackets."""
        jumps = self.way.startswith("jump") and (self.jumps or not self.state)
        by_ftrace = _BY_FTRACE & set(self.way.split("+"))
        return tuple(word for word in (self.state, OPTIMIZED if jumps else FTRACE if by_ftrace else "") if word)


def list_plan(plan: Plan, disabled: Set[int]) -> list[Listed]:
    """Return the list of the sites of a *plan* that a kernel carries out; those with a number in *disabled* rest."""
    rows = []
    for number, site in enumerate(plan.sites):
        probe = plan.probes[site.probe]
        kind = "t" if probe.kind == "tracepoint" else "r" if probe.kind in RETURN_KINDS else "k"
        name = f"{site.symbol}+{site.offset:#x}" if site.symbol and kind != "t" else site.name
        where = site.module or site.path.rpartition("/")[2]
        state = State.DISABLED if number in disabled else State.ARMED
        address = 0 if site.path else site.address + site.offset
        rows.append(Listed(address, kind, name, where, "+".join(probe.ways), "", state))
    return rows


_BY_FTRACE = frozenset({"ftrace", "fentry", "fexit", "kprobe.multi", "kretprobe.multi"})
