"""The ways to arm a site: each looks at one and returns a `Patch`, or a few words on why it won't do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from iced_x86 import InstructionInfoFactory, Register

from kprobes.arch.x86_64 import assemble
from kprobes.arch.x86_64.decode import CALLS, LONGEST, Flow, Instruction, decode, native
from kprobes.arch.x86_64.patch import CALL_OPCODE, JUMP_OPCODE, Patch, Range, Tactic, Write, reach_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kprobes.arch.x86_64.image import Function, Image
    from kprobes.arch.x86_64.sites import Arming

JUMP = assemble.JUMP_SIZE
SHORT = assemble.SHORT_JUMP_SIZE
# Instructions that may move along with a site that lies behind them.
_BLOCK_REACH = 48
# A prefix that does nothing to a near jump or call, and on which processors agree (66 and 67 are none of these).
_PREFIX = b"\x2e"
# Fewer free offset bytes than these, and the window is a matter of luck: other tactics come first.
_WIDE_PUN = 3


def instruction_at(image: Image, address: int) -> Instruction:
    """Return the instruction that begins at *address*."""
    return decode(image.bytes_at(address, LONGEST), address, cover=1)[0]


def describe(patch: Patch, site: int) -> str:
    """Return in words what *patch* does for *site*."""
    moved = len(patch.instructions)
    plural = "instruction moves" if moved == 1 else "instructions move"
    if patch.tactic == Tactic.JUMP:
        return f"5-byte jump; {moved} {plural}"
    if patch.tactic == Tactic.CALL:
        return f"call in place of a call; {moved} {plural}"
    if patch.tactic == Tactic.BLOCK:
        return f"jump {site - patch.start} bytes before it; {moved} {plural}"
    if patch.tactic == Tactic.PUN:
        return f"jump that ends in the bytes of the next instruction ({patch.free} of 4 offset bytes free)"
    where = f"{patch.at - site:+#x}"
    if patch.tactic == Tactic.ISLAND:
        return f"2-byte jump to padding at {where}"
    return (
        f"2-byte jump to {where}, where {len(patch.victim.instructions) if patch.victim else 0} instructions moved away"
    )


def head_jump(arming: Arming, address: int, end: int) -> Patch | str:
    """Return a jump at *address*, the first instruction of a function that ends at *end*."""
    region = _head_region(arming, address, end)
    if isinstance(region, str):
        return region
    if region[-1].flow in CALLS and arming.image.function(address):
        return "a call: decided with the whole function in view"
    if Tactic.JUMP in arming.exclude or arming.image.enters_head(address, address + JUMP):
        return "something jumps into its first bytes"
    return _jump_patch(arming, Tactic.JUMP, region, address)


def _head_region(arming: Arming, address: int, end: int) -> tuple[Instruction, ...] | str:
    items = decode(arming.image.bytes_at(address, JUMP - 1 + LONGEST), address, cover=JUMP)
    return _cut(arming, items, range(address, address + JUMP), end)


def _cut(
    arming: Arming, items: Sequence[Instruction], room: range, end: int, joining: Patch | None = None
) -> tuple[Instruction, ...] | str:
    """Return the first of *items*, so many that they cover *room* and may move together, or why they may not.

    *end*: the end of the function, behind which only padding may be overwritten. *joining*: a patch that the new one
    will replace, so that its bytes are free.
    """
    region: list[Instruction] = []
    for item in items:
        if item.refusal:
            return f"{item.text}: {item.refusal}"
        region.append(item)
        item_end = item.end
        if item_end >= room.stop:
            break
        if item.flow in CALLS:
            return "a call returns into the bytes that the jump takes"
        if not item.falls_through or item_end >= end:
            if arming.image.padding_end(item_end) < room.stop:
                return (
                    "another block begins in the bytes of the jump" if item_end < end else "too short, without padding"
                )
            if not item.falls_through:
                break
    for place in arming.taken.keys() & range(room.start, max(room.stop, region[-1].end)):
        if arming.taken[place] is not joining:
            return f"the jump would overlap that of the probe at {_owner(arming, place):#x}"
    return tuple(region)


def _owner(arming: Arming, place: int) -> int:
    patch = arming.taken[place]
    return patch.sites[0] if patch.sites else patch.start


def _region(
    arming: Arming, function: Function, start: int, size: int, joining: Patch | None = None
) -> tuple[Instruction, ...] | str:
    """Return the instructions from *start* that may move to make *size* bytes free, or why there are none.

    Nothing but the first may be entered, as far as bytes are overwritten.
    """
    first = function.index[start]
    items: Sequence[Instruction] = function.instructions[first : first + size]
    if start + size > function.end:
        # A function that runs on into the next one: its last instructions may be nops behind its end.
        items = decode(arming.image.bytes_at(start, size + LONGEST), start, cover=size)
    region = _cut(arming, items, range(start, start + size), function.end, joining)
    if isinstance(region, str):
        return region
    if function.opaque and len(region[0].code) < size:
        return "its function jumps by a table that can't be found, perhaps into these bytes"
    for place in range(start + 1, start + size):
        if place in function.entered:
            return f"something jumps to {place:#x}, into the bytes of the jump"
    return region


def _jump_patch(arming: Arming, tactic: str, region: tuple[Instruction, ...], site: int) -> Patch | str:
    start = region[0].address
    reach = _in_room(arming, reach_of(region, start + JUMP, region[-1].end))
    return Patch(tactic, region, (site,), reach, start) if reach else "no free memory within 2 GiB"


def _in_room(arming: Arming, reach: Range | None) -> Range | None:
    """Return the part of *reach* that has free memory: as it is, where the free memory isn't known."""
    if reach is None or arming.room is None:
        return reach
    for free in arming.room:
        if free.start <= reach.high and reach.low < free.stop:
            return reach
    return None


