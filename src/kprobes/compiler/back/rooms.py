"""How much memory buffers take that are filled to a length known at run time only.

A verifier wants to see the bounds of such a length. A comparison doesn't show them for sure: LLVM may compare a copy in
a register and use one that it has put on the stack before, and verifiers don't connect the two. A mask does, as part of
the value. What passes a mask is more than what the buffer is for, though never in fact, so the buffer gets the room.
"""

from __future__ import annotations

from kprobes.compiler.back.arithmetic import opaque
from kprobes.compiler.ir.nodes import Const, CutText, FormatText, Slot, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.compiler.back.part import Part


def rooms(part: Part) -> dict[Slot, int]:
    """Return the bytes that buffers take which take more than their size."""
    found: dict[Slot, int] = {}
    for block in part.function.blocks:
        for node in block.nodes:
            if isinstance(node, FormatText):
                needed = max((mask_of(before) + most + 1 for before, most in _pieces(node)), default=0)
            elif isinstance(node, CutText) and (number_of(part, node.start), number_of(part, node.length)).count(None):
                needed = mask_of(node.slot.size - 1) + 1
            else:
                continue
            found[node.slot] = max(node.slot.size, needed, found.get(node.slot, 0))
    return found


def mask_of(most: int) -> int:
    """Return the least mask that lets all numbers up to *most* pass."""
    return (1 << most.bit_length()) - 1


def bounded(part: Part, value: str, most: int) -> str:
    """Return the i64 *value*, which is at most *most*, in a way that tells a verifier so, and LLVM not: it would drop
    the mask, or use it to or the value to an aligned pointer."""
    return opaque(part.text, part.text.let(f"and i64 {opaque(part.text, value)}, {mask_of(most)}"))


def number_of(part: Part, value: Value) -> int | None:
    """Return what *value* is, where that is known."""
    maker = part.maker(value)
    return maker.value if isinstance(maker, Const) else None


def _pieces(node: FormatText) -> Iterator[tuple[int, int]]:
    """Yield for each piece that is put in how many bytes come before it, and how many it has, both at most."""
    before = 0
    operands = iter(node.operands)
    for piece in node.pieces:
        operand = next(operands) if piece.takes else None
        parts = [len(piece.text)]
        if isinstance(operand, Slot):
            parts.append(operand.size - 1)
        elif operand is not None:
            parts += [int(operand.type.signed), len(piece.prefix), piece.most]
        for most in parts:
            yield before, most
            before += most
