"""What each node uses and makes: the one place that knows, for the verifier and the backs."""

from __future__ import annotations

from kprobes.compiler.ir.nodes import (
    Block,
    Branch,
    BuiltinText,
    ConstText,
    CopyText,
    CutText,
    FormatText,
    Function,
    Jump,
    MapDelete,
    MapRead,
    Node,
    QueuePop,
    ReadBytes,
    ReadSlot,
    ReadText,
    RecordText,
    RestoreCall,
    Slot,
    Terminator,
    Value,
    WriteSlot,
)

FILLS = (ReadText, ReadBytes, RecordText, ConstText, CopyText, BuiltinText, CutText, FormatText)


def made(node: Node) -> tuple[Value, ...]:
    """Return the values that *node* defines."""
    if isinstance(node, MapRead | QueuePop):
        return (node.found, *(value for value in node.to if value is not None))
    if isinstance(node, MapDelete):
        return (node.found,)
    to = getattr(node, "to", None)
    return (to,) if isinstance(to, Value) else ()


def used(node: Node | Terminator) -> list[Value]:
    """Return the values that *node* uses, in order."""
    own = () if isinstance(node, Terminator) else made(node)
    return [operand for operand in _operands(node) if isinstance(operand, Value) and operand not in own]


def slots_written(node: Node) -> tuple[Slot, ...]:
    """Return the slots that *node* sets."""
    if isinstance(node, (*FILLS, WriteSlot)):
        return (node.slot,)
    if isinstance(node, MapRead | QueuePop):
        return tuple(slot for slot in node.texts if slot is not None)
    return node.slots if isinstance(node, RestoreCall) else ()


def slots_read(node: Node) -> list[Slot]:
    """Return the slots whose content *node* uses, as often as it does."""
    if isinstance(node, CopyText | CutText):
        return [node.source]
    if isinstance(node, MapRead | FormatText):
        operands = node.key if isinstance(node, MapRead) else node.operands
        return [operand for operand in operands if isinstance(operand, Slot)]
    if isinstance(node, ReadSlot):
        return [node.slot]
    if slots_written(node):
        return []
    return [operand for operand in _operands(node) if isinstance(operand, Slot)]


_NAMES: dict[type, tuple[str, ...]] = {}


def _operands(node: Node | Terminator) -> list[object]:
    kind = type(node)
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = tuple(name for name in kind.__match_args__ if name != "place")
    found: list[object] = []
    for name in names:
        part = getattr(node, name)
        if isinstance(part, tuple):
            found += part
        else:
            found.append(part)
    return found


def successors(block: Block) -> tuple[str, ...]:
    """Return the labels of the blocks that may come after *block*."""
    end = block.end
    if isinstance(end, Jump):
        return (end.target,)
    return (end.yes, end.no) if isinstance(end, Branch) else ()


def read_before_written(function: Function) -> set[Slot]:
    """Return the slots that may be read before anything was written to them."""
    written: dict[str, frozenset[Slot]] = {function.blocks[0].label: frozenset()}  # on every path, at the beginning
    blocks = {block.label: block for block in function.blocks}
    pending = [function.blocks[0].label]
    early: set[Slot] = set()
    while pending:
        block = blocks[pending.pop()]
        known = set(written[block.label])
        for node in block.nodes:
            early.update(slot for slot in slots_read(node) if slot not in known)
            known.update(slots_written(node))
        for label in successors(block):
            before = written.get(label)
            after = frozenset(known) if before is None else before & known
            if after != before:
                written[label] = after
                pending.append(label)
    return early
