"""Decide whether, and how, an address can be armed.

The tactics, best first, each with the reason that stands in `kprobes list`:

- *jump*: a 5-byte jump over the instruction (and those after it, if it is shorter);
- *call*: where the moved instructions end with a call, a call to the detour takes its place, so that the processor's
  return prediction and a shadow stack stay right;
- *block*: the jump goes to an instruction a little before, and those up to the site move along with it;
- *pun*: a jump that is longer than the instruction, whose last offset bytes are those of the instructions behind it:
  nothing but the site changes, and the detour lies where those bytes happen to lead;
- *island*: a 2-byte jump to padding nearby, from where a 5-byte jump goes on;
- *eviction*: the same, where instructions nearby have moved to a detour of their own to make room;
- *breakpoint*: int3, served by the controller.

The kernel's safety rules hold for every jump: whole instructions of one function, none of which is entered but the
first (see `image`), no call before the last, the detour within 2 GiB. A function's last instruction may be followed
by padding, which the jump overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kprobes.arch.x86_64 import tactics
from kprobes.arch.x86_64.decode import skip_endbr
from kprobes.arch.x86_64.patch import BREAKPOINT_BYTE, IN_PROCESS, Patch, Tactic, reach_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kprobes.arch.x86_64.image import Image


@dataclass(frozen=True, slots=True)
class SitePlan:
    """What to do about the site at *address*: *tactic*, and *reason*, why this one, in words.

    *patch* is None exactly if it is refused; then *error* is the kernel's name for the reason (EILSEQ, EINVAL,
    EOPNOTSUPP, EBUSY). *address* lies behind the ENDBR64 if the probe was put on one.
    """

    address: int
    tactic: str
    reason: str
    patch: Patch | None = None
    error: str = ""


@dataclass(slots=True)
class Arming:
    """The sites of one image as they are planned together, so that no patch disturbs another.

    *room*: free address ranges that detours may be put in, or None if that doesn't matter. *exclude*: tactics that
    are not to be used. *reserved*: addresses that will be sites too; nothing may depend on the bytes there.
    *emulate_calls*: a moved call may push its return address by itself, which a hardware shadow stack would not follow.
    *plans*: the plans so far. *taken*: the patch that has to do with each byte.
    """

    image: Image
    room: tuple[range, ...] | None = None
    exclude: frozenset[str] = frozenset()
    reserved: frozenset[int] = frozenset()
    emulate_calls: bool = True
    plans: dict[int, SitePlan] = field(default_factory=dict)
    taken: dict[int, Patch] = field(default_factory=dict)

    def add(self, address: int) -> SitePlan:
        """Return the plan for one more site; those of others in the same patch are brought up to date in *plans*."""
        extent = self.image.extent(address)
        head = extent is not None and extent[0] == address
        site = behind_endbr(self.image, address)
        plan = self.plans.get(site)
        if plan is None:
            plan = self._at_head(site, extent[1]) if head and extent else None
            plan = plan or self._plan(site)
            self._enter(plan)
        return plan

    def _at_head(self, address: int, end: int) -> SitePlan | None:
        """Return a jump at a function's entry, without decoding the rest of the function."""
        if address in self.taken:
            return None
        found = tactics.head_jump(self, address, end)
        return self._accept(address, found) if isinstance(found, Patch) else None

    def _plan(self, address: int) -> SitePlan:
        refused = self._refusal(address)
        if refused:
            return refused
        owner = self.taken.get(address)
        if owner is not None:
            return self._share(owner, address)
        return self._in_body(address) or self._breakpoint(address)

    def _refusal(self, address: int) -> SitePlan | None:
        """Return the refusal of an address that can't be armed at all."""
        why, error = misplaced(self.image, address)
        if why:
            return SitePlan(address, Tactic.REFUSED, why, error=error)
        function = self.image.function(address)
        item = (
            function.instructions[function.index[address]] if function else tactics.instruction_at(self.image, address)
        )
        if item.refusal:
            return SitePlan(address, Tactic.REFUSED, item.refusal, error="EOPNOTSUPP")
        return None

    def _share(self, owner: Patch, address: int) -> SitePlan:
        """Return a plan by which the site joins *owner*, whose jump covers it."""
        moved = owner.victim if owner.victim and _moves(owner.victim, address) else owner
        if not _moves(moved, address):
            where = f"{owner.sites[0]:#x}" if owner.sites else f"{owner.start:#x}"
            reason = f"its bytes are part of the jump of the probe at {where}: arm both together"
            return SitePlan(address, Tactic.REFUSED, reason, error="EBUSY")
        joined = replace(moved, sites=tuple(sorted({*moved.sites, address})))
        if moved is not owner:
            joined = replace(owner, victim=joined)
        shared = "moved along with the probe at " + ", ".join(f"{site:#x}" for site in owner.sites if site != address)
        return SitePlan(address, owner.tactic, shared if owner.sites else "moved to make room", joined)

    def _in_body(self, address: int) -> SitePlan | None:
        function = self.image.function(address)
        if function is None:
            return None
        for tactic in tactics.ORDER:
            found = tactic(self, function, address)
            if isinstance(found, Patch) and found.tactic not in self.exclude:
                return self._accept(address, found)
        return None

    def _accept(self, address: int, patch: Patch) -> SitePlan:
        return SitePlan(address, patch.tactic, tactics.describe(patch, address), patch)

    def _breakpoint(self, address: int) -> SitePlan:
        item = tactics.instruction_at(self.image, address)
        function = self.image.function(address)
        why = tactics.why_no_jump(self, function, address) if function else "no symbol says where its function begins"
        reach = reach_of([item])
        if reach is None or Tactic.BREAKPOINT in self.exclude:
            return SitePlan(address, Tactic.REFUSED, why, error="EOPNOTSUPP")
        patch = Patch(Tactic.BREAKPOINT, (item,), (address,), reach, address, BREAKPOINT_BYTE, 0)
        return SitePlan(address, Tactic.BREAKPOINT, why, patch)

    def _enter(self, plan: SitePlan) -> None:
        self.plans[plan.address] = plan
        patch = plan.patch
        if patch is None:
            return
        for places in patch.touched():
            self.taken.update(dict.fromkeys(places, patch))
        for site in patch.sites + (patch.victim.sites if patch.victim else ()):
            if site != plan.address:
                self.plans[site] = replace(self.plans[site], patch=patch)


