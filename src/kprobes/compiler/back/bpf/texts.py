"""Byte buffers: filled by reads, constants and builtins, copied and compared.

A buffer is zero-filled behind its string, so that it can be a map's key, go to user space whole, and be compared by
words. The reading helpers leave the bytes behind the NUL alone, hence the zeroing before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.memory import alignment, put_text, read, zero
from kprobes.compiler.ir.nodes import (
    BuiltinText,
    ConstText,
    CopyText,
    ReadBytes,
    ReadText,
    RecordText,
)
from kprobes.errors import InternalError
from kprobes.model.plan import Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.compiler.back.bpf.part import Part
    from kprobes.compiler.back.text import FunctionText
    from kprobes.compiler.ir.nodes import CompareText, CompareTexts

Fill = ReadText | ReadBytes | RecordText | ConstText | BuiltinText
FILLS = (ReadText, ReadBytes, RecordText, ConstText, BuiltinText)


def fill_slot(part: Part, node: Fill) -> None:
    """Fill the node's slot, unless the one record that wants it is filled directly."""
    if node.slot not in part.sunk:
        fill(part, node, part.buffer(node.slot), 8)


def fill(part: Part, node: Fill, to: str, align: int) -> None:
    """Write the whole of the node's slot to *to*."""
    size = node.slot.size
    if isinstance(node, ReadText):
        zero(part.text, to, size, align)
        read(part, "probe_read_{}_str", to, size, (part.value(node.address), node.offset, node.space))
    elif isinstance(node, ReadBytes):
        read(part, "probe_read_{}", to, size, (part.value(node.address), node.offset, node.space))
    elif isinstance(node, RecordText):
        _record_text(part, node, to, align)
    elif isinstance(node, ConstText):
        const_text(part.text, node.text, (to, align), size)
    else:
        _builtin_text(part, node, to)


def _record_text(part: Part, node: RecordText, to: str, align: int) -> None:
    """Follow a `__data_loc`. A context takes no variable offset, but a helper may read from it like from any memory."""
    if part.way != Way.TRACEPOINT:
        raise part.unsupported("a field of a tracepoint", node.place, "")
    text, size = part.text, node.slot.size
    if node.size:  # an array may be full to its last byte, without a NUL
        at, size = text.offset(part.context, node.offset), min(size, node.size + 1)
    else:
        where = text.load(32, text.offset(part.context, node.offset))
        low = text.let(f"zext i32 {text.let(f'and i32 {where}, 65535')} to i64")
        at = text.offset(part.context, low)
    zero(text, to, node.slot.size, align)
    read(part, "probe_read_{}_str", to, size, (text.let(f"ptrtoint ptr {at} to i64"), 0, "kernel"))


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


def _builtin_text(part: Part, node: BuiltinText, to: str) -> None:
    if node.name != "comm":
        raise InternalError(f"{part.handler.name}: no text is called {node.name!r}")
    call(part.text, "get_current_comm", to, str(node.slot.size))  # pads with zeros; can't fail for a task


def copy_text(part: Part, node: CopyText) -> None:
    """Copy one buffer to another."""
    put_text(part, node.source, part.buffer(node.slot), 0, node.slot.size)


def pieces(size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (offset, width) of the largest aligned words that make up *size* bytes."""
    end = start + size
    while start < end:
        width = alignment(start)
        while width > end - start:
            width //= 2
        yield start, width
        start += width


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


__all__ = ["FILLS", "Fill", "compare_text", "compare_texts", "copy_text", "fill", "fill_slot"]