def jump(arming: Arming, function: Function, site: int) -> Patch | str:
    """Return a 5-byte jump at *site*."""
    region = _region(arming, function, site, JUMP)
    if isinstance(region, str):
        return region
    return _jump_or_call(arming, function, Tactic.JUMP, region, site)


def _jump_or_call(
    arming: Arming, function: Function, tactic: str, region: tuple[Instruction, ...], site: int
) -> Patch | str:
    if region[-1].flow in CALLS:
        as_call = _call_patch(arming, function, region, site)
        if isinstance(as_call, Patch):
            return as_call
        if not arming.emulate_calls:
            return "a shadow stack is on, and the call can't stay one"
    if tactic in arming.exclude:
        return "excluded"
    return _jump_patch(arming, tactic, region, site)


def _call_patch(arming: Arming, function: Function, region: tuple[Instruction, ...], site: int) -> Patch | str:
    """Return a call to the detour that ends where the moved call ended, and so pushes the same return address.

    What moves with the call runs when the return address is on the stack already, so it must leave the stack alone
    and not branch away.
    """
    start, end = region[0].address, region[-1].end
    size = end - start
    if Tactic.CALL in arming.exclude or size > 2 * JUMP:
        return "excluded, or too long"
    if any(item.flow != Flow.NEXT or touches_stack(item) for item in region[:-1]):
        return "what stands before the call branches, or uses the stack"
    if any(place in function.entered for place in range(start + 1, end)):
        return "something jumps between"
    reach = _in_room(arming, reach_of(region, end))
    if reach is None:
        return "no free memory within 2 GiB"
    lead = _PREFIX * (size - JUMP) + CALL_OPCODE
    return Patch(Tactic.CALL, region, (site,), reach, start, lead, pushed=True)


_STACK_REGISTERS = frozenset({Register.RSP, Register.ESP, Register.SP, Register.SPL})


def touches_stack(item: Instruction) -> bool:
    """Tell whether *item* reads, writes or moves the stack pointer, or may be a system call that does."""
    used = InstructionInfoFactory().info(native(item))
    if item.code[:2] in (b"\x0f\x05", b"\x0f\x34"):
        return True
    return any(one.register in _STACK_REGISTERS for one in used.used_registers())


