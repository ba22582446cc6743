"""Where control leaves a function for good: the exits at which the second half of a return probe stands.

Returns, and tail jumps: direct ones that go to another function, and indirect ones that aren't a switch. A part of the
function that the compiler has put elsewhere (its cold part) is followed: it is known by a jump back into the middle of
the function. An exit that isn't found costs no harm: the call that takes it is a missed one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.arch.x86_64.decode import Flow, Instruction, exits

if TYPE_CHECKING:
    from kprobes.arch.x86_64.image import Function, Image

_FARTHEST = 8  # parts of one function


def exits_of(image: Image, address: int) -> tuple[Instruction, ...]:
    """Return the exits of the function that covers *address*, in the order of their addresses."""
    function = image.function(address)
    if function is None:
        return ()
    known = image.exits.get(function.start)
    if known is None:
        known = image.exits[function.start] = _find_exits(image, function)
    return known


def _find_exits(image: Image, function: Function) -> tuple[Instruction, ...]:
    parts = {function.start: function}
    pending = [function]
    found: list[Instruction] = []
    while pending:
        part = pending.pop()
        for item in exits(part.leaps, part.start, part.end):
            if item.flow == Flow.JUMP_INDIRECT:
                found += [] if part.has_tables else [item]
                continue
            if item.target is None:
                found.append(item)
                continue
            if any(one.start <= item.target < one.end for one in parts.values()):
                continue
            elsewhere = image.function(item.target)
            if elsewhere is not None and len(parts) < _FARTHEST and _goes_back(image, elsewhere, function, item.target):
                parts[elsewhere.start] = elsewhere
                pending.append(elsewhere)
            else:
                found.append(item)
    return tuple(sorted(found))


def _goes_back(image: Image, part: Function, to: Function, entered: int) -> bool:
    """Tell whether *part*, entered at an address, is a piece of *to*: it jumps into the middle of it, or is entered in
    its own middle."""
    return entered != part.start or image.jumps_into(part, to.start + 1, to.end)
