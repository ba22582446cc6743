"""Byte buffers: constants, copied and compared.

A buffer is zero-filled behind its string, so that it can be a map's key, go to user space whole, and be compared by
words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.fields import put_text
from kprobes.compiler.back.memory import pieces, zero

if TYPE_CHECKING:
    from kprobes.compiler.back.part import Part
    from kprobes.compiler.back.text import FunctionText
    from kprobes.compiler.ir.nodes import CompareText, CompareTexts, CopyText


def const_text(text: FunctionText, content: bytes, to: tuple[str, int], size: int) -> None:
    """Store *content* and zeros as words, as immediates: a constant in memory would need a map."""
    padded = content.ljust(size, b"\0")[:size]
    written = min(size, -(-(len(content) + 1) // 8) * 8)
    for at, width in pieces(written):
        number = int.from_bytes(padded[at : at + width], "little")
        text.store(8 * width, str(_signed(number, width)), text.offset(to[0], at), min(width, to[1]))
    zero(text, text.offset(to[0], written), size - written, to[1])


def _signed(number: int, width: int) -> int:
    return number - (1 << 8 * width) if number >> (8 * width - 1) else number


def copy_text(part: Part, node: CopyText) -> None:
    """Copy one buffer to another."""
    put_text(part, node.source, part.buffer(node.slot), 0, node.slot.size)


def compare_text(part: Part, node: CompareText) -> None:
    """Compare a buffer with a constant, word by word, until one differs."""
    wanted = node.text if node.prefix else node.text + b"\0"
    pointer = part.buffer(node.slot)
    tests = []
    for at, width in pieces(len(wanted)):
        number = _signed(int.from_bytes(wanted[at : at + width], "little"), width)
        tests.append((at, width, str(number)))
    part.bind(node.to, _all_equal(part.text, pointer, tests))


def compare_texts(part: Part, node: CompareTexts) -> None:
    """Compare two buffers. Both hold a NUL, so the smaller one's size decides."""
    text = part.text
    left, right = part.buffer(node.left), part.buffer(node.right)
    end, ways = text.label("compared"), []
    for at, width in pieces(min(node.left.size, node.right.size)):
        ours, theirs = (text.load(8 * width, text.offset(pointer, at)) for pointer in (left, right))
        following = text.label("word")
        ways.append(("false", text.block))
        text.branch(text.let(f"icmp eq i{8 * width} {ours}, {theirs}"), following, end)
        text.start(following)
    ways.append(("true", text.block))
    text.start(end)
    part.bind(node.to, text.phi("i1", ways))


def _all_equal(text: FunctionText, pointer: str, tests: list[tuple[int, int, str]]) -> str:
    if not tests:
        return "true"
    end, ways = text.label("compared"), []
    for at, width, number in tests:
        word = text.load(8 * width, text.offset(pointer, at))
        following = text.label("word")
        ways.append(("false", text.block))
        text.branch(text.let(f"icmp eq i{8 * width} {word}, {number}"), following, end)
        text.start(following)
    ways.append(("true", text.block))
    text.start(end)
    return text.phi("i1", ways)