def block(arming: Arming, function: Function, site: int) -> Patch | str:
    """Return a jump before *site*, from where everything up to it moves along."""
    if site in function.entered:
        return "something jumps right to it"
    position = function.index[site]
    stop = function.instructions[position].end
    why = "nothing before it can move along"
    for number in range(position - 1, -1, -1):
        item = function.instructions[number]
        if stop - item.address > _BLOCK_REACH or not item.falls_through or item.flow in CALLS or item.refusal:
            break
        joining = arming.taken.get(item.address)
        if joining and not _can_grow(joining, item.address):
            continue
        region = _region(arming, function, item.address, max(JUMP, stop - item.address), joining)
        if not isinstance(region, str):
            return _grow(arming, function, joining, region, site)
        why = region
        if item.address in function.entered:
            break
    return why


def _can_grow(patch: Patch, start: int) -> bool:
    return patch.at == patch.start == start and patch.tactic in (Tactic.JUMP, Tactic.BLOCK) and not patch.pushed


def _grow(
    arming: Arming, function: Function, joining: Patch | None, region: tuple[Instruction, ...], site: int
) -> Patch | str:
    """Return a block for *site*, which takes the place of the patch *joining* and serves its sites too."""
    if joining is None:
        return _jump_or_call(arming, function, Tactic.BLOCK, region, site)
    if region[-1].flow in CALLS and not arming.emulate_calls:
        return "a shadow stack is on, and the call can't stay one"
    grown = _jump_patch(arming, Tactic.BLOCK, region, site)
    if isinstance(grown, str):
        return grown
    return replace(grown, sites=tuple(sorted({*joining.sites, site})))


def puns(arming: Arming, site: int) -> Iterator[Patch]:
    """Yield the punned jumps that fit *site*, the widest window first."""
    item = instruction_at(arming.image, site)
    size = len(item.code)
    for prefixes in range(size):
        free = size - prefixes - 1
        at_offset = site + prefixes + 1
        fixed = arming.image.bytes_at(site + size, 4 - free)
        relied = range(site + size, at_offset + 4)
        if free > 3 or len(fixed) < 4 - free:
            continue
        if any(place in arming.taken or place in arming.reserved for place in relied):
            continue
        base = at_offset + 4 + int.from_bytes(bytes(free) + fixed, "little", signed=True)
        window = Range(base, base + 256**free - 1)
        reach = reach_of((item,), at_offset + 4, item.end)
        meet = _in_room_window(arming, reach.meet(window) if reach else None)
        if meet:
            yield Patch(Tactic.PUN, (item,), (site,), meet, site, _PREFIX * prefixes + JUMP_OPCODE, free)


def _in_room_window(arming: Arming, window: Range | None) -> Range | None:
    """Return the part of a punned jump's *window* that lies in one free range; never inside the image itself."""
    if window is None:
        return None
    if arming.room is None:
        image = Range(arming.image.base - 2**24, arming.image.end + 2**24)
        return None if window.meet(image) else window
    for free in arming.room:
        part = window.meet(Range(free.start, free.stop - 1)) if len(free) else None
        if part:
            return part
    return None


def wide_pun(arming: Arming, function: Function, site: int) -> Patch | str:
    """Return a punned jump with a window of 16 MiB: one for an instruction of 4 bytes."""
    return _pun(arming, function, site, _WIDE_PUN)


def narrow_pun(arming: Arming, function: Function, site: int) -> Patch | str:
    """Return a punned jump with a window of 64 KiB, 256 bytes, or a single address."""
    return _pun(arming, function, site, 0)


def _pun(arming: Arming, function: Function, site: int, least_free: int) -> Patch | str:
    if Tactic.PUN in arming.exclude:
        return "excluded"
    item = function.instructions[function.index[site]]
    for place in range(site, item.end):
        if place in arming.taken:
            return f"the jump would overlap that of the probe at {_owner(arming, place):#x}"
        if place in function.entered and place != site:
            return f"something jumps to {place:#x}, into the bytes of the jump"
    for patch in puns(arming, site):
        if patch.free >= least_free:
            return patch
    return "the bytes behind it lead a punned jump to where no memory is free"


