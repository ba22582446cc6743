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
    Load,
    MapDelete,
    MapRead,
    Node,
    QueuePop,
    ReadBytes,
    ReadSlot,
    ReadText,
    RecordText,
    RestoreCall,
    Return,
    Slot,
    Terminator,
    Value,
    WriteSlot,
)

FILLS = (ReadText, ReadBytes, RecordText, ConstText, CopyText, BuiltinText, CutText, FormatText)
# These questions are asked of every node a dozen times: a look at the class alone answers most of them.
_SETS_SLOT = frozenset({*FILLS, WriteSlot})
_TAKES_OUT = frozenset({MapRead, QueuePop})
_MAY_TELL = frozenset({Load, ReadText})
_COPIES = frozenset({CopyText, CutText})
_WITH_TEXTS = (MapRead, FormatText)
_ENDS = frozenset({Jump, Branch, Return})


def made(node: Node) -> tuple[Value, ...]:
    """Return the values that *node* defines."""
    kind = type(node)
    if kind in _TAKES_OUT:
        assert isinstance(node, MapRead | QueuePop)
        return (node.found, *(value for value in node.to if value is not None))
    if kind is MapDelete:
        assert isinstance(node, MapDelete)
        return (node.found,)
    if kind in _MAY_TELL:
        assert isinstance(node, Load | ReadText)
        told = () if node.failed is None else (node.failed,)
        return (node.to, *told) if isinstance(node, Load) else told
    to = getattr(node, "to", None)
    return (to,) if type(to) is Value else ()


def used(node: Node | Terminator) -> list[Value]:
    """Return the values that *node* uses, in order."""
    operands = [operand for operand in _operands(node) if type(operand) is Value]
    if not operands or type(node) in _ENDS:
        return operands
    own = made(node)  # type: ignore[arg-type]  # no terminator
    return [operand for operand in operands if operand not in own] if own else operands


def slots_written(node: Node) -> tuple[Slot, ...]:
    """Return the slots that *node* sets."""
    kind = type(node)
    if kind in _SETS_SLOT:
        return (node.slot,)  # type: ignore[union-attr]  # all of these have one
    if kind in _TAKES_OUT:
        return tuple(slot for slot in node.texts if slot is not None)  # type: ignore[union-attr]
    return node.slots if isinstance(node, RestoreCall) else ()


def slots_read(node: Node) -> list[Slot]:
    """Return the slots whose content *node* uses, as often as it does."""
    kind = type(node)
    if kind is ReadSlot:
        return [node.slot]  # type: ignore[union-attr]
    if kind in _COPIES:
        return [node.source]  # type: ignore[union-attr,list-item]
    if isinstance(node, _WITH_TEXTS):
        operands = node.key if isinstance(node, MapRead) else node.operands
        return [operand for operand in operands if type(operand) is Slot]
    if slots_written(node):
        return []
    return [operand for operand in _operands(node) if type(operand) is Slot]


_NAMES: dict[type, tuple[str, ...]] = {}


def _operands(node: Node | Terminator) -> list[object]:
    kind = type(node)
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = tuple(name for name in kind.__match_args__ if name != "place")
    found: list[object] = []
    for name in names:
        part = getattr(node, name)
        if type(part) is tuple:
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
