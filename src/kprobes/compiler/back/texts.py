"""Byte buffers: constants, copied, compared, searched and cut.

A buffer is zero-filled behind its string, so that it can be a map's key, go to user space whole, and be compared by
words.
"""

from __future__ import annotations

from kprobes.compiler.back.arithmetic import opaque, unknown
from kprobes.compiler.back.fields import put_text
from kprobes.compiler.back.memory import alignment, copy, pieces, zero
from kprobes.compiler.back.rooms import bounded, number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.part import Part
    from kprobes.compiler.back.text import FunctionText
    from kprobes.compiler.ir.nodes import CompareText, CompareTexts, CopyText, CutText, FindText, MatchText, TextLength


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


def text_length(part: Part, node: TextLength) -> None:
    """Count the bytes before the NUL, by copying them to where they are."""
    pointer = part.buffer(node.slot)
    part.bind(node.to, part.copy_string(pointer, pointer, str(node.slot.size)))


def find_text(part: Part, node: FindText) -> None:
    """Look at each place in turn, up to the NUL. With the NUL behind it a text is only found at the end."""
    text, pointer = part.text, part.buffer(node.slot)
    wanted = node.text + b"\0" if node.at_end else node.text
    before, loop, end = text.block, text.label("place"), text.label("found")
    following, again = f"%next.{loop}", text.label("again")
    text.start(loop)
    at = text.phi("i64", [("0", before), (following, again)])
    place = text.offset(pointer, at)
    first = text.let(f"load volatile i8, ptr {place}, align 1")
    ways = []
    for index, byte in enumerate(wanted):
        found = first if index == 0 else text.let(f"load volatile i8, ptr {text.offset(place, index)}, align 1")
        equal = text.label("equal")
        text.branch(text.let(f"icmp eq i8 {found}, {_signed(byte, 1)}"), equal, again)
        text.start(equal)
    ways.append(("true", text.block))
    text.jump(end)
    text.start(again)
    text.do(f"{following} = add i64 {at}, 1")
    over = text.let(f"icmp ugt i64 {following}, {node.slot.size - 1 - len(node.text)}")
    ended = text.let(f"icmp eq i8 {first}, 0")
    ways.append(("false", text.block))
    text.branch(text.let(f"or i1 {over}, {ended}"), end, loop)
    text.start(end)
    part.bind(node.to, text.phi("i1", ways))


def match_text(part: Part, node: MatchText) -> None:
    """Follow all ways of matching at once, as the bits of a number: bit n is set while the first n elements have
    matched. A star lets its bit stay."""
    text, pointer = part.text, part.buffer(node.slot)
    wanted, stays, count = _ways(node.elements)
    before, loop, end = text.block, text.label("byte"), text.label("matched")
    following, behind, again = f"%next.{loop}", f"%behind.{loop}", text.label("again")
    text.start(loop)
    at = text.phi("i64", [("0", before), (following, again)])
    ways = text.phi("i64", [("1", before), (behind, again)])
    byte = text.let(f"load volatile i8, ptr {text.offset(pointer, at)}, align 1")
    text.branch(text.let(f"icmp eq i8 {byte}, 0"), end, again)
    text.start(again)
    letter = text.let(f"zext i8 {byte} to i64")
    taken = "0"
    for accepted, places in wanted.items():
        is_one = _is_one_of(text, letter, accepted)
        mask = text.let(f"and i64 {text.let(f'sub i64 0, {is_one}')}, {places}")
        taken = text.let(f"or i64 {taken}, {mask}")
    stepped = text.let(f"shl i64 {text.let(f'and i64 {ways}, {taken}')}, 1")
    text.do(f"{behind} = or i64 {stepped}, {text.let(f'and i64 {ways}, {stays}')}")
    text.do(f"{following} = add i64 {at}, 1")
    text.branch(text.let(f"icmp ugt i64 {following}, {node.slot.size - 1}"), end, loop)
    text.start(end)
    last = text.phi("i64", [(ways, loop), (behind, again)])
    part.bind(node.to, text.let(f"icmp ne i64 {text.let(f'and i64 {last}, {1 << count}')}, 0"))


def _ways(elements: tuple[bytes, ...]) -> tuple[dict[bytes, int], int, int]:
    """Return by accepted bytes the bits of the elements that accept them, the bits that stay, and how many elements
    there are without the stars."""
    wanted: dict[bytes, int] = {}
    stays = count = 0
    for element in elements:
        if element:
            wanted[element] = wanted.get(element, 0) | 1 << count
            count += 1
        else:
            stays |= 1 << count
    return wanted, stays, count


def _is_one_of(text: FunctionText, letter: str, accepted: bytes) -> str:
    """Return 1 if *letter* is one of the bytes *accepted*, else 0, as i64 and without a branch in it."""
    found = "0"
    for low, high in _spans(accepted):
        distance = unknown(text, text.let(f"sub i64 {letter}, {low}"))
        inside = text.let(f"lshr i64 {text.let(f'sub i64 {distance}, {high - low + 1}')}, 63")
        below = text.let(f"lshr i64 {distance}, 63")
        found = text.let(f"or i64 {found}, {text.let(f'xor i64 {inside}, {below}')}")
    return found


def _spans(accepted: bytes) -> list[tuple[int, int]]:
    """Return *accepted*, which ascends, as spans (from, to)."""
    spans: list[tuple[int, int]] = []
    for byte in accepted:
        if spans and spans[-1][1] == byte - 1:
            spans[-1] = (spans[-1][0], byte)
        else:
            spans.append((byte, byte))
    return spans


# More bytes than this from an odd distance are copied by the machine's own means, not one by one.
_ODD_BYTES = 16


def cut_text(part: Part, node: CutText) -> None:
    """Copy a part of one buffer to another."""
    start, length = number_of(part, node.start), number_of(part, node.length)
    if start is None or length is None:
        _cut_at_run_time(part, node)
        return
    text, to, size = part.text, part.buffer(node.slot), node.slot.size
    count = max(0, min(length, size - 1, node.source.size - 1 - start))
    if count > _ODD_BYTES and start % 8:
        zero(text, to, size)
        part.copy_string(to, text.offset(part.buffer(node.source), start), str(count + 1))
        return
    if count:  # what lies behind the string's end is zeros
        copy(text, (to, 8), (text.offset(part.buffer(node.source), start), alignment(start)), count)
    zero(text, text.offset(to, count), size - count, alignment(count))


def _cut_at_run_time(part: Part, node: CutText) -> None:
    text, to, most = part.text, part.buffer(node.slot), node.slot.size - 1
    zero(text, to, part.rooms[node.slot])
    inside, copied = text.label("inside"), text.label("cut")
    start = opaque(text, part.value(node.start))
    text.branch(text.let(f"icmp ult i64 {start}, {node.source.size}"), inside, copied)
    text.start(inside)
    start = bounded(part, start, node.source.size - 1)
    limited, ready, before = text.label("limited"), text.label("ready"), text.block
    length = part.value(node.length)
    text.branch(text.let(f"icmp ugt i64 {length}, {most}"), limited, ready)
    text.start(limited)
    text.jump(ready)
    text.start(ready)
    count = bounded(part, text.phi("i64", [(length, before), (str(most), limited)]), most)
    part.copy_string(to, text.offset(part.buffer(node.source), start), text.let(f"add i64 {count}, 1"))
    text.start(copied)