def island(arming: Arming, function: Function, site: int) -> Patch | str:
    """Return a short jump to a 5-byte jump in padding nearby."""
    region = _region(arming, function, site, SHORT)
    if isinstance(region, str):
        return region
    for start, end in _pads(arming, function, site):
        at = _nearest(start, end - JUMP, site)
        if at is not None and not any(place in arming.taken for place in range(at, at + JUMP)):
            return _by_island(arming, Tactic.ISLAND, region, at, None)
    return "no padding within 127 bytes"


def _pads(arming: Arming, function: Function, site: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of padding of at least 5 bytes that a short jump at *site* may reach."""
    image = arming.image
    low, high = site + SHORT - 128, site + SHORT + 127 + JUMP
    for start, end in function.pads:
        if end - start >= JUMP and start < high and end > low:
            yield start, end
    yield from (gap for gap in image.gaps_between(low - LONGEST, high) if gap[1] - gap[0] >= JUMP)


def _nearest(low: int, high: int, site: int) -> int | None:
    """Return the address in [low, high] that is nearest to *site* and in reach of a short jump there."""
    origin = site + SHORT
    low, high = max(low, origin - 128), min(high, origin + 127)
    if low > high:
        return None
    return min(max(low, origin), high)


def _by_island(
    arming: Arming, tactic: str, region: tuple[Instruction, ...], at: int, victim: Patch | None
) -> Patch | str:
    site = region[0].address
    reach = _in_room(arming, reach_of(region, at + JUMP, region[-1].end))
    if reach is None:
        return "no free memory within 2 GiB"
    hop = Write(site, assemble.short_jump(site, at))
    return Patch(tactic, region, (site,), reach, at, extra=(hop,), victim=victim)


def eviction(arming: Arming, function: Function, site: int) -> Patch | str:
    """Return a short jump to room that instructions nearby have made by moving away: 5 bytes for them, 5 for us."""
    if function.opaque:
        return "its function jumps by a table that can't be found"
    region = _region(arming, function, site, SHORT)
    if isinstance(region, str):
        return region
    protected = range(region[0].address, max(region[-1].end, site + SHORT))
    for item in sorted(_in_short_reach(function, site), key=lambda one: abs(one.address - site)):
        moved = _region(arming, function, item.address, 2 * JUMP)
        if isinstance(moved, str) or moved[-1].flow in CALLS or _sites_among(arming, moved):
            continue
        if item.address < protected.stop and protected.start < max(moved[-1].end, item.address + 2 * JUMP):
            continue
        victim = _jump_patch(arming, Tactic.EVICTION, moved, item.address)
        if isinstance(victim, Patch):
            without_site = Patch(victim.tactic, moved, (), victim.reach, victim.at)
            return _by_island(arming, Tactic.EVICTION, region, item.address + JUMP, without_site)
    return "no instructions within 127 bytes can make room"


def _in_short_reach(function: Function, site: int) -> list[Instruction]:
    origin = site + SHORT
    return [item for item in function.instructions if -128 <= item.address + JUMP - origin <= 127]


def _sites_among(arming: Arming, region: tuple[Instruction, ...]) -> bool:
    return any(item.address in arming.reserved for item in region)


def why_no_jump(arming: Arming, function: Function, site: int) -> str:
    """Return why nothing better than a breakpoint will do: what stood in the way of the plain jump."""
    region = _region(arming, function, site, JUMP)
    if isinstance(region, str):
        return region
    patch = _jump_patch(arming, Tactic.JUMP, region, site)
    return patch if isinstance(patch, str) else "the better tactics were excluded"


ORDER: tuple[Callable[[Arming, Function, int], Patch | str], ...] = (
    jump,
    block,
    wide_pun,
    island,
    eviction,
    narrow_pun,
)