# From so many sites on, all branches of the object are found at once rather than those around each site.
_MANY = 256


def _moves(patch: Patch, address: int) -> bool:
    return any(item.address == address for item in patch.instructions)


def misplaced(image: Image, address: int) -> tuple[str, str]:
    """Return why no instruction that is run begins at *address*, and the kernel's name for that; empty if one does."""
    if not image.base <= address < image.end:
        return "not code", "EINVAL"
    function = image.function(address)
    if function and address not in function.index:
        return "not the start of an instruction", "EILSEQ"
    if function and any(start <= address < end for start, end in function.pads):
        return "padding, which nothing runs", "EINVAL"
    return "", ""


def behind_endbr(image: Image, address: int) -> int:
    """Return *address*, or what comes after the ENDBR64 there if a function begins with it."""
    extent = image.extent(address)
    head = extent is not None and extent[0] == address
    return skip_endbr(image.bytes_at(address, 4), address) if head else address


def plan_site(
    image: Image,
    address: int,
    *,
    room: tuple[range, ...] | None = None,
    exclude: frozenset[str] = frozenset(),
    emulate_calls: bool = True,
) -> SitePlan:
    """Return how the one instruction at *address* can be armed, best tactic first, or why it can't."""
    return Arming(image, room, exclude, emulate_calls=emulate_calls).add(address)


def plan_sites(
    image: Image,
    addresses: Iterable[int],
    *,
    room: tuple[range, ...] | None = None,
    exclude: frozenset[str] = frozenset(),
    emulate_calls: bool = True,
    stay: frozenset[int] = frozenset(),
) -> dict[int, SitePlan]:
    """Return how each of *addresses* can be armed, planned together; by the address that was asked for.

    *room*, *exclude*, *emulate_calls*: as in `Arming`. Those of *stay* get a breakpoint.

    Sites that are close to each other share one patch. When sites are added or taken away later, plan all sites of the
    functions concerned again.
    """
    wanted = sorted(set(addresses))
    if len(wanted) >= _MANY:
        image.known_targets()
    arming = Arming(image, room, exclude | frozenset(IN_PROCESS), frozenset(wanted), emulate_calls)
    effective = {address: arming.add(address).address for address in sorted(stay)}
    arming.exclude = exclude
    effective |= {address: arming.add(address).address for address in wanted if address not in stay}
    return {address: arming.plans[site] for address, site in effective.items()}
