"""Moving bytes: zeroing, copying, and by which words."""

from __future__ import annotations

from math import gcd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kprobes.compiler.back.text import FunctionText


def alignment(offset: int) -> int:
    """Return the alignment of what lies *offset* bytes behind an 8-byte boundary."""
    return gcd(offset, 8) if offset else 8


def pieces(size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (offset, width) of the largest aligned words that make up *size* bytes."""
    end = start + size
    while start < end:
        width = alignment(start)
        while width > end - start:
            width //= 2
        yield start, width
        start += width


def zero(text: FunctionText, pointer: str, size: int, align: int = 8) -> None:
    """Fill *size* bytes with zeros."""
    if size <= text.module.unrolled:
        if size:
            memset = text.module.declare("llvm.memset.p0.i64", "void {}(ptr, i8, i64, i1)")
            text.do(f"call void {memset}(ptr align {align} {pointer}, i8 0, i64 {size}, i1 false)")
        return
    words = size // 8

    def store(at: str) -> None:
        text.do(f"store volatile i64 0, ptr {text.offset(pointer, at)}, align {align}")

    _each_word(text, words, store)
    zero(text, text.offset(pointer, 8 * words), size % 8, align)


def copy(text: FunctionText, to: tuple[str, int], source: tuple[str, int], size: int) -> None:
    """Copy *size* bytes between two (pointer, alignment)."""
    if size <= text.module.unrolled:
        if size:
            memcpy = text.module.declare("llvm.memcpy.p0.p0.i64", "void {}(ptr, ptr, i64, i1)")
            pointers = f"ptr align {to[1]} {to[0]}, ptr align {source[1]} {source[0]}"
            text.do(f"call void {memcpy}({pointers}, i64 {size}, i1 false)")
        return
    words = size // 8

    def move(at: str) -> None:
        word = text.let(f"load volatile i64, ptr {text.offset(source[0], at)}, align {source[1]}")
        text.do(f"store volatile i64 {word}, ptr {text.offset(to[0], at)}, align {to[1]}")

    _each_word(text, words, move)
    rest = (text.offset(to[0], 8 * words), to[1]), (text.offset(source[0], 8 * words), source[1])
    copy(text, *rest, size % 8)


def _each_word(text: FunctionText, words: int, do: Callable[[str], None]) -> None:
    """Write a loop over *words* words; *do* gets the distance of each. Volatile accesses keep it a loop."""
    before, loop, after = text.block, text.label("words"), text.label("done")
    following = f"%next.{loop}"
    text.start(loop)
    name = text.phi("i64", [("0", before), (following, loop)])
    do(name)
    text.do(f"{following} = add i64 {name}, 8")
    text.branch(text.let(f"icmp ult i64 {following}, {8 * words}"), loop, after)
    text.start(after)
