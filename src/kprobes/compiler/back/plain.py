"""Nodes that every machine lowers alike: arithmetic, variables, control flow."""

from __future__ import annotations

from kprobes.compiler.back.arithmetic import binary, compare, convert, divide, opaque, unknown
from kprobes.compiler.ir import nodes as ir
from kprobes.compiler.ir.operands import successors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kprobes.compiler.back.part import Part

Lowerings = dict[type, "Callable[..., None]"]


def lower_blocks(part: Part, lowerings: Mapping[type, Callable[..., None]], end: Callable[[ir.Block], None]) -> None:
    """Lower the blocks of *part*, a node by its row in *lowerings* or PLAIN; *end* writes what a Return becomes."""
    text = part.text
    if part.is_verified:
        part.counts = _counts(part.function)
    for block in part.function.blocks:
        text.start(f"b.{block.label}")
        for node in block.nodes:
            text.at(node.place)
            (lowerings.get(type(node)) or PLAIN[type(node)])(part, node)
        text.at(block.end.place)
        if isinstance(block.end, ir.Jump):
            text.jump(f"b.{block.end.target}")
        elif isinstance(block.end, ir.Branch):
            text.branch(part.value(block.end.condition), f"b.{block.end.yes}", f"b.{block.end.no}")
        else:
            end(block)


def _counts(function: ir.Function) -> frozenset[ir.Value]:
    """Return the truth values that say whether a loop has turns left, of loops that may also end otherwise.

    Where LLVM knows such a count, it takes the bound for granted, or lets the loop run until a number that the verifier
    doesn't know is *equal* to the count, which to it may never be.
    """
    position = {block.label: index for index, block in enumerate(function.blocks)}
    last: dict[str, int] = {}
    for index, block in enumerate(function.blocks):
        for label in successors(block):
            if position[label] <= index:
                last[label] = index
    found = set()
    for index, block in enumerate(function.blocks):
        if block.bound and isinstance(block.end, ir.Branch):
            body = function.blocks[index + 1 : last[block.label] + 1]
            ends = (position[label] for one in body for label in successors(one))
            if any(not index <= end <= last[block.label] for end in ends):
                found.add(block.end.condition)
    return frozenset(found)


def is_unsaved_entry(part: Part, block: ir.Block) -> bool:
    """Tell whether the entry part of a pair ends with *block* and keeps nothing for the return: the call is done."""
    is_pair = part.handler.entry is not None and part.handler.exit is not None
    is_saved = any(isinstance(node, ir.SaveCall) for node in block.nodes)
    return part.function.part == "entry" and is_pair and not is_saved


def _const(part: Part, node: ir.Const) -> None:
    part.bind_constant(node.to, node.value)


def _binary(part: Part, node: ir.Binary) -> None:
    kind, left, right = node.to.type, part.value(node.left), part.value(node.right)
    if node.op in ("div", "mod"):
        part.bind(node.to, _divide(part, node, left, right))
    else:
        part.bind(node.to, binary(part.text, node.op, kind, left, right))


def _divide(part: Part, node: ir.Binary, left: str, right: str) -> str:
    text, kind = part.text, node.to.type
    if _may_be_product(part, node.left):
        left = opaque(text, left, f"i{kind.bits}")
    if not right.startswith("%"):
        if right == "0":
            part.fault("-1")
            return "0"
        return _hidden(part, divide(text, node.op, kind, left, right), kind)
    zero_label, fine, end = text.label("zero"), text.label("divide"), text.label("divided")
    text.unlikely(text.let(f"icmp eq i{kind.bits} {right}, 0"), zero_label, fine)
    text.start(zero_label)
    part.fault("-1")
    text.jump(end)
    text.start(fine)
    result = _hidden(part, divide(text, node.op, kind, left, right), kind)
    block = text.block
    text.start(end)
    return text.phi(f"i{kind.bits}", [("0", zero_label), (result, block)])


def _hidden(part: Part, result: str, kind: ir.IntType) -> str:
    """Keep the range of a quotient or remainder from LLVM, which would drop checks that the machine's verifier needs:
    to that a division may give anything."""
    return unknown(part.text, result, f"i{kind.bits}") if part.is_verified and kind.bits == 64 else result


def _may_be_product(part: Part, value: ir.Value) -> bool:
    """Tell whether *value* may come from a multiplication.

    LLVM knows `a * b // b == a` as a test for overflow, and makes it a product of 128 bits, which BPF has not.
    """
    maker = part.maker(value)
    return isinstance(maker, ir.ReadSlot) or (isinstance(maker, ir.Binary) and maker.op in ("mul", "shl"))


def _compare(part: Part, node: ir.Compare) -> None:
    left, right = part.value(node.left), part.value(node.right)
    if node.to in part.counts:
        left = unknown(part.text, left)
    part.bind(node.to, compare(part.text, node.op, node.left.type, left, right))


def _convert(part: Part, node: ir.Convert) -> None:
    part.bind(node.to, convert(part.text, node.source.type, node.to.type, part.value(node.source)))


def _read_slot(part: Part, node: ir.ReadSlot) -> None:
    part.bind(node.to, part.text.load(node.to.type.bits, part.integers[node.slot]))


def _write_slot(part: Part, node: ir.WriteSlot) -> None:
    part.text.store(node.source.type.bits, part.value(node.source), part.integers[node.slot])


def _fault(part: Part, _: ir.Fault) -> None:
    part.fault("-1")


def _faulted(part: Part, node: ir.Faulted) -> None:
    part.bind(node.to, part.faulted())


PLAIN: Lowerings = {
    ir.Const: _const,
    ir.Binary: _binary,
    ir.Compare: _compare,
    ir.Convert: _convert,
    ir.ReadSlot: _read_slot,
    ir.WriteSlot: _write_slot,
    ir.Fault: _fault,
    ir.Faulted: _faulted,
}
