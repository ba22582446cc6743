"""Which values stay out of registers where the stack is too small for all that lives at a time.

Eleven registers and a stack of 512 bytes hold about sixty values. A part that keeps more is lowered again: its integer
variables and the values that are used far from where they are made then lie in working memory (see `scratch`), are
written there once and loaded for each use. Loops count in registers still, or no verifier would see them end.
"""

from __future__ import annotations

from kprobes.compiler.ir.nodes import Binary, Compare, Const, Convert, Fault, ReadSlot, WriteSlot
from kprobes.compiler.ir.operands import made, used

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.compiler.ir.nodes import Function, Slot, Value

# Nodes that call nothing, so that registers outlive them.
_QUIET = (Const, Binary, Compare, Convert, ReadSlot, WriteSlot, Fault)
_FAR = 16  # nodes
# LLVM itself gives up, and ends the process, on a stack of 64 KiB.
_CROWD = 1000


def distant_values(function: Function) -> frozenset[int]:
    """Return the numbers of the values that are used in another block, behind a call, or many nodes later.

    What a loop counts by is none of them, and constants are none.
    """
    found: set[int] = set()
    counters = loop_counters(function)
    near: set[int] = set()
    for block in function.blocks:
        calls = 0
        where: dict[int, tuple[int, int]] = {}
        for index, node in enumerate(block.nodes):
            found.update(_far_from(used(node), where, (calls, index)))
            calls += not isinstance(node, _QUIET)
            where.update((value.number, (calls, index)) for value in made(node))
            if isinstance(node, Const) or (isinstance(node, ReadSlot) and node.slot in counters):
                near.add(node.to.number)
        found.update(_far_from(used(block.end), where, (calls, len(block.nodes))))
    return frozenset(found - near)


def _far_from(values: list[Value], where: dict[int, tuple[int, int]], here: tuple[int, int]) -> Iterator[int]:
    """Yield those of *values* that were made far from *here*; places are calls and nodes since the block began."""
    for value in values:
        calls, index = where.get(value.number, (-1, 0))
        if calls != here[0] or here[1] - index > _FAR:
            yield value.number


def loop_counters(function: Function) -> frozenset[Slot]:
    """Return the slots that the headers of loops look at."""
    headers = [block for block in function.blocks if block.bound]
    return frozenset(node.slot for block in headers for node in block.nodes if isinstance(node, ReadSlot))


def is_crowded(function: Function) -> bool:
    """Tell whether so much lives in *function* that the stack is not worth trying."""
    return sum(slot.type is not None for slot in function.slots) + len(distant_values(function)) > _CROWD
