"""Step by step, how a probe gets into a process, on the process's own bytes; it is looked at, not changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.arch.x86_64 import tactics
from kprobes.arch.x86_64.decode import decode
from kprobes.arch.x86_64.detour import build
from kprobes.arch.x86_64.patch import Patch, Tactic
from kprobes.arch.x86_64.sites import Arming, behind_endbr, misplaced
from kprobes.engines.process import procfs
from kprobes.engines.process.arming import Objects
from kprobes.engines.process.memory import ProcessMemory, free_rooms
from kprobes.engines.process.siting import Siting
from kprobes.model.explained import WIDE, Explained, Outcome, Step, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.arch.x86_64.image import Image
    from kprobes.engines.process.arming import Armed, Arrangement
    from kprobes.engines.process.siting import Settled
    from kprobes.model.plan import Plan

_NAMES = {
    "jump": "a 5-byte jump",
    "block": "a jump a little before",
    "wide_pun": "a jump punned with the bytes behind, 16 MiB of choice",
    "island": "a 2-byte jump to padding nearby",
    "eviction": "a 2-byte jump to room that others make",
    "narrow_pun": "a jump punned with the bytes behind, little choice",
}


def explain_process(pid: int, plan: Plan) -> Explained:
    """Return the steps of arming the one site of *plan* in the process *pid*.

    Raises:
        UnprobeableError: the site can't be armed; TargetError, PrivilegeError, UnsupportedError: the process can't be.
    """
    lead = procfs.live_thread(pid)
    mappings = procfs.read_maps(lead)
    with ProcessMemory(lead) as memory:
        siting = Siting(pid, plan, memory, exact=False)
        objects = siting.objects(mappings)
        (located, *_) = objects.locate(0, plan.sites[0])
        image = _image(plan, objects, located.mapping.start, memory)
        address = behind_endbr(image, located.address)
        steps = [_where(plan, image, located.address, address), *_looked_at(image, address)]
        if steps[-1].outcome == Outcome.REFUSED:
            return Explained(plan.sites[0].name, address, "", steps[-1].error, tuple(steps))
        rooms = free_rooms(mappings)
        ranges = tuple(range(room.start, room.end) for room in rooms)
        steps += _tried(Arming(image, ranges, reserved=frozenset({address})), address)
        found, settled = siting.settle((0,), mappings, rooms, 0)
        armed: Armed = found.armed[0]
        steps += _written(found, settled, image)
    return Explained(plan.sites[0].name, address, armed.way, "", tuple(steps))


def _image(plan: Plan, objects: Objects, start: int, memory: ProcessMemory) -> Image:
    from kprobes.engines.process.arming import image_of

    known = {code.path: code for code in plan.objects}
    located = next(one for one in objects.locate(0, plan.sites[0]) if one.mapping.start == start)
    return image_of(plan, [located], memory, known.get(plan.sites[0].path))


def _where(plan: Plan, image: Image, asked: int, address: int) -> Step:
    site = plan.sites[0]
    function = image.function(address)
    lines = []
    if address != asked:
        lines.append(
            f"{image.bytes_at(asked, 4).hex(' '):<{WIDE}}endbr64: a probe on it means the instruction behind it"
        )
    extent = (
        f"{function.end - function.start} bytes from {function.start:#x}" if function else "no symbol tells its extent"
    )
    return Step("function", Outcome.TOLD, f"{site.name} of {site.path or 'no file'}: {extent}", tuple(lines))


def _looked_at(image: Image, address: int) -> Iterator[Step]:
    why, error = misplaced(image, address)
    if why:
        yield Step("boundary", Outcome.REFUSED, why, error=error)
        return
    item = tactics.instruction_at(image, address)
    function = image.function(address)
    if function is not None:
        place = f"instruction {function.index[address] + 1} of {len(function.instructions)} in its function"
        yield Step("boundary", Outcome.PASSED, place, (shown(item.code, item.text, address),))
    if item.refusal:
        yield Step("instruction", Outcome.REFUSED, f"`{item.text}`: {item.refusal}", error="EOPNOTSUPP")
        return
    told = "copied as it is"
    if item.data is not None:
        told = f"copied with its rip-relative operand aimed at {item.data:#x} anew"
    elif item.target is not None:
        told = f"re-encoded: its copy goes to {item.target:#x} by a 32-bit offset"
    yield Step("instruction", Outcome.PASSED, f"`{item.text}` may run elsewhere, {told}")


def _tried(arming: Arming, address: int) -> Iterator[Step]:
    """Yield a step for each tactic up to the one that does."""
    function = arming.image.function(address)
    if function is None:
        return
    for tactic in tactics.ORDER:
        found = tactic(arming, function, address)
        name = _NAMES[tactic.__name__]
        if isinstance(found, Patch):
            yield Step(found.tactic, Outcome.PASSED, tactics.describe(found, address))
            return
        yield Step(tactic.__name__.rpartition("_")[2], Outcome.OTHER_WAY, f"{name}: {found}")
    yield Step(Tactic.BREAKPOINT, Outcome.PASSED, "int3, served by the controller through ptrace: always works, slow")


def _written(found: Arrangement, settled: Settled, image: Image) -> Iterator[Step]:
    """Yield what is written, and what stands in the detour."""
    place: dict[int, int] = {}
    for area, jumps in settled:
        at = area.start
        for jump in jumps:
            place[id(jump)] = at
            at += 4096 // 16
    for _, jumps in settled:
        for jump in jumps:
            if not jump.sites:
                continue
            writes = jump.writes(place[id(jump)], place.get(id(jump.victim), 0))
            lines = []
            for write in writes:
                before = image.bytes_at(write.address, len(write.code))
                lines.append(f"{write.address:#x}  {before.hex(' ')}  ->  {write.code.hex(' ')}")
            yield Step(
                "patch", Outcome.TOLD, "all threads stand still meanwhile; detach puts the bytes back", tuple(lines)
            )
            yield Step("detour", Outcome.TOLD, _detour_text(jump), tuple(_detour(jump, place[id(jump)], found)))


def _detour_text(jump: Patch) -> str:
    moved = len(jump.instructions)
    return (
        f"about here; {moved} instruction{'s' if moved > 1 else ''} moved, the handler's call before that of the site"
    )


def _detour(jump: Patch, at: int, found: Arrangement) -> Iterator[str]:
    made = build(jump, at, {})
    starts: dict[int, int] = {offset: address for address, offset in made.entries.items()}
    for item in decode(made.code, at):
        original = starts.get(item.address - at)
        if original in found.sites:
            yield f"{'':<{WIDE}}(saves what it must, calls the handler, puts it back)"
        yield shown(item.code, item.text, item.address)
