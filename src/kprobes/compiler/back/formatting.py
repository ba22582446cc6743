"""Strings put together at run time: pieces of text and numbers, one behind the other.

Where a piece goes depends on how long those before it turned out to be: at most what they can come to (see `rooms`).

A number is written without a loop, all digits that it can have, from the last to the first; its string begins at the
first digit that is wanted, which is found by adding up signs. So there is one way through it, and the verifier has one
state to follow, however many numbers a handler writes.
"""

from __future__ import annotations

from kprobes.compiler.back.arithmetic import opaque
from kprobes.compiler.back.memory import zero
from kprobes.compiler.back.rooms import bounded
from kprobes.compiler.back.texts import const_text
from kprobes.compiler.ir.nodes import Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.part import Part
    from kprobes.compiler.ir.nodes import FormatText, Piece, Value

_DIGITS_END = 23  # of 24 bytes: the NUL behind the last of up to 20 digits
_SIGN = b"-"


class _Row:
    """A buffer that is being filled: how far it is (an i64 operand), and how far that can be at most."""

    def __init__(self, part: Part, node: FormatText) -> None:
        self.part = part
        self.to = part.buffer(node.slot)
        self.filled = "0"
        self.most = 0

    def literal(self, content: bytes) -> None:
        """Append *content*."""
        if not content:
            return
        if self.most == 0:
            const_text(self.part.text, content, (self.to, 8), len(content) + 1)
            self.filled, self.most = str(len(content)), len(content)
            return
        room = self.part.temporary("literal", len(content) + 1)
        const_text(self.part.text, content, (room, 8), len(content) + 1)
        self.string(room, len(content))

    def string(self, source: str, most: int) -> None:
        """Append the string at *source*, of at most *most* bytes."""
        text = self.part.text
        if self.filled.startswith("%"):
            self.filled = bounded(self.part, self.filled, self.most)
        length = self.part.copy_string(text.offset(self.to, self.filled), source, str(most + 1))
        self.filled = text.let(f"add i64 {self.filled}, {length}")
        self.most += most


def format_text(part: Part, node: FormatText) -> None:
    """Put the pieces together."""
    row = _Row(part, node)
    zero(part.text, row.to, part.rooms[node.slot])
    operands = iter(node.operands)
    for piece in node.pieces:
        row.literal(piece.text)
        if piece.takes:
            operand = next(operands)
            if isinstance(operand, Slot):
                row.string(part.buffer(operand), operand.size - 1)
            else:
                _number(part, row, piece, operand)


def _number(part: Part, row: _Row, piece: Piece, value: Value) -> None:
    text, number, negative = part.text, part.value(value), "0"
    if value.type.signed:
        negative = text.let(f"lshr i64 {opaque(text, number)}, 63")
        mask = text.let(f"sub i64 0, {negative}")
        number = text.let(f"add i64 {text.let(f'xor i64 {number}, {mask}')}, {negative}")
        sign = part.temporary("sign", 8)
        const_text(text, _SIGN, (sign, 8), 8)
        row.string(text.offset(sign, bounded(part, text.let(f"xor i64 {negative}, 1"), 1)), 1)
    row.literal(piece.prefix)
    digits, count = _digits(part, piece, number, negative)
    begin = text.let(f"sub i64 {_DIGITS_END}, {count}")
    row.string(text.offset(digits, bounded(part, begin, _DIGITS_END)), piece.most)


def _digits(part: Part, piece: Piece, number: str, negative: str) -> tuple[str, str]:
    """Write all digits that *number* can have; return their buffer, and how many of them are wanted.

    A digit is wanted where it is one of the least, or where the number is not used up. A minus takes the place of the
    last of the least, which is then wanted only in the second case.
    """
    text, room = part.text, part.temporary("digits", _DIGITS_END + 1)
    text.store(8, "0", text.offset(room, _DIGITS_END))
    sure = piece.least if negative == "0" or piece.least == 1 else piece.least - 1
    count, rest = str(sure), number
    for index in range(piece.most):
        # `opaque`, or LLVM would know the range, and make comparisons and branches of the signs.
        rest = opaque(text, rest)
        if index >= sure:
            wanted = text.let(f"lshr i64 {text.let(f'sub i64 0, {rest}')}, 63")  # 0 where the number is used up
            if index < piece.least:
                wanted = text.let(f"or i64 {wanted}, {text.let(f'xor i64 {negative}, 1')}")
            count = text.let(f"add i64 {count}, {wanted}")
        rest, digit = _split(part, piece.base, rest)
        text.store(8, _character(part, piece, digit), text.offset(room, _DIGITS_END - 1 - index), 1)
    return room, count


def _split(part: Part, base: int, number: str) -> tuple[str, str]:
    """Return *number* without its last digit, and that digit."""
    text = part.text
    if base == 16:
        return text.let(f"lshr i64 {number}, 4"), text.let(f"and i64 {number}, 15")
    rest = text.let(f"udiv i64 {number}, 10")
    return rest, text.let(f"sub i64 {number}, {text.let(f'mul i64 {rest}, 10')}")


def _character(part: Part, piece: Piece, digit: str) -> str:
    """Return the byte of a digit: those above nine lie behind a gap."""
    text = part.text
    byte = text.let(f"add i64 {digit}, 48")
    if piece.base == 16:
        gap = ord("A" if piece.upper else "a") - ord("9") - 1
        above = text.let(f"lshr i64 {text.let(f'sub i64 9, {opaque(text, digit)}')}, 63")
        byte = text.let(f"add i64 {byte}, {text.let(f'mul i64 {above}, {gap}')}")
    return text.let(f"trunc i64 {byte} to i8")
