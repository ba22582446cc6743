"""Which arguments are computed with.

Through fentry and fexit the verifier knows the arguments' types, and a pointer to a struct stays a pointer for it: it
may be read through, stored and handed on, but not shifted, masked, multiplied, or added to something unbounded. Where a
handler does more than that with an argument, the lowering makes a number of it first (three instructions).
"""

from __future__ import annotations

from kprobes.compiler.ir.nodes import (
    U64,
    Compare,
    Convert,
    Emit,
    Load,
    MapAdd,
    MapBump,
    MapDelete,
    MapFold,
    MapRead,
    MapSample,
    MapWrite,
    QueuePush,
    ReadBytes,
    ReadContext,
    ReadSlot,
    ReadText,
    SaveCall,
    Value,
    WriteSlot,
)
from kprobes.compiler.ir.operands import used

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.compiler.ir.nodes import Function, Node, Operand, Slot

_FREE = (Load, ReadText, ReadBytes, WriteSlot)
_MAPS = (MapAdd, MapSample, MapFold, MapRead, MapBump, MapDelete)


def used_as_numbers(
    function: Function, pointers: frozenset[int] | None, argument_count: int, arrays: frozenset[str] = frozenset()
) -> set[int]:
    """Return the numbers of the values from the context that are pointers and go into more than reads and stores.

    *pointers* are the indexes of the arguments that are pointers, *argument_count* that of the return value; None where
    that is not known: then every u64 may be one. *arrays* are the maps whose keys are indexes.
    """
    sources: dict[int, set[int]] = {}
    nodes = [node for block in function.blocks for node in block.nodes]
    for node in nodes:
        if isinstance(node, ReadContext) and _may_be_pointer(node, pointers, argument_count):
            sources[node.to.number] = {node.to.number}
    if not sources:
        return set()
    _spread(nodes, sources)
    computed = [value.number for node in nodes for value in _computed_with(node, arrays)]
    compared = [
        node for node in nodes if isinstance(node, Compare) and {node.left.number, node.right.number} & {*sources}
    ]
    # One comparison alone is left as it is. Of several, LLVM may make one on the values or-ed together.
    if len(compared) > 1:
        computed += [value.number for node in compared for value in (node.left, node.right)]
    return {source for number in computed for source in sources.get(number, ())}


def _may_be_pointer(node: ReadContext, pointers: frozenset[int] | None, argument_count: int) -> bool:
    if node.what not in ("argument", "return"):
        return False
    if pointers is None:
        return node.to.type == U64
    return (node.index if node.what == "argument" else argument_count) in pointers


def _spread(nodes: list[Node], sources: dict[int, set[int]]) -> None:
    """Add to *sources* the values that come from them through slots and changes of sign."""
    slots: dict[Slot, set[int]] = {}
    before = -1
    while before != (before := sum(map(len, sources.values())) + sum(map(len, slots.values()))):
        for node in nodes:
            if isinstance(node, WriteSlot) and node.source.number in sources:
                slots.setdefault(node.slot, set()).update(sources[node.source.number])
            elif isinstance(node, ReadSlot) and node.slot in slots:
                sources.setdefault(node.to.number, set()).update(slots[node.slot])
            elif isinstance(node, Convert) and _is_same_width(node) and node.source.number in sources:
                sources.setdefault(node.to.number, set()).update(sources[node.source.number])


def _is_same_width(node: Convert) -> bool:
    return node.to.type.bits == node.source.type.bits


def _computed_with(node: Node, arrays: frozenset[str]) -> Iterator[Value]:
    """Yield the values that *node* does more with than to read through them or to store all 64 bits of them."""
    stored: tuple[Operand, ...] = ()
    if isinstance(node, (*_FREE, Compare)):
        return
    if isinstance(node, (Emit, SaveCall)):
        stored = node.operands
    elif isinstance(node, QueuePush):
        stored = node.values
    elif isinstance(node, MapWrite):
        stored = node.values if node.map in arrays else (*node.key, *node.values)
    elif isinstance(node, _MAPS) and node.map not in arrays:
        stored = node.key
    elif isinstance(node, Convert) and _is_same_width(node):
        return
    for value in used(node):
        if value not in stored or value.type.bits < 64:
            yield value
