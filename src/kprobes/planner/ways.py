"""Which way in a probe takes: the cheapest one that the handler and the target allow.

Costs of one counting hit, measured in an emulated 6.12 guest: fentry 0.3 to 0.4 us, kprobe.multi 0.39, kprobe 0.55
to 0.65.
"""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import dataclass
from kprobes.model.plan import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.features import Features

# More functions than this get one kprobe.multi link rather than a trampoline each: attaching a trampoline costs
# about 1 ms.
MOST_TRAMPOLINES = 8


@dataclass(frozen=True, slots=True)
class Ways:
    """The way of the entry part and of the exit part; empty where the handler has no such part."""

    entry: str
    exit: str

    def names(self) -> tuple[str, ...]:
        """Return the ways in use."""
        return tuple(way for way in (self.entry, self.exit) if way)


def returns_tell(features: Features) -> bool:
    """Return whether the hit of a kretprobe knows its function and where that returns to: a helper tells the one, the
    registers hold the other. Both came with 5.15 to 5.18; the cookie is what can be asked for."""
    return bool(features.attach_cookie)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a handler asks of a way: full registers, an entry part, an exit part, and where it is to sit."""

    registers: bool
    entry: bool
    exit: bool
    at_entry: bool
    traceable: bool
    typed: bool
    sites: int


FAMILIES = {
    "fentry": Ways(Way.FENTRY, Way.FEXIT),
    "kprobe.multi": Ways(Way.KPROBE_MULTI, Way.KRETPROBE_MULTI),
    "kprobe": Ways(Way.KPROBE, Way.KRETPROBE),
}


def candidates(demand: Demand, features: Features, forced: str = "") -> Sequence[Ways]:
    """Return the ways to try for kernel functions, cheapest first; never empty.

    Raises:
        UsageError: *forced* is no way, or one that the handler can't take.
    """
    allowed = [name for name in _ranked(demand) if _possible(name, demand, features)]
    if forced:
        if forced not in FAMILIES:
            raise UsageError(f"no way {forced!r}", hint=f"the ways are {', '.join(FAMILIES)}")
        if forced not in allowed:
            raise UsageError(
                f"this probe can't go by {forced}",
                hint=f"it can go by {', '.join(allowed)}" if allowed else "leave the way out",
            )
        allowed = [forced]
    return [_parts(FAMILIES[name], demand) for name in allowed]


def _ranked(demand: Demand) -> Sequence[str]:
    if demand.sites > MOST_TRAMPOLINES:
        return ("kprobe.multi", "kprobe")
    return ("fentry", "kprobe.multi", "kprobe")


def _possible(name: str, demand: Demand, features: Features) -> bool:
    if name == "fentry":
        return bool(features.fentry) and demand.typed and demand.traceable and demand.at_entry and not demand.registers
    if name == "kprobe.multi":
        return bool(features.kprobe_multi) and demand.traceable and demand.at_entry and not demand.registers
    return True


def _parts(ways: Ways, demand: Demand) -> Ways:
    return Ways(ways.entry if demand.entry else "", ways.exit if demand.exit else "")
