"""Control flow and slots of a function: what is live, what can go."""

from __future__ import annotations

from kprobes.compiler.ir.nodes import (
    Binary,
    Block,
    Branch,
    BuiltinText,
    Compare,
    CompareText,
    CompareTexts,
    Const,
    ConstText,
    Convert,
    CopyText,
    CutText,
    FindText,
    FormatText,
    Function,
    Jump,
    MapRead,
    MatchText,
    Node,
    ReadContext,
    ReadSlot,
    Return,
    Slot,
    Terminator,
    TextLength,
    Value,
    WriteSlot,
)
from kprobes.compiler.ir.operands import FILLS, slots_read, slots_written, successors, used

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Nodes without any effect but their result. `div` and `mod` are none: they can raise the fault flag.
_DROPPABLE = (
    Const, Convert, ReadSlot, ReadContext, Compare, CompareText, CompareTexts, FindText, MatchText, TextLength,
)  # fmt: skip
# Nodes that only fill a buffer, and can't fail.
_FILLING = (BuiltinText, ConstText, CopyText, CutText, FormatText)
# Nodes that don't touch the world outside the hit.
_INWARD = (*_DROPPABLE, *FILLS, WriteSlot, Binary, MapRead)


def live_at_start(function: Function) -> list[Slot]:
    """Return the slots that *function* may read before it writes them, in the order of their names."""
    reads: dict[str, set[Slot]] = {}
    writes: dict[str, set[Slot]] = {}
    for block in function.blocks:
        read, written = reads.setdefault(block.label, set()), writes.setdefault(block.label, set())
        for node in block.nodes:
            read.update(slot for slot in slots_read(node) if slot not in written)
            written.update(slots_written(node))
    live = {label: set(read) for label, read in reads.items()}
    moved = True
    while moved:
        moved = False
        for block in reversed(function.blocks):
            here = live[block.label]
            before = len(here)
            for label in successors(block):
                here |= live[label] - writes[block.label]
            moved |= len(here) != before
    return sorted(live[function.blocks[0].label], key=lambda slot: slot.name)


def acts(function: Function) -> bool:
    """Tell whether running *function* makes a difference outside the hit, or may end it early."""
    return len(function.blocks) > 1 or any(not isinstance(node, _INWARD) for node in function.blocks[0].nodes)


def tidy(function: Function, keep: frozenset[Slot] = frozenset()) -> Function:
    """Return *function* with straight blocks joined and without useless nodes; its slots are those still named."""
    blocks = _drop_useless(_join(_reachable(function.blocks)), keep)
    slots: dict[Slot, None] = {}
    for block in blocks:
        for node in block.nodes:
            slots.update(dict.fromkeys((*slots_read(node), *slots_written(node))))
    return Function(function.name, function.part, tuple(slots), tuple(blocks))


def _reachable(blocks: tuple[Block, ...]) -> list[Block]:
    by_label = {block.label: block for block in blocks}
    pending, seen = [blocks[0].label], {blocks[0].label}
    while pending:
        for label in successors(by_label[pending.pop()]):
            if label not in seen:
                seen.add(label)
                pending.append(label)
    return _without_idle_bounds([block for block in blocks if block.label in seen])


def _without_idle_bounds(blocks: list[Block]) -> list[Block]:
    """Take the bound from headers to which nothing comes back: their loop always breaks in its first turn."""
    position = {block.label: index for index, block in enumerate(blocks)}
    returned_to = {
        label for index, block in enumerate(blocks) for label in successors(block) if position[label] <= index
    }
    return [
        block if not block.bound or block.label in returned_to else Block(block.label, block.nodes, block.end)
        for block in blocks
    ]


def _join(blocks: list[Block]) -> list[Block]:
    """Append each block to the only one that jumps to it; send jumps past empty blocks on to where those go."""
    first = blocks[0].label
    onward = {
        block.label: block.end.target
        for block in blocks
        if not block.nodes and isinstance(block.end, Jump) and block.label != first and not block.bound
    }
    blocks = _reachable(tuple(Block(b.label, b.nodes, _redirect(b.end, onward), b.bound) for b in blocks))
    arrivals: dict[str, int] = {first: 1}
    for block in blocks:
        for label in successors(block):
            arrivals[label] = arrivals.get(label, 0) + 1
    by_label = {block.label: block for block in blocks}
    joined: list[Block] = []
    taken: set[str] = set()
    for block in blocks:
        if block.label in taken:
            continue
        nodes, end = list(block.nodes), block.end
        while isinstance(end, Jump) and arrivals[end.target] == 1 and not by_label[end.target].bound:
            follower = by_label[end.target]
            taken.add(follower.label)
            nodes += follower.nodes
            end = follower.end
        joined.append(Block(block.label, tuple(nodes), end, block.bound))
    return [block for block in joined if block.label not in taken]


def _redirect(end: Terminator, onward: Mapping[str, str]) -> Terminator:
    def final(label: str) -> str:
        seen = set()
        while label in onward and label not in seen:
            seen.add(label)
            label = onward[label]
        return label

    if isinstance(end, Jump):
        return Jump(end.place, final(end.target))
    if isinstance(end, Branch):
        yes, no = final(end.yes), final(end.no)
        return Jump(end.place, yes) if yes == no else Branch(end.place, end.condition, yes, no)
    return end


def _drop_useless(blocks: list[Block], keep: frozenset[Slot]) -> list[Block]:
    """Drop nodes whose result nobody uses, until none is left."""
    while True:
        read = {slot for block in blocks for node in block.nodes for slot in slots_read(node)} | keep
        kept = _drop_once(blocks, read)
        if sum(len(block.nodes) for block in kept) == sum(len(block.nodes) for block in blocks):
            return kept
        blocks = kept


def _drop_once(blocks: list[Block], read: set[Slot]) -> list[Block]:
    wanted: set[Value] = set()
    result = []
    for block in reversed(blocks):  # a value is made in an earlier block, or earlier in its block, than it is used
        wanted.update(used(block.end))
        nodes = []
        for node in reversed(block.nodes):
            if _is_useless(node, wanted, read):
                continue
            wanted.update(used(node))
            nodes.append(node)
        result.append(Block(block.label, tuple(reversed(nodes)), block.end, block.bound))
    return result[::-1]


def _is_useless(node: Node, wanted: set[Value], read: set[Slot]) -> bool:
    if isinstance(node, (WriteSlot, *_FILLING)):
        return node.slot not in read
    if isinstance(node, _DROPPABLE) or (isinstance(node, Binary) and node.op not in ("div", "mod")):
        return node.to not in wanted
    return False


def returns_early(function: Function) -> bool:
    """Tell whether more than one way leads out of *function*."""
    return sum(isinstance(block.end, Return) for block in function.blocks) > 1
